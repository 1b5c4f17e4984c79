"""Tokens and their numbers."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vitlocal.errors import InputError

PAD, CLS, EOS = 0, 1, 2
"""What every vocabulary begins with: padding, the start and the end of a sequence."""

SPECIAL = ("<pad>", "<cls>", "<eos>")


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a task.

    Attributes:
        tokens: by their numbers; the first three are :data:`SPECIAL`. A number is one token.
        separator: the token that ends a problem, and the last of which comes before the answer.
    """

    tokens: tuple[str, ...]
    separator: str

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each token."""
        return {token: number for number, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        """How many tokens there are, those of :data:`SPECIAL` included."""
        return len(self.tokens)

    def __getitem__(self, token: str) -> int:
        """The number of a token that is there."""
        return self.numbers[token]

    def text(self, sequence: Iterable[int]) -> str:
        """A sequence as people read it, without start, end and padding."""
        return " ".join(self.tokens[number] for number in sequence if number >= len(SPECIAL))

    def problem(self, text: str, where: str) -> list[int]:
        """The tokens of a problem from the start to its separator, which the text may leave out.

        Args:
            text: numbers, letters and signs, with or without spaces between.
            where: the text is, for messages.

        Raises:
            InputError: the text is empty, or a part of it is no token.

        >>> task = Vocabulary((*SPECIAL, "+", "=", "1", "10"), "=")
        >>> task.problem("10+1", "line 1"), task.text([1, 6, 3, 5, 4])
        ([1, 6, 3, 5, 4], '10 + 1 =')
        """
        words = re.findall(r"\d+|<\w+>|\S", text)
        for word in words:
            if word not in self.numbers or word in SPECIAL:
                known = " ".join(shortened(self.tokens[len(SPECIAL) :]))
                raise InputError(f"{where}: {word} is no token that the model was trained on: give {known}")
        if not words or words == [self.separator]:
            raise InputError(f"{where}: there is no problem: give one a line")
        ends = self.separator in words if self.separator == "<sep>" else words[-1] == self.separator
        return [CLS, *(self[word] for word in words), *([] if ends else [self[self.separator]])]


def shortened(tokens: Sequence[str]) -> list[str]:
    """Tokens for a message: of the numbers, which come last, the first and the last only.

    >>> shortened(["+", "0", "1", "2"])
    ['+', '0..2']
    """
    numbers = [token for token in tokens if token.isdecimal()]
    return [*(token for token in tokens if not token.isdecimal()), f"{numbers[0]}..{numbers[-1]}"]


def packed(tokens: np.ndarray, width: int) -> np.ndarray:
    """Tokens without the padding between them, moved to the front.

    Args:
        tokens: uint8 (N, M), 0 where there is none.
        width: of what comes back, at least the most tokens in a row.

    Returns:
        uint8 (N, width), 0 at the end.
    """
    rows, columns = tokens.nonzero()
    firsts = np.searchsorted(rows, np.arange(len(tokens)))
    out = np.zeros((len(tokens), width), dtype=np.uint8)
    out[rows, np.arange(len(rows)) - firsts[rows]] = tokens[rows, columns]
    return out
