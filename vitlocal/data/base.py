"""What all data sets of images have in common."""

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor
from torch.nn.functional import one_hot
from torch.utils.data import DataLoader

from vitlocal.data.batched import BatchedDataModule
from vitlocal.data.dataset import Batch, BatchDataset, Images, Splits, check_both
from vitlocal.data.decode import Resize
from vitlocal.data.samplers import EpochSampler
from vitlocal.data.split import multilabel_split, stratified_split
from vitlocal.data.statistics import Statistics, cached_statistics, channel_statistics
from vitlocal.errors import InputError

__all__ = ["BatchDataset", "EpochSampler", "ImageDataModule", "Images", "Splits"]


class ImageDataModule(BatchedDataModule):
    """Images of one data set in batches.

    A batch is a dict: ``image`` uint8 (B, C, H, W), ``label`` int64 (B,), -1 where unknown, ``index``
    int64 (B,), the image's position in its split of the data set, and in training ``target`` float32
    (B, K), the label one-hot. Where :attr:`multilabel`, ``label`` is (B, K), 0 or 1 of each class, and
    ``target`` the same.

    With ``val_fraction`` above 0 a part of the training images validates; else the data set's own
    validation images, and where it has none, its test images. Prediction takes the images without
    labels, and where there are none, the test images.

    Subclasses set :attr:`name` and :attr:`photometric` and implement :meth:`load`.

    Args:
        batch_size: Images a batch, on each device.
        val_fraction: Share of the training images held out for validation, the same of every class, or
            nearly so where images have several labels; 0: none.
        split_seed: Which images are held out, 0 to 4294967295.
        num_workers: Processes that gather batches beside the training one; 0 is fast enough as a rule.
        balanced: Train on every class equally often, however many images it has: an epoch draws images of
            rare classes again, and leaves out some of frequent ones, others every time. Not with several
            labels an image.

    Raises:
        InputError: an argument is out of its range.
    """

    photometric: ClassVar[dict[str, Any]]
    """The Modern protocol's photometric step on this data set, as a class path and its arguments."""

    published_statistics: ClassVar[Statistics | None] = None
    """Mean and std where the field uses fixed ones; else they are computed."""

    resize: Resize = "crop"
    """How an image of another shape comes to :attr:`image_size`."""

    multilabel: bool
    """Whether an image may have several labels or none, each of the K classes being on it or not."""

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
        super().__init__(batch_size, num_workers)
        if not 0 <= val_fraction < 1:
            raise InputError(f"val_fraction={val_fraction}: give a share from 0 to below 1")
        if not 0 <= split_seed < 2**32:
            raise InputError(f"split_seed={split_seed}: give a whole number from 0 to {2**32 - 1}")
        self.save_hyperparameters()
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.balanced = balanced
        self._datasets: dict[str, BatchDataset] = {}

    @abstractmethod
    def load(self) -> Splits:
        """Read the data set.

        Returns:
            The splits.

        Raises:
            InputError: the data are missing or wrong.
        """

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
        self.multilabel = splits.multilabel
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
        if splits.multilabel and self.balanced:
            raise InputError(
                f"data.balanced draws every class equally often, but the images of {splits.source} have "
                "several labels each: leave it out, or give model.class_weights=balanced instead"
            )
        if self.val_fraction > 0:
            chosen = (splits.train.labels, self.val_fraction, self.split_seed)
            kept, held_out = (
                multilabel_split(*chosen)
                if splits.multilabel
                else stratified_split(*chosen, splits.class_names)
            )
            datasets["train"] = BatchDataset(splits.train, kept)
            datasets["val"] = BatchDataset(splits.train, held_out)
        if "val" not in datasets:
            raise InputError(
                f"{splits.source} has no validation or test images: "
                "add some, or hold out training images by val_fraction"
            )
        if splits.multilabel:
            how = f" under val_fraction={self.val_fraction}" if self.val_fraction else ""
            for split in ("train", "val"):
                where = f"the {split} split of {splits.source}{how}"
                check_both(datasets[split].labels, splits.class_names, where)
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
        """Of the images trained on, without those held out: int64 (N,) or (N, K)."""
        return self._datasets["train"].labels

    def _labels_to_balance(self) -> np.ndarray | None:
        return self.train_labels if self.balanced else None

    def test_dataloader(self) -> DataLoader[Batch]:
        """In order.

        Raises:
            InputError: the data set has no test images, or has some of several labels each, one of which is
                on none or all of them.
        """
        if self.multilabel and "test" in self._datasets:
            check_both(self._datasets["test"].labels, self.class_names, f"the test split of {self.name}")
        return super().test_dataloader()

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Put ``target`` into a training batch."""
        training = self.trainer is not None and self.trainer.training
        if training and isinstance(batch, dict):  # Lightning's summary counts operations on a bare tensor
            label = batch["label"]
            label = label if self.multilabel else one_hot(label, self.num_classes)
            batch["target"] = label.to(torch.float32)
        return batch
