"""Arithmetic modulo a prime: expressions and how they come down to a number (Feng et al. 2023)."""

from functools import lru_cache

import numpy as np

from vitlocal.data.sequences.base import SequenceDataModule, check_prime
from vitlocal.data.sequences.vocabulary import CLS, EOS, SPECIAL, Vocabulary, packed
from vitlocal.errors import InputError

SIGNS = ("+", "-", "*", "/", "(", ")", "=")
PLUS, MINUS, TIMES, OVER, OPEN, CLOSE, EQUALS = range(len(SPECIAL), len(SPECIAL) + len(SIGNS))
ZERO = EQUALS + 1
"""The token of the number 0, after which come the others."""


@lru_cache(maxsize=8)
def splits(p: int) -> tuple[np.ndarray, np.ndarray]:
    """Every way to write a number as an operation of two numbers modulo p.

    Returns:
        uint8 (p, 4 p, 2): for each number x, pairs of the first number and the operation's token, those that
        are possible before the rest; and how many those are, int64 (p,).
    """
    table, counts = np.zeros((p, 4 * p, 2), dtype=np.uint8), np.zeros(p, dtype=np.int64)
    for x in range(p):
        for first in range(p):
            for operation in (PLUS, MINUS, TIMES, OVER):
                impossible = (operation == TIMES and first == 0 and x != 0) or (
                    operation == OVER and (first == 0) != (x == 0)
                )
                if not impossible:
                    table[x, counts[x]] = first, operation
                    counts[x] += 1
    return table, counts


def expressions(count: int, operators: int, p: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Expressions that grow from a number, one operator at a time.

    A number token is chosen at random and replaced by an operation of two whose value it is, in brackets
    where it would otherwise be read differently.

    Returns:
        The expressions of 0, 1, ... operators: uint8 (count, 4 operators + 1) tokens each, 0 at the end.
    """
    table, counts = splits(p)
    inverse = np.array([pow(x, -1, p) if x else 0 for x in range(p)])
    width = 4 * operators + 1
    places, every = np.arange(width), np.arange(count)
    now = np.zeros((count, width), dtype=np.uint8)
    now[:, 0] = ZERO + rng.integers(p, size=count)
    history = [now]
    for numbers in range(1, operators + 1):
        which = rng.integers(numbers, size=count)
        is_number = now >= ZERO
        at = (is_number & (is_number.cumsum(1) == which[:, None] + 1)).argmax(1)
        x = now[every, at].astype(np.int64) - ZERO
        chosen = table[x, (rng.random(count) * counts[x]).astype(np.int64)].astype(np.int64)
        first, operation = chosen[:, 0], chosen[:, 1]
        by_operation = [x - first, first - x, x * inverse[first], first * inverse[x]]
        second = np.choose(operation - PLUS, by_operation) % p
        free = (x == 0) & (first == 0)  # whatever the second is, the value is 0
        second = np.where(free & (operation == TIMES), rng.integers(p, size=count), second)
        second = np.where(free & (operation == OVER), rng.integers(1, p, size=count), second)
        before = np.where(at > 0, now[every, at - 1], 0)
        after = np.where(at < width - 1, now[every, np.minimum(at + 1, width - 1)], 0)
        bracket = (before == OVER) | (
            np.isin(operation, (PLUS, MINUS))
            & (np.isin(before, (TIMES, MINUS)) | np.isin(after, (TIMES, OVER)))
        )
        piece = np.stack(
            [bracket * OPEN, ZERO + first, operation, ZERO + second, bracket * CLOSE], axis=1
        ).astype(np.uint8)
        piece = packed(piece, 5)
        grown = np.where(bracket, 4, 2)[:, None]
        within = places - at[:, None]
        old = np.take_along_axis(now, np.clip(np.where(within < 0, places, places - grown), 0, None), axis=1)
        new = np.take_along_axis(piece, np.clip(within, 0, 4), axis=1)
        now = np.where((within >= 0) & (within <= grown), new, old)
        history.append(now)
    return history


class Arithmetic(SequenceDataModule):
    """Expressions of numbers modulo a prime: their value, or the way to it one operation at a time.

    A chain is ``(1+2)*3=3*3=9``, its direct form ``(1+2)*3=9``.

    Args:
        operators: of each expression; the paper has 4, 5 and 6.
        p: the prime; numbers are 0 to p - 1, each one token.
        under: train on expressions of 1 to ``operators`` operators, about in proportion to that number; else
            all have ``operators``. Validation and test have ``operators`` in either case.
        kwargs: see :class:`SequenceDataModule`.

    Raises:
        InputError: a value out of its range.
    """

    name = "arithmetic"
    greedy_chain = True

    def __init__(self, operators: int = 4, p: int = 11, under: bool = True, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]
        if not 1 <= operators <= 32:
            raise InputError(f"data.operators is {operators}: give a number from 1 to 32")
        check_prime(p)
        self.operators = operators
        self.p = p
        self.under = under
        self.vocabulary = Vocabulary((*SPECIAL, *SIGNS, *map(str, range(p))), "=")
        longest = 4 * operators - 1
        chain = sum(4 * k for k in range(1, operators + 1)) + 1  # with the sign after each but the last
        self.max_length = 2 + (chain if self.chain else longest + 2)
        # The end of a sequence is no part of the answer in the direct form.
        self.answer_length = None if self.chain else 1

    def settings(self) -> dict[str, object]:
        """As in the base."""
        return {"operators": self.operators, "p": self.p, "under": self.under}

    def draw(self, count: int, rng: np.random.Generator, training: bool) -> np.ndarray:
        """As in the base."""
        if not (training and self.under):
            return self._sequences(count, self.operators, rng)
        whole = self.operators * (self.operators + 1) // 2
        shares = [count * operators // whole for operators in range(1, self.operators)]
        parts = [self._sequences(share, k + 1, rng) for k, share in enumerate(shares)]
        return np.concatenate([*parts, self._sequences(count - sum(shares), self.operators, rng)])

    def _sequences(self, count: int, operators: int, rng: np.random.Generator) -> np.ndarray:
        history = expressions(count, operators, self.p, rng)[::-1]
        steps = history if self.chain else [history[0], history[-1]]
        sign = np.full((count, 1), EQUALS, dtype=np.uint8)
        parts = [part for step in steps for part in (sign, step)][1:]
        first, last = (np.full((count, 1), token, dtype=np.uint8) for token in (CLS, EOS))
        return packed(np.concatenate([first, *parts, last], axis=1), self.max_length)
