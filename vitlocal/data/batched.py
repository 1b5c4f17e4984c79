"""What data sets in batches have in common, of images or sequences: how they are served, and resumed."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from vitlocal.data.dataset import Batch, identity
from vitlocal.data.module import DataModule
from vitlocal.data.samplers import EpochSampler, EvaluationSampler, TrainingLoader
from vitlocal.errors import InputError

Loader = TypeVar("Loader", bound=DataLoader)


class BatchedDataModule(DataModule, ABC):
    """Batches of a data set, each a dict and gathered at once.

    Subclasses fill ``_datasets`` in ``setup``: a data set for each of ``train``, ``val``, ``test`` and
    ``predict`` that there is, which serves a batch by ``__getitems__``, with padding where an index is -1.

    Args:
        batch_size: Images or sequences a batch, on each device.
        num_workers: Processes that gather batches beside the training one.

    Raises:
        InputError: an argument is out of its range.
    """

    items: ClassVar[str] = "images"
    """What it holds, for messages."""

    _datasets: Mapping[str, Any]

    def __init__(self, batch_size: int, num_workers: int) -> None:
        super().__init__()
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size}: give at least 1")
        if num_workers < 0:
            raise InputError(f"num_workers={num_workers}: give 0 or more")
        self.batch_size = batch_size
        self.num_workers = num_workers
        self._training: TrainingLoader | None = None
        self._position: dict[str, int] | None = None

    def fetch(self) -> None:
        """Download what is read; called in one process only."""

    @abstractmethod
    def setup(self, stage: str | None = None) -> None:
        """Fill ``_datasets``, once for all stages.

        Raises:
            InputError: the data are missing or wrong.
        """

    def prepare_data(self) -> None:
        """Download, decode and cache, so that ``setup`` in every process only reads."""
        self.fetch()
        self.setup()

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled; a last, smaller batch is left out unless it is the only one."""
        dataset = self._datasets["train"]
        # Without seed_everything every process has a seed of its own: that of the first counts.
        seed = None if self.trainer is None else self.trainer.strategy.broadcast(torch.initial_seed())
        sampler = EpochSampler(dataset, *self._place(), seed, self._labels_to_balance())
        drop_last = len(sampler) >= self.batch_size
        loader = self._loader(TrainingLoader, dataset, sampler=sampler, drop_last=drop_last)
        if self._position is not None:
            loader.load_state_dict(self._position)
            self._position = None
        self._training = loader
        return loader

    def val_dataloader(self) -> DataLoader[Batch]:
        """In order."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """In order.

        Raises:
            InputError: there are none.
        """
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        """In order.

        Raises:
            InputError: there are none.
        """
        return self._evaluation_loader("predict")

    def _evaluation_loader(self, split: str) -> DataLoader[Batch]:
        if split not in self._datasets:
            raise InputError(
                f"the data set '{self.name}' has no {self.items} to {split}: add a test split to it"
            )
        dataset = self._datasets[split]
        return self._loader(DataLoader, dataset, sampler=EvaluationSampler(dataset, *self._place()))

    def _labels_to_balance(self) -> np.ndarray | None:
        """Of the training data, the classes to draw equally often; None: everything is drawn once."""
        return None

    def _place(self) -> tuple[int, int]:
        """The number of processes, and which of them this is."""
        return (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)

    def _loader(self, kind: type[Loader], dataset: Dataset[Batch], **options: Any) -> Loader:
        return kind(
            dataset,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=identity,
            pin_memory=torch.cuda.is_available(),
            # Of its own: a loader draws a number for each pass, which would change what dropout draws.
            generator=torch.Generator(),
            **options,
        )

    def state_dict(self) -> dict[str, int]:
        """Where in the training data a checkpoint is taken."""
        return {} if self._training is None else self._training.state_dict()

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Let the training loader, once it is made, go on from there.

        Lightning hands a loader its state only if the loader is made after the checkpoint is read
        for the second time; a schedule that asks for the number of steps makes it before.
        """
        self._position = state_dict or None
