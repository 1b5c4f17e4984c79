"""The longest increasing subsequence, and the table of its dynamic programme (Feng et al. 2023)."""

import numpy as np

from vitlocal.data.sequences.base import SequenceDataModule
from vitlocal.data.sequences.vocabulary import CLS, EOS, SPECIAL, Vocabulary
from vitlocal.errors import InputError

SEP = len(SPECIAL)
LARGEST = 249
"""Of the numbers, which begin with 1: so tokens are single bytes."""
SEGMENTS = 3


def subsets(sizes: np.ndarray, values: int, rng: np.random.Generator) -> np.ndarray:
    """Which of some values a random sample without replacement has, of a size a row.

    By Floyd's algorithm (Bentley and Floyd 1987), all rows at once.

    Args:
        sizes: int64 (N,), each at most ``values``.
        values: how many there are.
        rng: for the random numbers.

    Returns:
        bool (N, values).
    """
    found = np.zeros((len(sizes), values), dtype=bool)
    for step in range(int(sizes.max(initial=0))):
        rows = np.flatnonzero(sizes > step)
        last = values - sizes[rows] + step
        drawn = (rng.random(len(rows)) * (last + 1)).astype(np.int64)
        found[rows, np.where(found[rows, drawn], last, drawn)] = True
    return found


def sequences(count: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers in which one to three increasing segments are planted at random positions.

    The segments have 3 numbers to all of them together, and are cut at random; the rest is uniform.

    Returns:
        int64 (count, length), from ``length`` + 1 to :data:`LARGEST`.
    """
    least, values = length + 1, LARGEST - length
    numbers = rng.integers(least, LARGEST + 1, size=(count, length))
    planted = rng.integers(min(3, length), length + 1, size=count)
    segments = rng.integers(1, SEGMENTS + 1, size=count)
    cuts = (rng.random((count, SEGMENTS - 1)) * (planted + 1)[:, None]).astype(np.int64)
    cuts = np.where(np.arange(1, SEGMENTS) < segments[:, None], cuts, planted[:, None])
    ends = np.concatenate([np.zeros((count, 1), np.int64), np.sort(cuts, axis=1), planted[:, None]], axis=1)
    sizes = np.diff(ends, axis=1)
    # Both in the order of rows and places: the planted numbers fall into the planted places.
    chosen = subsets(sizes.ravel(), values, rng).reshape(count, -1).nonzero()[1] % values
    numbers[subsets(planted, length, rng)] = least + chosen
    return numbers


def table(numbers: np.ndarray) -> np.ndarray:
    """The length of the longest strictly increasing subsequence that ends at each position.

    Args:
        numbers: (N, length), below 256.

    Returns:
        uint8 (N, length).
    """
    columns = np.ascontiguousarray(numbers.T.astype(np.uint8))
    ends = np.ones_like(columns)
    for place in range(1, len(columns)):
        smaller = columns[:place] < columns[place]
        ends[place] += (ends[:place] * smaller).max(0)
    return ends.T


class LIS(SequenceDataModule):
    """The length of the longest increasing subsequence, alone or after the table of its dynamic programme.

    Args:
        length: numbers in a sequence; the paper has 50, 80 and 100.
        kwargs: see :class:`SequenceDataModule`.

    Raises:
        InputError: a value out of its range.
    """

    name = "lis"

    def __init__(self, length: int = 50, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]
        if not 2 <= length <= LARGEST // 2:
            raise InputError(
                f"data.length is {length}: give a number from 2 to {LARGEST // 2}, since the numbers in it, "
                f"at most {LARGEST}, are above it"
            )
        self.length = length
        self.vocabulary = Vocabulary((*SPECIAL, "<sep>", *map(str, range(1, LARGEST + 1))), "<sep>")
        self.max_length = (2 * length + 5) if self.chain else length + 4

    def settings(self) -> dict[str, object]:
        """As in the base."""
        return {"length": self.length}

    def draw(self, count: int, rng: np.random.Generator, training: bool) -> np.ndarray:
        """As in the base."""
        numbers = sequences(count, self.length, rng)
        ends = table(numbers)
        first, between, last = (np.full((count, 1), token) for token in (CLS, SEP, EOS))
        chain = [ends + SEP, between] if self.chain else []
        answer = ends.max(1, keepdims=True) + SEP
        whole = np.concatenate([first, numbers + SEP, between, *chain, answer, last], axis=1)
        return whole.astype(np.uint8)
