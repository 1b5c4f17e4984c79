"""Networks whose layers differ: with some of their heads, MLPs of some width, and branches left out."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vitlocal.errors import InputError


def columns_of(numbers: Sequence[int], size: int, device: torch.device | None = None) -> Tensor:
    """The features of some groups of ``size`` adjacent ones, int64 (``len(numbers)`` * ``size``,)."""
    first = torch.tensor(numbers, dtype=torch.int64, device=device) * size
    return (first[:, None] + torch.arange(size, device=device)).flatten()


def cut_linear(layer: nn.Linear, outputs: Tensor | None = None, inputs: Tensor | None = None) -> None:
    """Leave a linear layer these outputs and inputs, int64, in this order; None: all."""
    weight = layer.weight.detach()
    if outputs is not None:
        weight = weight[outputs]
        if layer.bias is not None:
            layer.bias = nn.Parameter(layer.bias.detach()[outputs])
    if inputs is not None:
        weight = weight[:, inputs]
    layer.weight = nn.Parameter(weight.clone())
    layer.out_features, layer.in_features = weight.shape


def check_kept(
    kept_heads: Sequence[Sequence[int]] | None,
    mlp_hidden: Sequence[int] | None,
    depth: int,
    num_heads: int,
    hidden: int,
) -> None:
    """Refuse what :func:`prune` can't leave a network of these sizes.

    Raises:
        InputError: not one entry a layer, or a head or a width that the whole network does not have.
    """
    for name, given in (("kept_heads", kept_heads), ("mlp_hidden", mlp_hidden)):
        if given is not None and len(given) != depth:
            raise InputError(f"{name} has {len(given)} entries and depth is {depth}: give one a layer")
    for layer, heads in enumerate(kept_heads or ()):
        if list(heads) != sorted({head for head in heads if 0 <= head < num_heads}):
            raise InputError(
                f"kept_heads of layer {layer} is {list(heads)}: give different numbers from 0 to "
                f"{num_heads - 1}, ascending; none to leave its attention out"
            )
    for layer, width in enumerate(mlp_hidden or ()):
        if not 0 <= width <= hidden:
            raise InputError(f"mlp_hidden of layer {layer} is {width}: it must be from 0 to {hidden}")


def prune(
    blocks: Sequence[Any],
    kept_heads: Sequence[Sequence[int]] | None,
    mlp_hidden: Sequence[Sequence[int]] | None,
) -> None:
    """Leave each layer some of its heads and of its MLP's hidden features; the rest is cut out.

    A branch of which nothing is left goes as a whole, with its norm and its sum. Heads and layers keep the
    numbers that they have.

    Args:
        blocks: of a :class:`~vitlocal.models.VisionTransformer`.
        kept_heads: for each layer, the numbers of the heads that it keeps; None: all.
        mlp_hidden: for each layer, the places of the hidden features that it keeps; None: all.

    Raises:
        InputError: an attention module can't be cut.
    """
    for number, block in enumerate(blocks):
        if block.attn is not None:
            block.attn.layer_number = number
            if kept_heads is not None:
                if kept_heads[number]:
                    block.attn.keep_heads(kept_heads[number])
                else:
                    block.norm1 = block.attn = block.sum1 = None
        if block.mlp is not None and mlp_hidden is not None:
            if len(mlp_hidden[number]):
                places = torch.as_tensor(mlp_hidden[number], dtype=torch.int64)
                places = places.to(block.mlp.fc1.weight.device)
                cut_linear(block.mlp.fc1, outputs=places)
                cut_linear(block.mlp.fc2, inputs=places)
            else:
                block.norm2 = block.mlp = block.sum2 = None
