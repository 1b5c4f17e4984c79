"""Read attention probabilities while a network runs, a chunk of images at a time."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vitlocal.errors import InputError
from vitlocal.geometry import Geometry
from vitlocal.internals import exact_products
from vitlocal.models.adapters import adapt
from vitlocal.models.attention import attention_weights, num_maps

# 8 MiB of float32; the statistics need a few more tensors of that size. Larger is slower on a CPU.
CHUNK_ELEMENTS = 2**21


def find_network(module: nn.Module) -> nn.Module:
    """The outermost module within ``module``, itself included, that says where its tokens are.

    Networks of other libraries are made to say it: see :func:`vitlocal.models.adapters.adapt`.

    Returns:
        A module with a :class:`~vitlocal.geometry.Geometry` as ``geometry``.

    Raises:
        InputError: there is none.
    """
    for candidate in module.modules():
        if isinstance(getattr(candidate, "geometry", None), Geometry) or adapt(candidate):
            return candidate
    raise InputError(
        f"{type(module).__name__} has no network to observe: it must hold a Vision Transformer of vitlocal, "
        "timm, torchvision or transformers, or one of its modules have a geometry, such as "
        "vitlocal.geometry.Grid(8, 8)"
    )


def find_attention(network: nn.Module) -> list[tuple[str, Any]]:
    """Names and modules of a network's attention layers, in the order of their definition.

    They are the modules with ``num_heads`` and a method ``explicit``, from what ``forward`` takes, tokens
    (B, N, C), to the same output, by way of the weights that it applies: see
    :class:`~vitlocal.models.attention.Attention`.

    Raises:
        InputError: there are none.
    """
    found = [
        (name, module)
        for name, module in network.named_modules()
        if callable(getattr(module, "explicit", None))
    ]
    if not found:
        raise InputError(
            f"{type(network).__name__} has no attention to observe: "
            "its attention modules must have a method explicit(x, tap, queries)"
        )
    return found


class Place(NamedTuple):
    """What an attention layer and its heads are called.

    Attributes:
        layer: its number, from 0.
        heads: the numbers of its heads, from 0.
        num_hops: at how many hops each head has weights of its own; 0 where there is no such thing.
    """

    layer: int
    heads: tuple[int, ...]
    num_hops: int = 0

    @property
    def rows(self) -> list[dict[str, int]]:
        """What each row of weights of a query is of, in their order: a ``head``, and a ``hop`` from 1 on."""
        if not self.num_hops:
            return [{"head": head} for head in self.heads]
        return [{"head": head, "hop": hop + 1} for head in self.heads for hop in range(self.num_hops)]

    @property
    def names(self) -> list[str]:
        """The same in a word, such as ``head_3`` or ``head_3/hop_1``."""
        return ["/".join(f"{name}_{number}" for name, number in row.items()) for row in self.rows]


def places(network: nn.Module) -> list[Place]:
    """What a network's attention layers are called, in the order of :func:`find_attention`.

    Layers and heads of a pruned network keep the numbers that they had before.
    """
    found = []
    for number, (_, module) in enumerate(find_attention(network)):
        layer, heads = getattr(module, "layer_number", None), getattr(module, "head_numbers", None)
        heads = tuple(heads or range(module.num_heads))
        found.append(Place(number if layer is None else layer, heads, getattr(module, "num_hops", 0)))
    return found


def note_size(network: nn.Module, pixels: list[int]) -> RemovableHandle:
    """Keep height and width of the images that a network is run on in ``pixels``."""

    def note(network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = (each for each in (*args, *kwargs.values()) if isinstance(each, Tensor) and each.ndim == 4)
        pixels[:] = next((each.shape[2:] for each in given), ())

    return network.register_forward_pre_hook(note, with_kwargs=True)


@contextmanager
def observe(
    network: nn.Module,
    consumers: Sequence[Callable[[Tensor], object]],
    images: Tensor | None = None,
    count: int | None = None,
    chunk_elements: int = CHUNK_ELEMENTS,
    projected: Sequence[Callable[[Tensor], object] | None] | None = None,
) -> Iterator[None]:
    """Within the block, pass each attention layer's probabilities to that layer's consumer.

    Probabilities are computed for a chunk of images at a time, without gradients, from the queries and keys
    of the observed forward, which is the fast one all the same; the consumer gets them with autocast off, and
    nothing else keeps them.

    Args:
        network: run it eager, inside the block.
        consumers: one an attention layer, in the order of :func:`find_attention`; called with
            (B', H, N, N), for instance ``HeadStatistics.update``; where heads have hops, with a row of each.
        images: which images of a batch, as positions (int64) or a mask (bool); None for all.
        count: how many the batch has; None where that is not known.
        chunk_elements: most elements of probabilities at a time, or one image's if that is more.
        projected: for each attention layer, what gets its queries, keys and values (3, B, H, N, D), if
            anything does; layers that do not show them leave it out.

    Raises:
        InputError: in the block, if the network is run on another number of images.
    """
    if images is not None and images.dtype == torch.bool:
        images = images.nonzero().squeeze(1)  # once, not in every layer: the number of images syncs
    with ExitStack() as hooks:
        found = find_attention(network)
        beside = [None] * len(found) if projected is None else projected
        for (_, module), consumer, of_qkv in zip(found, consumers, beside, strict=True):
            read = _reader(module, consumer, images, count, chunk_elements, of_qkv)
            hooks.callback(_watch(module, read).remove)
        yield


def shows_qkv(attention: nn.Module) -> bool:
    """Whether a forward pass of an attention module shows what its tokens are projected to."""
    return hasattr(attention, "register_qkv_hook")


def _watch(attention: Any, read: Callable[[Tensor, Tensor | None], None]) -> RemovableHandle:
    """Call ``read`` with tokens and, where they are shown, their queries, keys and values."""
    if shows_qkv(attention):
        return attention.register_qkv_hook(read)
    return attention.register_forward_hook(lambda module, inputs, output: read(inputs[0], None))


def _reader(
    attention: Any,
    consumer: Callable[[Tensor], object],
    images: Tensor | None,
    count: int | None,
    chunk_elements: int,
    of_qkv: Callable[[Tensor], object] | None,
) -> Callable[[Tensor, Tensor | None], None]:
    def read(x: Tensor, qkv: Tensor | None) -> None:
        if count is not None and len(x) != count:
            raise InputError(
                f"the network was run on {len(x)} images of a batch with {count}: observe a validation step "
                "that runs it once on all of them, or say by images= where they are"
            )
        if images is not None:
            x, qkv = x[images], None if qkv is None else qkv[:, images]
        if not len(x):
            return
        tokens = math.prod(x.shape[1:-1])  # some keep rows and columns apart
        size = max(1, chunk_elements // (num_maps(attention) * tokens**2))
        with torch.no_grad():
            if of_qkv is not None and qkv is not None:
                of_qkv(qkv)
            for first in range(0, len(x), size):
                chunk = slice(first, first + size)
                projected = None if qkv is None else qkv[:, chunk]
                weights = attention_weights(attention, x[chunk], qkv=projected)
                with exact_products(x.device):
                    consumer(weights)

    return read
