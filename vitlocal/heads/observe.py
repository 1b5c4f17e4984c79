"""Read attention probabilities while a network runs, a chunk of images at a time."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vitlocal.errors import InputError
from vitlocal.heads.functional import exact_products

# 8 MiB of float32; the statistics need a few more tensors of that size. Larger is slower on a CPU.
CHUNK_ELEMENTS = 2**21


def find_network(module: nn.Module) -> nn.Module:
    """The outermost module within ``module``, itself included, that knows its grid of patches.

    Returns:
        A module with ``grid_size`` (rows, columns) and ``num_prefix_tokens``.

    Raises:
        InputError: there is none.
    """
    for candidate in module.modules():
        if hasattr(candidate, "grid_size") and hasattr(candidate, "num_prefix_tokens"):
            return candidate
    raise InputError(
        f"{type(module).__name__} has no network to observe: "
        "one of its modules must have the attributes grid_size and num_prefix_tokens"
    )


def find_attention(network: nn.Module) -> list[tuple[str, Any]]:
    """Names and modules of a network's attention layers, in the order of their definition.

    They are the modules with a method ``probabilities``, from what ``forward`` takes, tokens
    (B, N, D), to the weights it applies, (B, H, N, N), and with ``num_heads``.

    Raises:
        InputError: there are none.
    """
    found = [
        (name, module)
        for name, module in network.named_modules()
        if callable(getattr(module, "probabilities", None))
    ]
    if not found:
        raise InputError(
            f"{type(network).__name__} has no attention to observe: "
            "its attention modules must have a method probabilities(x)"
        )
    return found


@contextmanager
def observe(
    network: nn.Module,
    consumers: Sequence[Callable[[Tensor], object]],
    images: Tensor | None = None,
    chunk_elements: int = CHUNK_ELEMENTS,
    projected: Sequence[Callable[[Tensor], object] | None] | None = None,
) -> Iterator[None]:
    """Within the block, pass each attention layer's probabilities to that layer's consumer.

    Probabilities are computed for a chunk of images at a time, without gradients, under the autocast
    of the observed forward; the consumer gets them with autocast off, and nothing else keeps them.

    Args:
        network: run it eager, inside the block.
        consumers: one an attention layer, in the order of :func:`find_attention`; called with
            (B', H, N, N), for instance ``HeadStatistics.update``.
        images: which images of a batch, as positions (int64) or a mask (bool); None for all.
        chunk_elements: most elements of probabilities at a time, or one image's if that is more.
        projected: for each attention layer, what gets the output of its ``qkv``, if anything does.
    """
    if images is not None and images.dtype == torch.bool:
        images = images.nonzero().squeeze(1)  # once, not in every layer: the number of images syncs
    with ExitStack() as hooks:
        found = find_attention(network)
        beside = [None] * len(found) if projected is None else projected
        for (_, module), consumer, of_qkv in zip(found, consumers, beside, strict=True):
            hook = _hook(module, consumer, images, chunk_elements, of_qkv)
            watched = module.qkv if hasattr(module, "weights") else module
            hooks.callback(watched.register_forward_hook(hook).remove)
        yield


def _hook(
    attention: Any,
    consumer: Callable[[Tensor], object],
    images: Tensor | None,
    chunk_elements: int,
    of_qkv: Callable[[Tensor], object] | None,
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    """A forward hook for ``attention.qkv`` or, where there are no ``weights``, for ``attention`` itself."""

    def read(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        whole = module is attention
        source, weights = (
            inputs[0] if whole else output,
            attention.probabilities if whole else attention.weights,
        )
        source = source if images is None else source[images]
        elements = attention.num_heads * source.shape[1] ** 2
        with torch.no_grad():
            if of_qkv is not None and len(source):
                of_qkv(source)
            for chunk in source.split(max(1, chunk_elements // elements)) if len(source) else ():
                probabilities = weights(chunk)
                with exact_products(source.device):
                    consumer(probabilities)

    return read
