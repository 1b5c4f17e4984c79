"""The edit distance of two strings, and the table of its dynamic programme (Feng et al. 2023)."""

import string

import numpy as np

from vitlocal.data.sequences.base import SequenceDataModule
from vitlocal.data.sequences.vocabulary import CLS, EOS, SPECIAL, Vocabulary, packed
from vitlocal.errors import InputError

SIGNS = ("|", ",", "<sep>")
BAR, COMMA, SEP = range(len(SPECIAL), len(SPECIAL) + len(SIGNS))
A = SEP + 1
"""The token of the first letter."""
ZERO = A + 26
LARGEST = 59
"""Of the numbers; the few pairs of strings with a larger one in their table are drawn again."""
GAP, SUBSTITUTION = 2, 3
"""What it costs to insert or delete a letter, and to put another in its place."""
SHORTER, LONGER = 3, 2
"""How much the second string may differ in length."""
RANDOM = 0.4
"""Share of the pairs whose second string has nothing to do with the first."""
LETTERS = (3, 10)
"""Fewest and most letters in a pair of strings."""


def pairs(count: int, length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of strings: a random one, and another random one or what random edits make of it.

    Returns:
        int64 (N, W) letters from 0, each, -1 after the end; the shorter string first. N may be less than
        ``count``: equal pairs, and those too different in length, are left out.
    """
    width, every = 2 * length + LONGER, np.arange(count)
    letters = rng.random((count, 26)).argsort(axis=1)
    sizes = rng.integers(LETTERS[0], LETTERS[1] + 1, size=count)[:, None]

    def letters_of(shape: tuple[int, int]) -> np.ndarray:
        return np.take_along_axis(letters, (rng.random(shape) * sizes).astype(np.int64), axis=1)

    places = np.arange(width)
    first = np.where(places < length, letters_of((count, width)), -1)
    edits = rng.integers(1, length + 1, size=count)
    second, long = first.copy(), np.full(count, length)
    for step in range(length):
        kind = np.where(step < edits, rng.integers(3, size=count), -1)
        kind[long == 0] = -1  # nothing is left: the pair is too different
        at = (rng.random(count) * (long + (kind == 2))).astype(np.int64)
        letter = letters_of((count, 1))[:, 0]
        moved = places + ((kind == 0)[:, None] & (places >= at[:, None]))
        moved = moved - ((kind == 2)[:, None] & (places > at[:, None]))
        second = np.take_along_axis(second, np.clip(moved, 0, width - 1), axis=1)
        put = (kind == 1) | (kind == 2)
        second[every[put], at[put]] = letter[put]
        long = long + (kind == 2) - (kind == 0)
        second[places >= long[:, None]] = -1
    alone = rng.random(count) < RANDOM
    random_length = rng.integers(length - SHORTER, length + LONGER + 1, size=count)
    other = np.where(places < random_length[:, None], letters_of((count, width)), -1)
    second, long = np.where(alone[:, None], other, second), np.where(alone, random_length, long)
    kept = (long >= length - SHORTER) & (long <= length + LONGER) & (first != second).any(1)
    swapped = (long < length)[:, None]
    width = length + LONGER
    one, two = np.where(swapped, second, first), np.where(swapped, first, second)
    return one[kept, :width], two[kept, :width]


def table(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Distances of all beginnings of two strings, the empty ones included.

    Args:
        first: (N, I) letters, -1 after the end.
        second: (N, J), the same.

    Returns:
        int16 (I + 1, J + 1, N); what is beyond an end means nothing.
    """
    rows, columns = first.shape[1], second.shape[1]
    one, two = (np.ascontiguousarray(x.T.astype(np.int8)) for x in (first, second))
    found = np.zeros((rows + 1, columns + 1, len(first)), dtype=np.int16)
    found[:, 0] = GAP * np.arange(rows + 1)[:, None]
    found[0] = GAP * np.arange(columns + 1)[:, None]
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            put = found[i - 1, j - 1] + np.int16(SUBSTITUTION) * (one[i - 1] != two[j - 1])
            gap = np.minimum(found[i - 1, j], found[i, j - 1]) + np.int16(GAP)
            np.minimum(put, gap, out=found[i, j])
    return found


class EditDistance(SequenceDataModule):
    """The edit distance of two strings, alone or after the table of its dynamic programme.

    To insert or delete a letter costs 2, to put another in its place 3.

    Args:
        length: of one of the strings; the other has 3 letters fewer to 2 more. The paper has 12, 16 and 20.
        kwargs: see :class:`SequenceDataModule`.

    Raises:
        InputError: a value out of its range.
    """

    name = "edit_distance"

    def __init__(self, length: int = 12, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]
        if not SHORTER < length <= 24:
            raise InputError(f"data.length is {length}: give a number from {SHORTER + 1} to 24")
        self.length = length
        numbers = map(str, range(LARGEST + 1))
        self.vocabulary = Vocabulary((*SPECIAL, *SIGNS, *string.ascii_lowercase, *numbers), "<sep>")
        rows = length * (length + LONGER + 1) + 1 if self.chain else 0
        self.max_length = 2 * length + LONGER + 5 + rows

    def settings(self) -> dict[str, object]:
        """As in the base."""
        return {"length": self.length}

    def draw(self, count: int, rng: np.random.Generator, training: bool) -> np.ndarray:
        """As in the base; pairs whose table has a number that is no token are left out."""
        first, second = pairs(count, self.length, rng)
        found = table(first, second)
        long, other = (first >= 0).sum(1), (second >= 0).sum(1)
        every = np.arange(len(first))
        answer = found[long, other, every]
        within = (first >= 0).T[:, None] & (second >= 0).T
        rows = np.where(within, ZERO + found[1:, 1:], 0)
        kept = ((found[1:, 1:] <= LARGEST) | ~within).all((0, 1))
        one = (len(first), 1)
        parts = [np.full(one, CLS), np.where(first >= 0, A + first, 0), np.full(one, BAR)]
        parts += [np.where(second >= 0, A + second, 0), np.full(one, SEP)]
        if self.chain:
            commas = np.where(within[:, 0], COMMA, 0)[:, None]
            cells = np.concatenate([rows, commas], axis=1)
            parts += [cells.transpose(2, 0, 1).reshape(len(first), -1), np.full(one, SEP)]
        parts += [ZERO + answer[:, None], np.full(one, EOS)]
        return packed(np.concatenate(parts, axis=1)[kept].astype(np.uint8), self.max_length)
