"""What the tasks whose sequences are generated have in common."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from vitlocal.data.batched import BatchedDataModule
from vitlocal.data.cache import cache_folder, cache_key, cached_array
from vitlocal.data.dataset import Batch
from vitlocal.data.sequences.vocabulary import PAD, Vocabulary
from vitlocal.errors import InputError

Form = Literal["direct", "chain"]
"""Whether the answer comes at once, or after the steps that lead to it."""

RELEASE = "1"
"""Part of every key of the cache, and another one whenever a generator makes other sequences."""

AT_A_TIME = 2**15
"""Sequences drawn at a time."""

MOST_FRUITLESS = 20
"""Times in a row that next to nothing new may be drawn before the sequences are taken to be used up."""

LARGEST_PRIME = 199
"""So that all tokens of arithmetic are single bytes."""


def check_prime(p: int) -> None:
    """Refuse what has no division.

    Raises:
        InputError: p is no prime, or a large one.
    """
    if not 2 <= p <= LARGEST_PRIME or any(p % k == 0 for k in range(2, p)):
        raise InputError(f"data.p is {p}: give a prime from 2 to {LARGEST_PRIME}, or division is not defined")


class SequenceDataset(Dataset[Batch]):
    """Sequences served a batch at a time.

    Args:
        tokens: uint8 (N, L), 0 after the end of each.
        separator: the token that ends a problem.
        answer_length: how many tokens after it are the answer; None: all of them.
    """

    def __init__(self, tokens: np.ndarray, separator: int, answer_length: int | None = None) -> None:
        self.tokens = np.asarray(tokens)
        self.separator = separator
        self.answer_length = answer_length

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.tokens)

    def __getitem__(self, index: int) -> Batch:
        """One sequence as a batch without its first dimension."""
        return {key: value[0] for key, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Gather a batch.

        Args:
            indices: B positions in this data set; -1 for padding.

        Returns:
            ``tokens`` int64 (B, L), 0 after the end of each; ``length`` int64 (B,), of each without that;
            ``start`` and ``end`` int64 (B,), where the targets begin, after the first separator, and
            end; ``index`` int64 (B,), the positions. Padding has index -1 and no targets.
        """
        positions = np.array(indices, dtype=np.int64)
        tokens = self.tokens[positions].astype(np.int64)
        length = (tokens != PAD).sum(1)
        start = (tokens == self.separator).argmax(1) + 1
        end = length if self.answer_length is None else start + self.answer_length
        end = np.where(positions < 0, start, end)
        found = {"tokens": tokens, "length": length, "start": start, "end": end, "index": positions}
        return {name: torch.from_numpy(x) for name, x in found.items()}


class SequenceDataModule(BatchedDataModule):
    """Generated problems with their answers, in batches of sequences of tokens.

    No two sequences of training, validation and test are the same; a problem may come again with another
    chain. They are generated at the first run and kept on disk. Batches are those of
    :class:`SequenceDataset`; prediction takes the test sequences.

    Subclasses set :attr:`name`, :attr:`vocabulary` and :attr:`max_length` and implement :meth:`settings` and
    :meth:`draw`.

    Args:
        form: ``direct``: the answer after the problem; ``chain``: the steps that lead to it before.
        train_size: Number of training sequences.
        val_size: The same of validation.
        test_size: The same of test.
        data_seed: Which sequences, 0 to 4294967295.
        batch_size: Sequences a batch, on each device.
        num_workers: Processes that gather batches beside the training one; 0 is fast enough as a rule.
        path: Folder beside which they are kept, in ``PATH/sequences.vitlocal``.

    Raises:
        InputError: an argument is out of its range.
    """

    items = "sequences"
    greedy_chain: ClassVar[bool] = False
    """Whether a chain is judged by its last answer, of the model's own steps; else by all its tokens."""

    vocabulary: Vocabulary
    max_length: int
    """Most tokens in a sequence, start and end included."""
    answer_length: int | None = None
    """How many tokens after the separator are the targets; None: all."""

    def __init__(
        self,
        form: Form = "chain",
        train_size: int = 1_000_000,
        val_size: int = 2_000,
        test_size: int = 100_000,
        data_seed: int = 2023,
        batch_size: int = 512,
        num_workers: int = 0,
        path: str = "data",
    ) -> None:
        super().__init__(batch_size, num_workers)
        for name, size in (("train_size", train_size), ("val_size", val_size), ("test_size", test_size)):
            if not 1 <= size <= 10**8:
                raise InputError(f"data.{name} is {size}: give a number from 1 to {10**8}")
        if not 0 <= data_seed < 2**32:
            raise InputError(f"data.data_seed is {data_seed}: give a whole number from 0 to {2**32 - 1}")
        self.name = f"{type(self).name}-{form}"
        self.form = form
        self.chain = form == "chain"
        self.sizes = {"train": train_size, "val": val_size, "test": test_size}
        self.data_seed = data_seed
        self.path = path
        self._datasets: dict[str, SequenceDataset] = {}

    @abstractmethod
    def settings(self) -> dict[str, object]:
        """What the sequences depend on besides form, sizes and seed."""

    @abstractmethod
    def draw(self, count: int, rng: np.random.Generator, training: bool) -> np.ndarray:
        """Draw sequences, which may be alike.

        Args:
            count: about how many.
            rng: for the random numbers.
            training: whether they are to train on.

        Returns:
            uint8 (about ``count``, ``max_length``), 0 after the end of each.
        """

    @property
    def tokens(self) -> tuple[str, ...]:
        """The vocabulary's tokens, by their numbers: a fact that a model keeps."""
        return self.vocabulary.tokens

    @property
    def separator(self) -> str:
        """The token that ends a problem."""
        return self.vocabulary.separator

    @property
    def greedy(self) -> bool:
        """Whether what is judged is the last answer of the model's own steps."""
        return self.chain and self.greedy_chain

    def setup(self, stage: str | None = None) -> None:
        """Read the sequences, which are generated where they were not yet.

        Raises:
            InputError: there are not so many different ones.
        """
        if self._datasets:
            return
        settings = self.settings() | {"form": self.form, "seed": self.data_seed}
        words = "-".join(f"{name}={value}" for name, value in (settings | self.sizes).items())
        folder = cache_folder(Path(self.path) / "sequences")
        file = folder / f"{self.name}-{words}-{cache_key(RELEASE, words)}.npy"
        work = f"generation of sequences of {self.name}"
        every = cached_array(file, lambda: distinct(self), work)
        shape = (sum(self.sizes.values()), self.max_length)
        if every.dtype != np.uint8 or every.shape != shape:
            raise InputError(f"{file} is not the cache it should be: delete it, and it is made anew")
        ends = np.cumsum(list(self.sizes.values()))
        splits = dict(zip(self.sizes, np.split(every, ends[:-1]), strict=True))
        separator = self.vocabulary[self.separator]
        found = {
            split: SequenceDataset(tokens, separator, self.answer_length) for split, tokens in splits.items()
        }
        self._datasets = found | {"predict": found["test"]}


def distinct(data: SequenceDataModule) -> np.ndarray:
    """Different sequences: those of training, then of validation, then of test.

    Raises:
        InputError: there are not so many.
    """
    rng = np.random.default_rng(data.data_seed)
    # Equal sequences have equal hashes, so none is kept twice; the reverse, once in a blue moon, costs one.
    factors = rng.integers(2**63, size=data.max_length, dtype=np.uint64) * 2 + 1
    seen = np.empty(0, dtype=np.uint64)
    parts: list[np.ndarray] = []
    for training in (True, False):
        missing = data.sizes["train"] if training else data.sizes["val"] + data.sizes["test"]
        fruitless = 0
        while missing:
            drawn = data.draw(min(AT_A_TIME, 2 * missing + 64), rng, training)
            hashes = drawn.astype(np.uint64) @ factors
            _, firsts = np.unique(hashes, return_index=True)
            firsts = np.sort(firsts[~np.isin(hashes[firsts], seen, assume_unique=True)])[:missing]
            seen = np.concatenate([seen, hashes[firsts]])
            parts.append(drawn[firsts])
            missing -= len(firsts)
            fruitless = 0 if len(firsts) > len(drawn) // 1000 else fruitless + 1
            if missing and fruitless > MOST_FRUITLESS:
                given = ", ".join(f"data.{name}={value}" for name, value in data.settings().items())
                raise InputError(
                    f"of {sum(data.sizes.values())} different sequences of {data.name} only {len(seen)} were "
                    f"found with {given}: give longer problems, or smaller data.train_size, val_size and "
                    "test_size"
                )
    return np.concatenate(parts)
