"""How much each part keeps: the least error within a budget of time, the parts' weights found by trying.

Structured SPDY as in ZipLM: a dynamic programme finds the levels of the smallest weighted sum of errors
within the budget, and a random search the weights, by the calibration loss of the network that comes out.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

BUCKETS = 10_000
"""Parts of the time budget that the dynamic programme counts in."""

INITIAL = 10
"""Random weights to begin with, beside equal ones."""

MUTATED = 0.1
"""Share of the weights that a step draws anew."""


@dataclass(frozen=True)
class Found:
    """What a search has found.

    Attributes:
        levels: the level of each part, as its place in the part's list.
        weights: of the parts' errors, with which they are the cheapest.
        loss: on the calibration images.
        equal_loss: the same with equal weights of all parts, before any search.
    """

    levels: tuple[int, ...]
    weights: tuple[float, ...]
    loss: float
    equal_loss: float


def cheapest(
    costs: Sequence[Sequence[float]], times: Sequence[Sequence[float]], budget: float, buckets: int = BUCKETS
) -> tuple[int, ...] | None:
    """The level of each part with the smallest sum of costs whose times fit into the budget.

    Times are rounded to the nearest bucket of ``budget`` / ``buckets``.

    Args:
        costs: for each part and level.
        times: the same, in any unit.
        budget: in that unit, at least 0.
        buckets: how finely it is counted.

    Returns:
        None where nothing fits.
    """
    width = budget / buckets
    best = np.full(buckets + 1, np.inf)
    best[0] = 0.0
    taken = np.zeros((len(costs), buckets + 1), dtype=np.int64)
    steps = [
        [round(time / width) if time <= 2 * budget and width else (buckets + 1 if time else 0) for time in of]
        for of in times
    ]
    for part, (of_part, needed) in enumerate(zip(costs, steps, strict=True)):
        following = np.full(buckets + 1, np.inf)
        for level, (cost, step) in enumerate(zip(of_part, needed, strict=True)):
            if step <= buckets:
                reached = best[: buckets + 1 - step] + cost
                better = reached < following[step:]
                following[step:][better] = reached[better]
                taken[part, step:][better] = level
        best = following
    place = int(best.argmin())
    if not np.isfinite(best[place]):
        return None
    levels = []
    for part in range(len(costs) - 1, -1, -1):
        levels.append(int(taken[part, place]))
        place -= steps[part][levels[-1]]
    return tuple(levels[::-1])


def weighted(errors: Sequence[Sequence[float]], weights: Iterable[float]) -> list[list[float]]:
    """Each part's errors times its weight."""
    return [[weight * error for error in of] for weight, of in zip(weights, errors, strict=True)]


def search(
    errors: Sequence[Sequence[float]],
    times: Sequence[Sequence[float]],
    budget: float,
    loss_of: Callable[[tuple[int, ...]], float],
    steps: int,
    seed: int,
    about: str,
) -> Found | None:
    """Levels within a time budget, by the loss of the network that they make.

    Weights of the parts' errors begin equal; the first ``INITIAL`` steps try random ones from 0 to 1, and
    each later one draws ``MUTATED`` of the best ones anew and keeps what is better.

    Args:
        errors: for each part and level, the relative squared error of the part's output.
        times: for each part and level.
        budget: of time, for all parts together.
        loss_of: the loss of the network with these levels.
        steps: of the search; 0 for equal weights alone.
        seed: of the weights.
        about: what is searched, shown with the progress.

    Returns:
        None where nothing fits into the budget.
    """
    rng = np.random.default_rng(seed)
    known: dict[tuple[int, ...], float] = {}

    def tried(weights: np.ndarray) -> tuple[float, tuple[int, ...]] | None:
        levels = cheapest(weighted(errors, weights), times, budget)
        if levels is None:
            return None
        if levels not in known:
            known[levels] = loss_of(levels)
        return known[levels], levels

    weights = np.ones(len(errors))
    found = tried(weights)
    if found is None:
        return None
    best, equal_loss = found, found[0]
    with tqdm(range(steps), desc=about, unit="step", disable=None) as progress:
        for step in progress:
            if step < INITIAL:
                candidate = rng.random(len(errors))
            else:
                drawn = rng.random(len(errors)) < MUTATED
                drawn[rng.integers(len(errors))] = True
                candidate = np.where(drawn, rng.random(len(errors)), weights)
            found = tried(candidate)
            if found is not None and found[0] < best[0]:
                best, weights = found, candidate
            progress.set_postfix(loss=f"{best[0]:.4f}", refresh=False)
    return Found(best[1], tuple(weights.tolist()), best[0], equal_loss)
