"""Structured Optimal Brain Surgeon on a linear layer (ZipLM: Kurtic, Frantar and Alistarh, NeurIPS 2023).

A layer's output is W x. Structures are groups of adjacent columns of W: the columns of a head in the output
projection, or single columns of an MLP's second layer. One after another, the structure goes whose loss
changes the output least over the calibration inputs, and what remains takes over what it can.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vitlocal.models.pruning import columns_of

DAMPING = 0.01
"""Share of the mean diagonal that is added to a Gram matrix that has no inverse."""

DEPENDENT = 1e-10
"""An input of whose square no more than this share is its own, not a sum of other inputs, is one of these."""


@dataclass(frozen=True)
class Level:
    """A layer with some of its structures.

    Attributes:
        kept: their numbers, ascending.
        weight: of the layer that they make, (R, ``len(kept)`` times the columns of one), float64.
        error: squared change of the output, summed over features and calibration inputs.
    """

    kept: tuple[int, ...]
    weight: Tensor
    error: float


@dataclass(frozen=True)
class Sweep:
    """A layer from all of its structures to none.

    Attributes:
        order: the numbers of the structures, the first to go first.
        scores: by which each was chosen, in that order; of :func:`surgeon` what it adds to the error.
        levels: by the number of structures kept.
    """

    order: tuple[int, ...]
    scores: tuple[float, ...]
    levels: dict[int, Level]


def surgeon(weight: Tensor, gram: Tensor, size: int, counts: Collection[int]) -> Sweep:
    """Remove structures one at a time, each time the one of the smallest score, and update the rest.

    With M the inverse of the Gram matrix and S the columns of a structure, its score is
    tr(W_S (M_SS)^-1 W_S^T), what it adds to the squared error; then W -= W_S (M_SS)^-1 M_S and M -=
    M_:S (M_SS)^-1 M_S. What is left is the least-squares fit to the whole layer's output. Columns whose
    inputs are all 0 go first, at no cost. A Gram matrix without an inverse is damped by ``DAMPING``.

    Args:
        weight: W, (R, C).
        gram: sum of x x^T over the calibration inputs, (C, C).
        size: columns of a structure, a divisor of C.
        counts: numbers of structures kept at which the layer is wanted.
    """
    original, gram = weight.double(), gram.double()
    w, inverse = original.clone(), _inverse(gram)
    w[:, gram.diagonal() == 0] = 0
    structures = w.shape[1] // size
    present = torch.ones(structures, dtype=torch.bool, device=w.device)
    order: list[int] = []
    scores: list[float] = []
    levels = {}
    if structures in counts:
        levels[structures] = _level(original, original, gram, size, range(structures))
    eye = torch.eye(size, dtype=w.dtype, device=w.device)
    for left in range(structures - 1, -1, -1):
        blocks = inverse.unflatten(0, (-1, size)).unflatten(2, (-1, size)).diagonal(dim1=0, dim2=2)
        # Rounding may leave a block without an inverse, where inputs were all but dependent.
        blocks = torch.linalg.pinv(blocks.permute(2, 0, 1), hermitian=True)
        of_structures = w.unflatten(1, (-1, size)).transpose(0, 1)
        costs = ((of_structures @ blocks) * of_structures).sum((1, 2)).masked_fill(~present, torch.inf)
        number = int(costs.argmin())
        order.append(number)
        scores.append(float(costs[number]))
        present[number] = False
        gone = slice(number * size, (number + 1) * size)
        rows = blocks[number] @ inverse[gone]
        w -= w[:, gone] @ rows
        inverse -= inverse[:, gone] @ rows
        w[:, gone] = 0
        inverse[gone] = 0
        inverse[:, gone] = 0
        inverse[gone, gone] = eye  # so that every block keeps an inverse
        if left in counts:
            levels[left] = _level(w, original, gram, size, present.nonzero().flatten().tolist())
    return Sweep(tuple(order), tuple(scores), levels)


def ranked(
    weight: Tensor, gram: Tensor, size: int, counts: Collection[int], importance: Sequence[float]
) -> Sweep:
    """Remove structures in the order of their importance, the least first, and leave the rest as it is.

    Args:
        weight: see :func:`surgeon`.
        gram: see :func:`surgeon`.
        size: see :func:`surgeon`.
        counts: see :func:`surgeon`.
        importance: one value a structure.
    """
    w, gram = weight.double(), gram.double()
    order = sorted(range(len(importance)), key=lambda number: importance[number])
    levels = {left: _level(w, w, gram, size, sorted(order[len(order) - left :])) for left in counts}
    return Sweep(tuple(order), tuple(importance[number] for number in order), levels)


def _inverse(gram: Tensor) -> Tensor:
    """Of a Gram matrix, with 1 on the diagonal in the place of inputs that are always 0."""
    gram = gram.clone()
    diagonal = gram.diagonal()
    mean = diagonal.mean()
    diagonal[diagonal == 0] = 1
    factor, failed = torch.linalg.cholesky_ex(gram)
    # Of dependent inputs rounding alone decides whether it fails.
    if failed or (factor.diagonal().square() < DEPENDENT * diagonal).any():
        diagonal += DAMPING * mean
        factor = torch.linalg.cholesky(gram)
    return torch.cholesky_inverse(factor)


def _level(w: Tensor, original: Tensor, gram: Tensor, size: int, kept: Sequence[int]) -> Level:
    columns = columns_of(kept, size, w.device)
    change = -original
    change[:, columns] += w[:, columns]
    error = float(((change @ gram) * change).sum())
    return Level(tuple(kept), w[:, columns].clone(), error)
