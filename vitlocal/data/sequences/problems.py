"""Problems of one's own, from a text file."""

from pathlib import Path

import numpy as np

from vitlocal.data.batched import BatchedDataModule
from vitlocal.data.sequences.base import SequenceDataset
from vitlocal.data.sequences.vocabulary import Vocabulary
from vitlocal.errors import InputError


class Problems(BatchedDataModule):
    """Problems in a text file, one a line, to be answered by a model; empty lines are passed over.

    Args:
        path: the file.
        tokens: the model's vocabulary.
        separator: the token that ends a problem, which lines may leave out.
        max_length: most tokens in a sequence of the model.
        batch_size: Problems a batch.

    Raises:
        InputError: the file can't be read, or holds what the model can't take.
    """

    name = "problems"
    items = "problems"

    def __init__(
        self, path: str, tokens: tuple[str, ...], separator: str, max_length: int, batch_size: int = 512
    ) -> None:
        super().__init__(batch_size, num_workers=0)
        self.path = path
        self.vocabulary = Vocabulary(tuple(tokens), separator)
        self.max_length = max_length
        self._datasets: dict[str, SequenceDataset] = {}

    def setup(self, stage: str | None = None) -> None:
        """Read the file.

        Raises:
            InputError: see the class.
        """
        try:
            lines = Path(self.path).read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise InputError(f"problems {self.path} can't be read ({error.strerror}): give a file") from error
        except UnicodeDecodeError as error:
            raise InputError(f"problems {self.path} is no text: give a file in UTF-8") from error
        problems = []
        for number, line in enumerate(lines, 1):
            if line.strip():
                problems.append(self.vocabulary.problem(line, f"{self.path}, line {number}"))
                if (count := len(problems[-1])) >= self.max_length:
                    raise InputError(
                        f"{self.path}, line {number}: the problem has {count} tokens, and the model takes "
                        f"{self.max_length} with the answer: give a shorter one"
                    )
        if not problems:
            raise InputError(f"problems {self.path} has none: write one a line")
        tokens = np.zeros((len(problems), self.max_length), dtype=np.uint8)
        for row, problem in zip(tokens, problems, strict=True):
            row[: len(problem)] = problem
        self._datasets = {"predict": SequenceDataset(tokens, self.vocabulary[self.vocabulary.separator])}
