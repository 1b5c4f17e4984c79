"""Systems of linear equations modulo a prime, and their elimination (Feng et al. 2023)."""

import numpy as np

from vitlocal.data.sequences.base import SequenceDataModule, check_prime
from vitlocal.data.sequences.vocabulary import CLS, EOS, SPECIAL, Vocabulary, packed
from vitlocal.errors import InputError

LETTERS = "abcde"
SIGNS = ("+", "=", ",", "<sep>")
PLUS, EQUALS, COMMA, SEP = range(len(SPECIAL), len(SPECIAL) + len(SIGNS))
FIRST = SEP + 1
"""The token of the first variable."""
ZERO = FIRST + len(LETTERS)


def eliminated(systems: np.ndarray, p: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Gauss-Jordan elimination modulo a prime, one column after the other.

    The pivot is the first number that is not 0 at or below the diagonal; its row is swapped there, divided
    by it, and taken from all others.

    Args:
        systems: int64 (N, n, n + 1), coefficients and right sides, 0 to p - 1.
        p: the prime.

    Returns:
        The systems before, and after each column; and which have a single solution, bool (N,).
    """
    inverse = np.array([pow(x, -1, p) if x else 0 for x in range(p)])
    every, regular, states = np.arange(len(systems)), np.ones(len(systems), dtype=bool), [systems]
    for column in range(systems.shape[1]):
        now = states[-1].copy()
        pivot = column + (now[:, column:, column] != 0).argmax(1)
        upper, lower = now[:, column].copy(), now[every, pivot]
        now[every, pivot], now[:, column] = upper, lower
        regular &= now[:, column, column] != 0
        now[:, column] = now[:, column] * inverse[now[:, column, column]][:, None] % p
        factors = now[:, :, column].copy()
        factors[:, column] = 0
        now = (now - factors[:, :, None] * now[:, None, column]) % p
        states.append(now)
    return states, regular


def written(state: np.ndarray, processed: int) -> np.ndarray:
    """The tokens of systems, with 0 where there is none.

    Args:
        state: int64 (N, n, n + 1).
        processed: how many columns were eliminated: there, terms of coefficient 0 are left out, and a
            coefficient 1 is not written.

    Returns:
        uint8 (N, M).
    """
    count, n, _ = state.shape
    terms, done = state[:, :, :n], np.arange(n) < processed
    there = (terms != 0) | ~done
    later = there & (there.cumsum(2) > 1)  # a term that another comes before
    shown = there & ~(done & (terms == 1))
    parts = np.stack([later * PLUS, shown * (ZERO + terms), there * (FIRST + np.arange(n))], axis=3)
    ends = np.full((count, n, 3), COMMA)
    ends[:, :, 0], ends[:, :, 1] = EQUALS, ZERO + state[:, :, n]
    ends[:, -1, 2] = 0
    return np.concatenate([parts.reshape(count, n, 3 * n), ends], axis=2).reshape(count, -1).astype(np.uint8)


class Equations(SequenceDataModule):
    """Linear equations modulo a prime: their solution, or the elimination column by column.

    Args:
        variables: of each system, as many as it has equations; the paper has 3, 4 and 5.
        p: the prime; coefficients, right sides and solutions are 0 to p - 1, each one token.
        kwargs: see :class:`SequenceDataModule`.

    Raises:
        InputError: a value out of its range.
    """

    name = "equations"
    greedy_chain = True

    def __init__(self, variables: int = 3, p: int = 11, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]
        if not 1 <= variables <= len(LETTERS):
            raise InputError(f"data.variables is {variables}: give a number from 1 to {len(LETTERS)}")
        check_prime(p)
        self.variables = variables
        self.p = p
        self.vocabulary = Vocabulary((*SPECIAL, *SIGNS, *LETTERS, *map(str, range(p))), "<sep>")
        n = variables
        # Rows of state k: those above have one variable of their own and n - k others, of two tokens and a
        # sign each; those below have n - k. In each a sign and a right side; between them commas.
        states = [n * (3 * n + 1) + n - 1]
        states += [k * (3 + 3 * (n - k)) + (n - k) * (3 * (n - k) + 1) + n - 1 for k in range(1, n + 1)]
        shown = states if self.chain else [states[0], states[-1]]
        self.max_length = 2 + sum(shown) + len(shown) - 1

    def settings(self) -> dict[str, object]:
        """As in the base."""
        return {"variables": self.variables, "p": self.p}

    def draw(self, count: int, rng: np.random.Generator, training: bool) -> np.ndarray:
        """As in the base; singular systems are left out."""
        n = self.variables
        states, regular = eliminated(rng.integers(self.p, size=(count, n, n + 1)), self.p)
        steps = [written(state[regular], number) for number, state in enumerate(states)]
        if not self.chain:
            steps = [steps[0], steps[-1]]
        one = (int(regular.sum()), 1)
        parts = [part for step in steps for part in (np.full(one, SEP), step)][1:]
        whole = np.concatenate([np.full(one, CLS), *parts, np.full(one, EOS)], axis=1)
        return packed(whole.astype(np.uint8), self.max_length)
