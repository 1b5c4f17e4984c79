"""Every layer's outliers over the images of one pass through a data set."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vitlocal.activations.outliers import (
    DEVIATIONS,
    SMALL_VALUE,
    IdleHeads,
    OutputOutliers,
    OutputStatistics,
)
from vitlocal.errors import InputError
from vitlocal.geometry import Geometry, Grid
from vitlocal.models.attention import Enough
from vitlocal.observing.batches import chosen_images
from vitlocal.observing.hooks import (
    CHUNK_ELEMENTS,
    find_attention,
    find_network,
    note_size,
    places,
    shows_qkv,
)

OUTPUTS = ("attention", "mlp", "block")
"""Outputs of a layer that are observed: those of its two branches, and its own, after the residual sums."""

Select = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LayerOutliers:
    """What was observed of a layer, means over images, on the CPU.

    Attributes:
        outputs: for each of ``OUTPUTS`` that it has.
        heads: ``do_nothing`` and ``update``, one value a head; empty where values can't be seen.
    """

    outputs: dict[str, OutputStatistics]
    heads: dict[str, list[float]]


def find_blocks(network: nn.Module) -> list[tuple[Any, Any]]:
    """Blocks of a network and their attention modules, in the order of their definition.

    A block is the module that holds an attention module (see
    :func:`~vitlocal.observing.hooks.find_attention`) and, as ``mlp``, the other branch, None where it is left
    out.

    Raises:
        InputError: there is no attention, or it is not in such a block.
    """
    found = []
    for name, attention in find_attention(network):
        block = network.get_submodule(name.rpartition(".")[0])
        if not isinstance(getattr(block, "mlp", ()), nn.Module | None):
            raise InputError(
                f"{type(network).__name__} has no blocks to observe outliers in: "
                f"the module that holds the attention {name} must have its MLP as mlp"
            )
        found.append((block, attention))
    return found


def shows_values(attention: Any) -> bool:
    """Whether an attention module shows its values and has a layer ``proj``, by which updates are known.

    Not where heads have hops: what a head mixes is no one row's.
    """
    return shows_qkv(attention) and hasattr(attention, "proj") and not getattr(attention, "num_hops", 0)


class OutlierCollector:
    """Collects outliers, and what tells that heads do nothing, while a network runs.

    Args:
        module: holds the network.
        device: where it runs.
        deviations: from which a value is an outlier.
        small_value: below which a value vector is small.
        chosen: for each loader, the numbers of the images to observe; None for all.

    Attributes:
        images: number of images observed so far in this process, float (), on the device.
        geometry: of the tokens.
        places: what the layers and their heads are called.

    Raises:
        InputError: there are no blocks in the module.
    """

    def __init__(
        self,
        module: nn.Module,
        device: torch.device,
        deviations: float = DEVIATIONS,
        small_value: float = SMALL_VALUE,
        chosen: Sequence[Tensor] | None = None,
    ) -> None:
        network: Any = find_network(module)
        self._network = network
        self.geometry: Geometry = network.geometry
        self.images = torch.zeros((), device=device)
        self._chosen = None if chosen is None else [indices.to(device) for indices in chosen]
        self._layers = [
            _Layer(block, attention, device, deviations, small_value)
            for block, attention in find_blocks(network)
        ]
        self.places = places(network)

    @contextmanager
    def batch(self, images: Tensor, index: Tensor | None = None, loader: int = 0) -> Iterator[None]:
        """As :meth:`vitlocal.heads.collector.HeadCollector.batch`."""
        among = chosen_images(images, index, None if self._chosen is None else self._chosen[loader])
        pixels: list[int] = []
        with ExitStack() as hooks:
            hooks.callback(note_size(self._network, pixels).remove)
            for layer in self._layers:
                layer.watch(hooks, (lambda x: x) if among is None else (lambda x: x[among]))
            yield
        if isinstance(self.geometry, Grid) and pixels and (tokens := self._layers[0].tokens):
            self.geometry = self.geometry.fitted(pixels, tokens)
        self.images += len(images) if among is None else len(among)

    def compute(self) -> list[LayerOutliers]:
        """What each layer did with the images of all processes; call it in all of them."""
        return [layer.compute() for layer in self._layers]


def _keep(seen: dict[str, Tensor], name: str, tensor: Tensor) -> None:
    """A tap that keeps what tells of heads that do nothing, which no later step overwrites."""
    seen[name] = tensor
    if name == "context":
        raise Enough


class _Layer:
    """Hooks on one block, and its sums."""

    def __init__(
        self, block: Any, attention: Any, device: torch.device, deviations: float, small_value: float
    ) -> None:
        self._block, self._attention = block, attention
        self._device, self._deviations = device, deviations
        self._outputs: dict[str, OutputOutliers] = {}
        self._heads = self._placed(IdleHeads(attention.num_heads, small_value))
        self._shows_values = shows_values(attention)

    @property
    def tokens(self) -> int:
        """How many there are, prefix tokens included; 0 before any was seen."""
        return self._outputs["block"].tokens if "block" in self._outputs else 0

    def _placed(self, metric: Any) -> Any:
        if self._device.type == "mps":  # which has no float64
            metric.set_dtype(torch.float32)
        return metric.to(self._device)

    def watch(self, hooks: ExitStack, select: Select) -> None:
        """Observe the next forward pass, until ``hooks`` are closed; ``select`` takes a batch's images."""
        modules = {"attention": self._attention, "mlp": self._block.mlp, "block": self._block}
        for name, module in modules.items():
            if module is not None:
                hook = self._output_hook(name, select)
                hooks.callback(module.register_forward_hook(hook).remove)
        if not self._shows_values:
            return
        stream: list[Tensor] = []  # kept until the block's attention runs

        def enter(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            stream[:] = [torch.linalg.vector_norm(select(inputs[0]).float(), dim=-1).mean(1)]

        def read(x: Tensor, qkv: Tensor) -> None:
            with torch.no_grad():
                self._observe_heads(select(x), select(qkv.transpose(0, 1)).transpose(0, 1), stream.pop())

        hooks.callback(self._block.register_forward_pre_hook(enter).remove)
        hooks.callback(self._attention.register_qkv_hook(read).remove)

    def _output_hook(self, name: str, select: Select) -> Callable[..., None]:
        def read(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
            x = select(output[0] if isinstance(output, tuple) else output)  # nn.MultiheadAttention's
            if name not in self._outputs:
                # Made here, where the size is known, without images too: all processes add up. They are
                # summed outside of inference mode as well.
                with torch.inference_mode(False):
                    metric = OutputOutliers(x.shape[1], x.shape[2], self._deviations)
                    self._outputs[name] = self._placed(metric)
            for chunk in x.split(max(1, CHUNK_ELEMENTS // x[0].numel())) if len(x) else ():
                self._outputs[name].update(chunk)

        return read

    def _observe_heads(self, x: Tensor, qkv: Tensor, stream: Tensor) -> None:
        attention, heads = self._attention, self._attention.num_heads
        size = max(1, CHUNK_ELEMENTS // (heads * x.shape[1] ** 2))
        for first in range(0, len(x), size):
            chunk = slice(first, first + size)
            seen: dict[str, Tensor] = {}
            with suppress(Enough):
                attention.explicit(x[chunk], partial(_keep, seen), qkv=qkv[:, chunk])
            self._heads.update(
                seen["weights"],
                seen["qkv"][2],
                seen["context"],
                attention.proj.weight,
                stream[chunk],
                seen.get("gates"),
            )

    def compute(self) -> LayerOutliers:
        outputs = {name: self._outputs[name].compute() for name in OUTPUTS if name in self._outputs}
        return LayerOutliers(
            {name: OutputStatistics(*(value.cpu() for value in found)) for name, found in outputs.items()},
            # torchmetrics makes a number of the one value of a single head.
            {name: values.flatten().tolist() for name, values in self._heads.compute().items()}
            if self._shows_values
            else {},
        )
