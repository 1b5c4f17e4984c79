"""The dynamic programme against every combination, and what the search adds to it."""

import itertools

import numpy as np
import pytest

from vitlocal.compress.prune.search import cheapest, search


def problem(seed, parts=4, levels=5):
    """Costs that rise and times that fall from level to level, the last one being free of time."""
    rng = np.random.default_rng(seed)
    costs = np.sort(rng.random((parts, levels)), axis=1)
    times = np.sort(rng.integers(1, 60, (parts, levels)), axis=1)[:, ::-1].astype(float)
    times[:, -1] = 0
    return costs.tolist(), times.tolist()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_the_cheapest_of_all_combinations(seed, share):
    """Whole numbers of time and a bucket each, so that nothing is rounded."""
    costs, times = problem(seed)
    budget = round(share * sum(of[0] for of in times))
    levels = cheapest(costs, times, budget, buckets=budget)

    def total(of, chosen):
        return sum(values[level] for values, level in zip(of, chosen, strict=True))

    fitting = [c for c in itertools.product(range(5), repeat=4) if total(times, c) <= budget]
    assert total(times, levels) <= budget
    assert total(costs, levels) == pytest.approx(min(total(costs, chosen) for chosen in fitting))


def test_ten_thousand_buckets_miss_the_budget_by_next_to_nothing():
    costs, times = problem(7, parts=18, levels=40)
    times = [[1.37 * time for time in of] for of in times]
    budget = 0.4 * sum(of[0] for of in times)
    levels = cheapest(costs, times, budget)
    assert sum(of[level] for of, level in zip(times, levels, strict=True)) <= budget * (1 + 18 / 20_000)


def test_no_time_at_all_leaves_what_takes_none():
    costs, times = problem(0)
    assert cheapest(costs, times, 0.0) == (4, 4, 4, 4)
    assert cheapest(costs, [[of[0], *of[1:-1], 1.0] for of in times], 0.0) is None
    assert cheapest([[0.0, 1.0]], [[5.0, 4.0]], 3.0) is None


def test_the_search_finds_which_part_matters():
    """Errors that look alike, and a loss that one part alone makes: equal weights can't know it."""
    errors, times = [[0.0, 0.5, 1.0]] * 6, [[2.0, 1.0, 0.0]] * 6
    tried = []

    def loss(levels):
        tried.append(levels)
        return float(levels[1]) + 0.01 * sum(levels)

    found = search(errors, times, 4.0, loss, 60, 0, "test")
    assert found.loss < found.equal_loss and found.levels[1] == 0
    assert sum(of[level] for of, level in zip(times, found.levels, strict=True)) <= 4.0 * 1.001
    assert len(tried) == len(set(tried))  # none is tried twice
    assert found == search(errors, times, 4.0, loss, 60, 0, "test")
    alone = search(errors, times, 4.0, loss, 0, 0, "test")
    assert alone.loss == alone.equal_loss == found.equal_loss
    assert search([[0.0]], [[5.0]], 3.0, loss, 5, 0, "test") is None
