"""The parts of a network that can be pruned, what comes into them, and networks with less of them."""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from vitlocal.compress.prune.obs import Sweep
from vitlocal.errors import InputError
from vitlocal.models import Attention, VisionTransformer
from vitlocal.models.pruning import prune

Kind: TypeAlias = Literal["attention", "mlp"]
SHRINK = 0.9
"""An MLP's levels are this to the power of 0, 1, ... of its features in the whole network, down to 1 %."""


class Part(NamedTuple):
    """A branch of a layer: its attention, of whose heads it is made, or its MLP, of whose hidden features."""

    layer: int
    kind: Kind


Choice: TypeAlias = dict[Part, int]
"""How many structures each part keeps."""


@dataclass(frozen=True)
class Inputs:
    """What comes into the last linear layer of a part, over the calibration images.

    Attributes:
        gram: sum of x x^T, (C, C), float64.
        total: sum of x, (C,), float64.
        count: number of tokens.
    """

    gram: Tensor
    total: Tensor
    count: int

    def energy(self, layer: nn.Linear) -> float:
        """Sum of the squared outputs of the layer, its bias among them."""
        weight = layer.weight.double()
        energy = ((weight @ self.gram) * weight).sum()
        if layer.bias is not None:
            bias = layer.bias.double()
            energy = energy + 2 * bias @ (weight @ self.total) + self.count * bias.square().sum()
        return float(energy)


def check(network: nn.Module, name: str) -> VisionTransformer:
    """The network, if it can be pruned.

    Args:
        network: of a run.
        name: of the run, for people.

    Raises:
        InputError: it is of another kind, or its attention is, or has no heads that can be cut out.
    """
    if not isinstance(network, VisionTransformer):
        raise InputError(
            f"{name} is a {type(network).__name__}: only vitlocal's VisionTransformer and plain ViTs of timm "
            "can be pruned"
        )
    block: Any
    for number, block in enumerate(network.blocks):
        if block.attn is not None and not isinstance(block.attn, Attention):
            raise InputError(
                f"the attention of layer {number} of {name} is a {type(block.attn).__name__} without an "
                "explicit form: give a network whose attention is a vitlocal.models.Attention"
            )
        if block.attn is not None:
            copy.deepcopy(block.attn).keep_heads(block.attn.head_numbers)  # refuses where it can't
    return network


def last_layer(network: VisionTransformer, part: Part) -> nn.Linear:
    """The linear layer at the end of a part, whose columns are its structures."""
    block: Any = network.blocks[part.layer]
    layer: nn.Linear = block.attn.proj if part.kind == "attention" else block.mlp.fc2
    return layer


def size_of(network: VisionTransformer, part: Part) -> int:
    """Columns of a structure: the features of a head, or 1."""
    block: Any = network.blocks[part.layer]
    return int(block.attn.head_dim) if part.kind == "attention" else 1


def kept_by(network: VisionTransformer) -> Choice:
    """How many structures each part has."""
    block: Any
    found: Choice = {}
    for number, block in enumerate(network.blocks):
        if block.attn is not None:
            found[Part(number, "attention")] = block.attn.num_heads
        if block.mlp is not None:
            found[Part(number, "mlp")] = block.mlp.fc2.in_features
    return found


def levels_of(network: VisionTransformer, hidden: int) -> dict[Part, list[int]]:
    """The numbers of structures kept at which each part is wanted, from all to none.

    Args:
        network: the one to prune, which may have been pruned before.
        hidden: features of an MLP in the whole network.
    """
    widths: list[int] = []
    while SHRINK ** len(widths) > 0.01:
        widths.append(round(SHRINK ** len(widths) * hidden))
    found = {}
    for part, own in kept_by(network).items():
        if part.kind == "attention":
            found[part] = list(range(own, -1, -1))
        else:
            below = {width for width in widths if width < own}
            found[part] = [own, *sorted(below - {0}, reverse=True), 0]
    return found


@torch.no_grad()
def collect(
    network: VisionTransformer, parts: Iterable[Part], batches: Iterable[Tensor]
) -> dict[Part, Inputs]:
    """What comes into the last layers of all parts.

    Args:
        network: in evaluation; the contexts of its attention are those that ``explicit`` shows.
        parts: all of its parts.
        batches: normalised images (B, C, H, W).
    """
    shown, parts = copy.deepcopy(network), list(parts)
    grams: dict[Part, Tensor] = {}
    totals: dict[Part, Tensor] = {}
    counts = dict.fromkeys(parts, 0)

    def add(part: Part, x: Tensor) -> None:
        x = x.flatten(0, -2).double()
        grams[part] = grams[part] + x.T @ x if part in grams else x.T @ x
        totals[part] = totals[part] + x.sum(0) if part in totals else x.sum(0)
        counts[part] += len(x)

    for part in parts:
        block: Any = shown.blocks[part.layer]
        if part.kind == "attention":
            block.attn.forward = _explicit(block.attn, part, add)
        else:
            block.mlp.fc2.register_forward_pre_hook(lambda module, inputs, part=part: add(part, inputs[0]))
    for images in batches:
        shown(images)
    return {part: Inputs(grams[part], totals[part], counts[part]) for part in parts}


def _explicit(attention: Any, part: Part, add: Callable[[Part, Tensor], None]) -> Callable[[Tensor], Tensor]:
    def tap(name: str, tensor: Tensor) -> None:
        if name == "context":
            add(part, tensor)

    return lambda x: attention.explicit(x, tap)


@torch.no_grad()
def stitch(network: VisionTransformer, sweeps: Mapping[Part, Sweep], choice: Choice) -> VisionTransformer:
    """A copy of a network of which each part keeps so many structures, with the weights of its sweep."""
    made = copy.deepcopy(network)
    blocks: list[Any] = list(made.blocks)
    kept = {part: sweeps[part].levels[count].kept for part, count in choice.items()}
    kept_heads = [
        [block.attn.head_numbers[place] for place in kept.get(Part(layer, "attention"), ())]
        for layer, block in enumerate(blocks)
    ]
    prune(blocks, kept_heads, [kept.get(Part(layer, "mlp"), ()) for layer in range(len(blocks))])
    for part, count in choice.items():
        if count:
            weight = last_layer(made, part).weight
            weight.copy_(sweeps[part].levels[count].weight)
    return made


def shape_of(network: VisionTransformer) -> dict[str, list[Any]]:
    """The arguments of :class:`~vitlocal.models.VisionTransformer` that say what each layer has left."""
    blocks: list[Any] = list(network.blocks)
    return {
        "kept_heads": [[] if block.attn is None else list(block.attn.head_numbers) for block in blocks],
        "mlp_hidden": [0 if block.mlp is None else block.mlp.fc2.in_features for block in blocks],
    }
