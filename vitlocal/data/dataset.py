"""Images as arrays, and batches gathered from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vitlocal.errors import InputError

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Images:
    """The images of one split.

    Attributes:
        images: uint8 (N, C, H, W); may be a memory map.
        labels: int64 (N,), class numbers; or (N, K), 0 or 1 of each class, where an image may show several
            or none. -1 where unknown.
        names: N names for people, such as paths; None where images have no names.
    """

    images: np.ndarray
    labels: np.ndarray
    names: Sequence[str] | None = None

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)


@dataclass(frozen=True)
class Splits:
    """Everything that a data set holds, checked when it is made.

    Attributes:
        source: where the images come from, for messages.
        class_names: one name a class; its length is the number of classes.
        train: training images, at least one a class. Its labels say of which kind those of all splits are.
        val: the data set's own validation images.
        test: the official, labelled test images.
        predict: images without labels.
        statistics_file: where to cache the mean and std of ``train``; its name changes with the
            images. None: not cached.

    Raises:
        InputError: wrong dtype, shape, count or label in a split, or a class without training images.
    """

    source: str
    class_names: tuple[str, ...]
    train: Images
    val: Images | None = None
    test: Images | None = None
    predict: Images | None = None
    statistics_file: Path | None = None

    def __post_init__(self) -> None:
        """Check every split against the others."""
        for split in ("train", "val", "test", "predict"):
            images = getattr(self, split)
            if images is not None:
                self._check(images, split)
        if self.multilabel:  # by what is left after val_fraction: check_both
            return
        counts = np.bincount(self.train.labels, minlength=len(self.class_names))
        if not counts.all():
            empty = int(np.argmin(counts))
            raise InputError(
                f"class {empty} ('{self.class_names[empty]}') has no training image in {self.source}: "
                f"give images of every class, labelled from 0 to {len(self.class_names) - 1}"
            )

    @property
    def multilabel(self) -> bool:
        """Whether labels are (N, K), of each class 0 or 1."""
        return self.train.labels.ndim == 2

    def _check(self, split: Images, name: str) -> None:
        images, labels = split.images, split.labels
        where = f"the {name} split of {self.source}"
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
            raise InputError(
                f"{where} holds {images.dtype} images of shape {images.shape}: "
                "give at least one uint8 image with 1 or 3 channels"
            )
        if images.shape[1:] != self.train.images.shape[1:]:
            raise InputError(
                f"{where} holds (C, H, W) = {images.shape[1:]} images but the train split "
                f"{self.train.images.shape[1:]}: give all splits one shape"
            )
        one = (len(self.class_names),) if self.multilabel else ()
        if labels.dtype != np.int64 or labels.shape != (len(images), *one):
            wanted = f"{one[0]} integers, one a class, for each" if one else "one integer label an"
            raise InputError(
                f"{where} holds {len(images)} images but {labels.dtype} labels of shape {labels.shape}: "
                f"give {wanted} image"
            )
        if split.names is not None and len(split.names) != len(images):
            raise InputError(
                f"{where} holds {len(images)} images but {len(split.names)} names: give one name an image"
            )
        lowest = -1 if name == "predict" else 0
        highest = 1 if self.multilabel else len(self.class_names) - 1
        if labels.min() < lowest or labels.max() > highest:
            raise InputError(
                f"{where} has labels from {labels.min()} to {labels.max()}: with {len(self.class_names)} "
                f"{'labels an image each' if self.multilabel else 'classes they'} must lie from {lowest} to "
                f"{highest}"
            )


def check_both(labels: np.ndarray, class_names: Sequence[str], where: str) -> None:
    """Refuse labels of which one is on every image or on none: nothing can be learned or measured of it.

    Args:
        labels: 0 or 1, (N, K).
        class_names: K names, for the message.
        where: the images are, for the message.

    Raises:
        InputError: there is such a label.
    """
    for name, count in zip(class_names, labels.sum(axis=0).tolist(), strict=True):
        if count in (0, len(labels)):
            raise InputError(
                f"{'every' if count else 'no'} image of {where} has the label '{name}', so nothing can be "
                "learned or measured of it: give images with and without each label, or leave that one out"
            )


class BatchDataset(Dataset[Batch]):
    """Images served a batch at a time.

    A :class:`~torch.utils.data.DataLoader` asks a data set that has ``__getitems__`` for the whole
    batch at once, so that a batch is one gather and no image is touched by Python on its own.

    Args:
        images: the images.
        positions: int64, which of them belong to this data set; all if None. They are not copied.
    """

    def __init__(self, images: Images, positions: np.ndarray | None = None) -> None:
        self.images = images
        self.positions = np.arange(len(images)) if positions is None else positions
        self.names = images.names
        # A plain view: gathering from np.memmap itself returns np.memmap objects, at a price a batch.
        self._pixels = np.asarray(images.images)

    @property
    def labels(self) -> np.ndarray:
        """Of the images, as in ``images``: int64 (N,) or (N, K)."""
        return self.images.labels[self.positions]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.positions)

    def __getitem__(self, index: int) -> Batch:
        """One image as a batch without its first dimension."""
        return {key: value[0] for key, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Gather a batch.

        Args:
            indices: B positions in this data set; -1 for padding.

        Returns:
            ``image`` uint8 (B, C, H, W), ``label`` int64 (B,) or (B, K), as in ``images``, and ``index``
            int64 (B,), the positions in ``images``: the same for an image whether or not others are held
            out. Padding has label and index -1.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        positions = self.positions[wanted]
        images, labels = self._gather(positions), self.images.labels[positions]
        positions[wanted < 0] = labels[wanted < 0] = -1
        return {
            name: torch.from_numpy(x)
            for name, x in (("image", images), ("label", labels), ("index", positions))
        }

    def _gather(self, positions: np.ndarray) -> np.ndarray:
        if self._pixels.flags.c_contiguous:
            return np.take(self._pixels, positions, axis=0)
        # A view, of images with their channels last: np.take would first bring all of them into order.
        return np.ascontiguousarray(self._pixels[positions])


def identity(batch: Any) -> Any:
    """Collate what is a batch already."""
    return batch
