"""Structured OBS against least squares, brute force and the error that is measured."""

import itertools

import pytest
import torch

from vitlocal.compress.prune.obs import ranked, surgeon
from vitlocal.models.pruning import columns_of

N, ROWS = 200, 5


def layer(structures, size, seed=0):
    """A weight, and correlated inputs (N, C) for it, in float64."""
    generator = torch.Generator().manual_seed(seed)
    columns = structures * size
    mix = torch.eye(columns, dtype=torch.float64)
    mix += 0.6 * torch.randn(columns, columns, generator=generator, dtype=torch.float64)
    inputs = torch.randn(N, columns, generator=generator, dtype=torch.float64) @ mix + 0.3
    return torch.randn(ROWS, columns, generator=generator, dtype=torch.float64), inputs


def fitted(weight, inputs, columns):
    """The weights on ``columns`` that give the whole layer's output best, and their squared error."""
    wanted = inputs @ weight.T
    found = torch.linalg.lstsq(inputs[:, columns], wanted).solution
    return found.T, float((inputs[:, columns] @ found - wanted).square().sum())


SHAPES = [(6, 1, 0), (6, 1, 1), (5, 3, 0), (4, 4, 2), (12, 2, 3)]


@pytest.mark.parametrize(("structures", "size", "seed"), SHAPES)
def test_what_is_left_is_the_least_squares_fit(structures, size, seed):
    weight, inputs = layer(structures, size, seed)
    sweep = surgeon(weight, inputs.T @ inputs, size, range(structures + 1))
    assert sorted(sweep.order) == list(range(structures)) and set(sweep.levels) == set(range(structures + 1))
    for kept, level in sweep.levels.items():
        assert level.kept == tuple(sorted(sweep.order[structures - kept :]))
        columns = columns_of(level.kept, size)
        if kept:
            expected, error = fitted(weight, inputs, columns)
            torch.testing.assert_close(level.weight, expected, rtol=1e-8, atol=1e-8)
        else:
            error = float((inputs @ weight.T).square().sum())
            assert level.weight.shape == (ROWS, 0)
        assert level.error == pytest.approx(error, rel=1e-8, abs=1e-8)
        measured = inputs[:, columns] @ level.weight.T - inputs @ weight.T
        assert level.error == pytest.approx(float(measured.square().sum()), rel=1e-8, abs=1e-8)
        assert sum(sweep.scores[: structures - kept]) == pytest.approx(error, rel=1e-8, abs=1e-8)


@pytest.mark.parametrize(("structures", "size", "seed"), SHAPES)
def test_the_next_to_go_is_the_one_whose_loss_costs_least(structures, size, seed):
    """By brute force: every candidate is tried, and the rest fitted anew."""
    weight, inputs = layer(structures, size, seed)
    order, left = [], list(range(structures))
    while len(left) > 1:
        tried = {
            number: fitted(weight, inputs, columns_of([k for k in left if k != number], size))[1]
            for number in left
        }
        order.append(min(tried, key=tried.get))
        left.remove(order[-1])
    assert surgeon(weight, inputs.T @ inputs, size, ()).order == (*order, *left)


def test_scores_that_are_not_taken_anew_would_choose_otherwise():
    """Two inputs are almost one: alone, each costs next to nothing; once one is gone, the other does not."""
    weight, inputs = layer(4, 1)
    weight[:, 1:3] *= 10
    inputs[:, 2] = inputs[:, 1] + 1e-3 * torch.linspace(-1, 1, N, dtype=torch.float64)
    sweep = surgeon(weight, inputs.T @ inputs, 1, (2,))
    alone = [fitted(weight, inputs, [k for k in range(4) if k != gone])[1] for gone in range(4)]
    assert sorted(range(4), key=alone.__getitem__)[:2] in ([1, 2], [2, 1])
    assert len({1, 2} & set(sweep.levels[2].kept)) == 1


def test_greedy_is_the_best_choice_where_inputs_are_independent():
    """Of orthogonal inputs the best subset is that of the largest scores: found by trying all."""
    inputs = torch.linalg.qr(layer(7, 1)[1]).Q
    weight = layer(7, 1)[0]
    sweep = surgeon(weight, inputs.T @ inputs, 1, range(8))
    for kept in range(1, 7):
        subsets = itertools.combinations(range(7), kept)
        best = min(subsets, key=lambda subset: fitted(weight, inputs, list(subset))[1])
        assert sweep.levels[kept].kept == best


def test_dead_inputs_go_first_and_cost_nothing():
    weight, inputs = layer(6, 1)
    inputs[:, [1, 4]] = 0
    sweep = surgeon(weight, inputs.T @ inputs, 1, (4, 3))
    assert set(sweep.order[:2]) == {1, 4} and sweep.scores[:2] == (0, 0)
    assert sweep.levels[4].error == pytest.approx(0, abs=1e-9)
    expected, error = fitted(weight, inputs, list(sweep.levels[3].kept))
    torch.testing.assert_close(sweep.levels[3].weight, expected, rtol=1e-8, atol=1e-8)
    assert sweep.levels[3].error == pytest.approx(error)


def test_dependent_inputs_are_damped():
    """Two inputs are the same one: either is enough, to what the damping of 1 % costs."""
    weight, inputs = layer(6, 1)
    inputs[:, 3] = inputs[:, 2]
    gram = inputs.T @ inputs
    assert torch.linalg.cholesky_ex(gram[2:4, 2:4])[1]
    sweep = surgeon(weight, gram, 1, (5,))
    assert sweep.order[0] in (2, 3)
    kept = list(sweep.levels[5].kept)
    # Ridge: the fit that is also drawn to the weights that it began with.
    ridge = 0.01 * gram.diagonal().mean()
    damped = gram + ridge * torch.eye(6, dtype=gram.dtype)
    expected = torch.linalg.solve(damped[kept][:, kept], (damped @ weight.T)[kept])
    torch.testing.assert_close(sweep.levels[5].weight, expected.T, rtol=1e-8, atol=1e-8)
    assert sweep.levels[5].error < 0.01 * float((inputs @ weight.T).square().sum())


@pytest.mark.parametrize("size", [1, 3])
def test_ranked_leaves_the_rest_as_it_is(size):
    weight, inputs = layer(4, size)
    sweep = ranked(weight, inputs.T @ inputs, size, (4, 2, 0), [3.0, 0.5, 2.0, 1.0])
    assert sweep.order == (1, 3, 2, 0)
    columns = columns_of((0, 2), size)
    assert sweep.levels[2].kept == (0, 2) and torch.equal(sweep.levels[2].weight, weight[:, columns])
    change = inputs[:, columns] @ weight[:, columns].T - inputs @ weight.T
    assert sweep.levels[2].error == pytest.approx(float(change.square().sum()))
    assert sweep.scores == (0.5, 1.0, 2.0, 3.0)
    assert sweep.levels[4].error == pytest.approx(0, abs=1e-9)
    assert sweep.levels[0].error == pytest.approx(float((inputs @ weight.T).square().sum()))


def test_the_update_is_worth_more_than_any_ranking():
    weight, inputs = layer(8, 2)
    gram = inputs.T @ inputs
    ours = surgeon(weight, gram, 2, (4,)).levels[4].error
    for subset in itertools.combinations(range(8), 4):
        importance = [float(number in subset) for number in range(8)]
        assert ours < ranked(weight, gram, 2, (4,), importance).levels[4].error
