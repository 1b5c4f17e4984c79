"""Ways to prune that ZipLM is measured against."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vitlocal.compress.prune.obs import Sweep, ranked
from vitlocal.compress.prune.parts import Inputs, Part, last_layer, size_of
from vitlocal.models import VisionTransformer

Importance = Callable[[VisionTransformer, Part, Inputs], Tensor]


def magnitude(network: VisionTransformer, part: Part, inputs: Inputs) -> Tensor:
    """Sum of the squares of all weights that go with a structure, as in group magnitude pruning.

    Of a head its rows of queries, keys and values and its columns of the output projection; of a hidden
    feature its row and its column.
    """
    block: Any = network.blocks[part.layer]
    columns = last_layer(network, part).weight.square().sum(0)
    if part.kind == "attention":
        columns = columns + block.attn.qkv.weight.square().sum(1).unflatten(0, (3, -1)).sum(0)
    else:
        columns = columns + block.mlp.fc1.weight.square().sum(1)
    return columns.unflatten(0, (-1, size_of(network, part))).sum(1)


def diagonal(network: VisionTransformer, part: Part, inputs: Inputs) -> Tensor:
    """Sum of a structure's squared weights, each times its input's mean square: OBS without correlations."""
    columns = last_layer(network, part).weight.double().square().sum(0) * inputs.gram.diagonal()
    return columns.unflatten(0, (-1, size_of(network, part))).sum(1)


def random(seed: int) -> Importance:
    """Drawn from the seed and the part's place."""

    def drawn(network: VisionTransformer, part: Part, inputs: Inputs) -> Tensor:
        place = 2 * part.layer + (part.kind == "mlp")
        generator = torch.Generator().manual_seed(seed * 10_007 + place)
        return torch.rand(len(inputs.total) // size_of(network, part), generator=generator)

    return drawn


def sweeps(
    network: VisionTransformer,
    inputs: Mapping[Part, Inputs],
    levels: Mapping[Part, Sequence[int]],
    importance: Importance,
) -> dict[Part, Sweep]:
    """Every part by its structures' importance, the least first, with no update of what remains."""
    found = {}
    for part, counts in levels.items():
        values = importance(network, part, inputs[part]).tolist()
        weight = last_layer(network, part).weight
        found[part] = ranked(weight, inputs[part].gram, size_of(network, part), counts, values)
    return found


def uniform(
    levels: Mapping[Part, Sequence[int]], times: Mapping[Part, Sequence[float]], budget: float
) -> tuple[int, ...]:
    """The same share of each part, the largest that fits into the budget, by the nearest levels below.

    Args:
        levels: the numbers of structures of each part, from all to none.
        times: of each level.
        budget: of time.

    Returns:
        The level of each part, as its place in the part's list. Nothing at all takes no time, and fits.
    """
    for share in range(1000, 0, -1):
        chosen = tuple(
            next(place for place, count in enumerate(counts) if 1000 * count <= share * counts[0])
            for counts in levels.values()
        )
        if sum(of[place] for place, of in zip(chosen, times.values(), strict=True)) <= budget:
            return chosen
    return tuple(len(counts) - 1 for counts in levels.values())
