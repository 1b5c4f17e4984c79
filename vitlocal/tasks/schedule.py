"""The learning-rate schedule and the parameters that weight decay leaves alone."""

import math
from collections.abc import Iterable
from typing import Literal

from torch import nn

Schedule = Literal["cosine", "constant", "linear"]
"""The learning rate after warm-up."""

UNDECAYED = ("pos_embed", "cls_token", "head_gate")


def warmup_then(schedule: Schedule, step: int, warmup_steps: int, total_steps: float) -> float:
    """Share of the peak learning rate at an optimiser step, from 0.

    Linear to the peak, reached at the last warm-up step, then half a cosine (Loshchilov and Hutter
    2017) or a line to 0 at ``total_steps``, or constant.

    >>> [round(warmup_then("cosine", step, 2, 6), 3) for step in range(7)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146, 0.0]
    >>> [warmup_then("linear", step, 2, 6) for step in range(7)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    >>> [warmup_then("constant", step, 2, 6) for step in range(4)]
    [0.5, 1.0, 1.0, 1.0]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    if schedule == "linear":
        return max(0.0, 1 - progress)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def by_epochs(schedule: Schedule, epoch: int, warmup_epochs: int, epochs: int) -> float:
    """Share of the peak learning rate in a whole epoch, from 0: nothing in the first one of a warm-up.

    As of Feng et al. 2023 (arXiv 2305.15408), whose schedule is linear.

    >>> [by_epochs("linear", epoch, 2, 6) for epoch in range(6)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.25]
    """
    if epoch < warmup_epochs:
        return epoch / warmup_epochs
    return warmup_then(schedule, epoch, warmup_epochs, epochs)


def decay_groups(network: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Two parameter groups for the optimiser: matrices with weight decay, the rest without.

    The rest are norms and biases (one-dimensional), positions, the class token and gates of hops.
    """
    decayed: list[nn.Parameter] = []
    undecayed: list[nn.Parameter] = []
    for name, parameter in trainable(network):
        plain = parameter.ndim < 2 or name.rpartition(".")[2] in UNDECAYED
        (undecayed if plain else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": undecayed, "weight_decay": 0.0}]


def trainable(network: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
    """Names and parameters that get gradients."""
    return ((name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad)
