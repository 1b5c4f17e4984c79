"""Every generated sequence is right, as a checker that knows only its text finds."""

import numpy as np
import pytest
from scipy import stats

from tests.data.sequences import checkers
from tests.tools.sequences_table import compared
from vitlocal.data import LIS, Arithmetic, EditDistance, Equations
from vitlocal.data.sequences import CLS, EOS, PAD
from vitlocal.data.sequences.lis import sequences, subsets, table

TASKS = {
    "arithmetic": (
        Arithmetic(operators=5),
        lambda text, chain: checkers.check_arithmetic(text, chain, 11, 5),
    ),
    "small arithmetic": (
        Arithmetic(operators=3, p=5),
        lambda text, chain: checkers.check_arithmetic(text, chain, 5, 3),
    ),
    "equations": (
        Equations(variables=4),
        lambda text, chain: checkers.check_equations(text, chain, 11, 4),
    ),
    "small equations": (
        Equations(variables=2, p=3),
        lambda text, chain: checkers.check_equations(text, chain, 3, 2),
    ),
    "lis": (LIS(length=30), lambda text, chain: checkers.check_lis(text, chain)),
    "edit_distance": (
        EditDistance(length=12),
        lambda text, chain: checkers.check_edit_distance(text, chain, 12),
    ),
}
LONGEST = {  # direct and chain: Feng et al.'s
    (Arithmetic, 4): (19, 43),
    (Arithmetic, 5): (23, 63),
    (Arithmetic, 6): (27, 87),
    (Equations, 3): (46, 91),
    (Equations, 4): (73, 181),
    (Equations, 5): (106, 316),
    (LIS, 50): (54, 105),
    (LIS, 80): (84, 165),
    (LIS, 100): (104, 205),
    (EditDistance, 12): (31, 212),
    (EditDistance, 16): (39, 344),
    (EditDistance, 20): (47, 508),
}


def other_form(data, form):
    return type(data)(form=form, **data.settings())


def check(task, form, count):
    data, checker = TASKS[task]
    data, rng, parts = other_form(data, form), np.random.default_rng(1), []
    while sum(map(len, parts)) < count:  # some tasks leave out what they drew
        parts.append(data.draw(count, rng, training=False))
        assert len(parts[-1]) > count // 4
    for row in np.concatenate(parts)[:count]:
        real = row[row != PAD]
        assert len(real) == (row != PAD).argmin() or row.all(), "padding is at the end only"
        assert real[0] == CLS and real[-1] == EOS and not np.isin(real[1:-1], (CLS, EOS)).any()
        checker(data.vocabulary.text(row), form == "chain")


@pytest.mark.parametrize("form", ["direct", "chain"])
@pytest.mark.parametrize("task", TASKS)
def test_answers_and_chains_are_right(task, form):
    check(task, form, 200)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["direct", "chain"])
@pytest.mark.parametrize("task", TASKS)
def test_ten_thousand_sequences_are_right(task, form):
    check(task, form, 10_000)


@pytest.mark.slow
def test_statistics_are_those_of_the_papers_process_one_sequence_at_a_time():
    for row in compared(5_000):
        assert abs(row.apart) < 4, row


@pytest.mark.parametrize("form", ["direct", "chain"])
@pytest.mark.parametrize(("kind", "size"), LONGEST)
def test_the_longest_sequences_are_as_long_as_in_the_paper(kind, size, form):
    data = kind(size, form=form)
    assert data.max_length == LONGEST[kind, size][form == "chain"]
    drawn = data.draw(300, np.random.default_rng(0), training=False)
    assert drawn.shape[1] == data.max_length
    assert kind not in (Equations, LIS) or drawn[:, -1].any(), "and some are"


def test_answers_of_arithmetic_are_uniform_and_so_are_operators():
    data = Arithmetic(operators=4, form="direct")
    drawn = data.draw(20_000, np.random.default_rng(0), training=False)
    at = (drawn == data.vocabulary["="]).argmax(1) + 1
    answers = drawn[np.arange(len(drawn)), at]
    # The first number is, and no step changes the value.
    assert stats.chisquare(np.bincount(answers)[data.vocabulary["0"] :]).pvalue > 1e-3
    # Of the ways to write 0, * is as likely as +, and / once in 34; of others * and / are 10 in 42 each.
    data = Arithmetic(operators=1, form="direct")
    drawn = data.draw(20_000, np.random.default_rng(0), training=False)
    counts = [(drawn[:, 2] == data.vocabulary[sign]).sum() for sign in "+-*/"]
    zero, other = np.array([11, 11, 11, 1]) / 34, np.array([11, 11, 10, 10]) / 42
    assert stats.chisquare(counts, len(drawn) * (zero + 10 * other) / 11).pvalue > 1e-3


def test_under_trains_on_fewer_operators_in_proportion():
    data = Arithmetic(operators=4, form="direct", under=True)
    signs = [data.vocabulary[sign] for sign in "+-*/"]
    drawn = data.draw(10_000, np.random.default_rng(0), training=True)
    assert np.bincount(np.isin(drawn, signs).sum(1)).tolist() == [0, 1000, 2000, 3000, 4000]
    held_out = data.draw(1_000, np.random.default_rng(0), training=False)
    assert (np.isin(held_out, signs).sum(1) == 4).all()
    alone = Arithmetic(operators=4, form="direct", under=False).draw(
        1_000, np.random.default_rng(0), training=True
    )
    assert (np.isin(alone, signs).sum(1) == 4).all()


def test_subsets_have_their_size_and_every_value_is_as_likely():
    rng = np.random.default_rng(0)
    sizes = rng.integers(0, 8, size=20_000)
    found = subsets(sizes, 7, rng)
    assert sizes.max() == 7 and (found.sum(1) == sizes).all()
    two = subsets(np.full(21_000, 2), 7, rng)
    pairs = np.bincount(two @ (1 << np.arange(7)))
    assert np.count_nonzero(pairs) == 21
    assert stats.chisquare(pairs[pairs > 0]).pvalue > 1e-3


def test_planted_segments_make_longer_subsequences_than_chance():
    rng = np.random.default_rng(0)
    planted = sequences(2_000, 50, rng)
    chance = rng.integers(51, 250, size=(2_000, 50))
    # About 2 sqrt(n) by chance (Vershik and Kerov 1977); segments of up to n numbers are far longer.
    assert table(chance).max(1).mean() < 2 * 50**0.5 < table(planted).max(1).mean()
