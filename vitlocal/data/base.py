"""What all data sets have in common."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor
from torch.nn.functional import one_hot
from torch.utils.data import DataLoader, Dataset

from vitlocal.data.dataset import Batch, BatchDataset, Images, Splits, identity
from vitlocal.data.decode import Resize
from vitlocal.data.samplers import EpochSampler, EvaluationSampler, TrainingLoader
from vitlocal.data.split import stratified_split
from vitlocal.data.statistics import Statistics, cached_statistics, channel_statistics
from vitlocal.errors import InputError

Loader = TypeVar("Loader", bound=DataLoader)

__all__ = ["BatchDataset", "EpochSampler", "ImageDataModule", "Images", "Splits"]


class ImageDataModule(LightningDataModule, ABC):
    """Images of one data set in batches.

    A batch is a dict: ``image`` uint8 (B, C, H, W), ``label`` int64 (B,), -1 where unknown, ``index``
    int64 (B,), the image's position in its split of the data set, and in training ``target`` float32
    (B, K), the label one-hot.

    With ``val_fraction`` above 0 a part of the training images validates; else the data set's own
    validation images, and where it has none, its test images. Prediction takes the images without
    labels, and where there are none, the test images.

    Subclasses set :attr:`name` and :attr:`photometric` and implement :meth:`load`.

    Args:
        batch_size: Images a batch, on each device.
        val_fraction: Share of the training images held out for validation, the same of every class; 0: none.
        split_seed: Which images are held out, 0 to 4294967295.
        num_workers: Processes that gather batches beside the training one; 0 is fast enough as a rule.
        balanced: Train on every class equally often, however many images it has: an epoch draws images of
            rare classes again, and leaves out some of frequent ones, others every time.

    Raises:
        InputError: an argument is out of its range.
    """

    name: str
    """Short, for the run's folder."""

    photometric: ClassVar[dict[str, Any]]
    """The Modern protocol's photometric step on this data set, as a class path and its arguments."""

    published_statistics: ClassVar[Statistics | None] = None
    """Mean and std where the field uses fixed ones; else they are computed."""

    resize: Resize = "crop"
    """How an image of another shape comes to :attr:`image_size`."""

    class_names: tuple[str, ...]
    num_classes: int
    image_size: tuple[int, int]
    in_channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __init__(
        self,
        batch_size: int = 128,
        val_fraction: float = 0.0,
        split_seed: int = 0,
        num_workers: int = 0,
        balanced: bool = False,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size}: give at least 1")
        if not 0 <= val_fraction < 1:
            raise InputError(f"val_fraction={val_fraction}: give a share from 0 to below 1")
        if not 0 <= split_seed < 2**32:
            raise InputError(f"split_seed={split_seed}: give a whole number from 0 to {2**32 - 1}")
        if num_workers < 0:
            raise InputError(f"num_workers={num_workers}: give 0 or more")
        self.save_hyperparameters()
        self.batch_size = batch_size
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.num_workers = num_workers
        self.balanced = balanced
        self._datasets: dict[str, BatchDataset] = {}
        self._training: TrainingLoader | None = None
        self._position: dict[str, int] | None = None

    def fetch(self) -> None:
        """Download what :meth:`load` reads; called in one process only."""

    @abstractmethod
    def load(self) -> Splits:
        """Read the data set.

        Returns:
            The splits.

        Raises:
            InputError: the data are missing or wrong.
        """

    def prepare_data(self) -> None:
        """Download, decode and cache, so that :meth:`setup` in every process only reads."""
        self.fetch()
        self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Read the data set, once for all stages.

        Raises:
            InputError: the data are missing or wrong.
        """
        if self._datasets:
            return
        splits = self.load()
        datasets = self._divide(splits)
        self._say_what_stands_in(splits)
        images = splits.train.images
        self.class_names = splits.class_names
        self.num_classes = len(splits.class_names)
        self.in_channels = images.shape[1]
        self.image_size = (images.shape[2], images.shape[3])
        if self.published_statistics is not None:
            self.mean, self.std = self.published_statistics
        elif splits.statistics_file is not None:
            self.mean, self.std = cached_statistics(images, splits.statistics_file)
        else:
            self.mean, self.std = channel_statistics(images)
        self._datasets = datasets

    def _divide(self, splits: Splits) -> dict[str, BatchDataset]:
        train = BatchDataset(splits.train)
        val = splits.val or splits.test
        test = splits.test or splits.val
        predict = splits.predict or test
        named = {"val": val, "test": test, "predict": predict}
        datasets = {"train": train} | {k: BatchDataset(v) for k, v in named.items() if v is not None}
        if self.val_fraction > 0:
            kept, held_out = stratified_split(
                splits.train.labels, self.val_fraction, self.split_seed, splits.class_names
            )
            datasets["train"] = BatchDataset(splits.train, kept)
            datasets["val"] = BatchDataset(splits.train, held_out)
        if "val" not in datasets:
            raise InputError(
                f"{splits.source} has no validation or test images: "
                "add some, or hold out training images by val_fraction"
            )
        return datasets

    def _say_what_stands_in(self, splits: Splits) -> None:
        """Say which images validate, or test, where the data set has none for that."""
        function = None if self.trainer is None else self.trainer.state.fn
        if function == TrainerFn.FITTING and splits.val is None and splits.test and not self.val_fraction:
            rank_zero_info(
                f"vitlocal: {self.name} has no validation images: its {len(splits.test)} test images "
                "validate; data.val_fraction=0.1 holds out training images instead"
            )
        if function == TrainerFn.TESTING and splits.val and splits.test is None:
            rank_zero_info(
                f"vitlocal: {self.name} has no test images: its {len(splits.val)} validation images test"
            )

    @property
    def train_labels(self) -> np.ndarray:
        """Of the images trained on, without those held out: int64 (N,)."""
        dataset = self._datasets["train"]
        return dataset.images.labels[dataset.positions]

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled; a last, smaller batch is left out unless it is the only one."""
        dataset = self._datasets["train"]
        # Without seed_everything every process has a seed of its own: that of the first counts.
        seed = None if self.trainer is None else self.trainer.strategy.broadcast(torch.initial_seed())
        labels = self.train_labels if self.balanced else None
        sampler = EpochSampler(dataset, *self._place(), seed, labels)
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
            InputError: the data set has no test images.
        """
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        """In order.

        Raises:
            InputError: the data set has neither unlabelled nor test images.
        """
        return self._evaluation_loader("predict")

    def _evaluation_loader(self, split: str) -> DataLoader[Batch]:
        if split not in self._datasets:
            raise InputError(f"the data set '{self.name}' has no images to {split}: add a test split to it")
        dataset = self._datasets[split]
        return self._loader(DataLoader, dataset, sampler=EvaluationSampler(dataset, *self._place()))

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
        """Where in the training images a checkpoint is taken."""
        return {} if self._training is None else self._training.state_dict()

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Let the training loader, once it is made, go on from there.

        Lightning hands a loader its state only if the loader is made after the checkpoint is read
        for the second time; a schedule that asks for the number of steps makes it before.
        """
        self._position = state_dict or None

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Put the one-hot ``target`` into a training batch."""
        training = self.trainer is not None and self.trainer.training
        if training and isinstance(batch, dict):  # Lightning's summary counts operations on a bare tensor
            batch["target"] = one_hot(batch["label"], self.num_classes).to(torch.float32)
        return batch
