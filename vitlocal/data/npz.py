"""Data sets in one NumPy file."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vitlocal.data.base import ImageDataModule
from vitlocal.data.cache import cache_folder, cache_key
from vitlocal.data.dataset import Images, Splits
from vitlocal.errors import InputError

Arrays = Mapping[str, np.ndarray]

MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
"""Bytes that the machine has."""


class NPZ(ImageDataModule):
    """A ``.npz`` file in the layout of MedMNIST (medmnist.com), of any image size.

    ``train_images`` uint8 (N, H, W) or (N, H, W, C) with C = 1 or 3, ``train_labels`` integers (N,) or
    (N, 1) from 0; the same with ``val_`` and ``test_``, both optional; ``class_names`` optional. It
    takes sets with one label an image.

    Args:
        path: The file.
        **kwargs: Arguments common to all data sets.
    """

    photometric: ClassVar[dict[str, Any]] = {
        "class_path": "vitlocal.protocol.AutoAugment",
        "init_args": {"policy": "cifar10"},
    }

    def __init__(self, path: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.path = Path(path).expanduser().absolute()
        self.name = self.path.stem

    def load(self) -> Splits:
        """Read the file.

        Raises:
            InputError: it is missing or damaged, or an array is missing or wrong.
        """
        arrays = self._read()
        images: dict[str, Images] = {}
        for split in ("train", "val", "test"):
            if split == "train" or f"{split}_images" in arrays:
                images[split] = Images(
                    _pixels(arrays, f"{split}_images", self.path),
                    _labels(arrays, f"{split}_labels", self.path),
                )
        status = self.path.stat()
        key = cache_key(str(status.st_size), str(status.st_mtime_ns))
        return Splits(
            source=str(self.path),
            class_names=_class_names(arrays, images, self.path),
            statistics_file=cache_folder(self.path) / f"mean_std-{key}.json",
            **images,
        )

    def _read(self) -> Arrays:
        if not self.path.is_file():
            raise InputError(f"there is no file {self.path}: give the path of a .npz file")
        try:
            _check_size(self.path)
            # Never pickled objects: they could run code.
            loaded = np.load(self.path, allow_pickle=False)
            if isinstance(loaded, np.lib.npyio.NpzFile):
                with loaded as file:
                    return dict(file)
        except InputError:
            raise
        # Damage raises many kinds of errors in zipfile and in NumPy's readers.
        except Exception as error:
            raise InputError(
                f"{self.path} can't be read ({error}): give a whole .npz file of plain arrays"
            ) from error
        raise InputError(f"{self.path} holds a single array: give a .npz file with train_images")


def _check_size(path: Path) -> None:
    """Refuse a zip file that claims more than the machine's memory, before anything is unpacked."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as file:
        size = sum(member.file_size for member in file.infolist())
    if size > MEMORY:
        raise InputError(
            f"{path} unpacks to {size} bytes, more than this machine's memory of {MEMORY}: "
            "give a smaller set, or the images as folders"
        )


def _array(arrays: Arrays, key: str, path: Path) -> np.ndarray:
    if key not in arrays:
        raise InputError(f"{path} has no array '{key}', only {', '.join(sorted(arrays))}: add it")
    return arrays[key]


def _pixels(arrays: Arrays, key: str, path: Path) -> np.ndarray:
    """Images as (N, C, H, W)."""
    images = _array(arrays, key, path)
    if images.dtype != np.uint8 or not (images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3))):
        raise InputError(
            f"'{key}' in {path} is {images.dtype} of shape {images.shape}: "
            "give uint8 (N, H, W) or (N, H, W, C) with C = 1 or 3"
        )
    return images[:, None] if images.ndim == 3 else np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _labels(arrays: Arrays, key: str, path: Path) -> np.ndarray:
    labels = _array(arrays, key, path)
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise InputError(
            f"'{key}' in {path} has {labels.shape[1]} labels an image: give a set with one label an image"
        )
    if labels.dtype.kind not in "iu" or labels.ndim not in (1, 2):
        raise InputError(
            f"'{key}' in {path} is {labels.dtype} of shape {labels.shape}: give integers (N,) or (N, 1)"
        )
    return labels.astype(np.int64).reshape(-1)


def _class_names(arrays: Arrays, images: Mapping[str, Images], path: Path) -> tuple[str, ...]:
    if "class_names" not in arrays:
        highest = max(int(split.labels.max(initial=0)) for split in images.values())
        if highest >= len(images["train"]):
            raise InputError(
                f"{path} has label {highest} but only {len(images['train'])} training images: "
                "give labels from 0 without gaps"
            )
        return tuple(str(label) for label in range(highest + 1))
    names = arrays["class_names"]
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise InputError(
            f"'class_names' in {path} is {names.dtype} of shape {names.shape}: give one string a class"
        )
    if names.dtype.kind == "S":
        try:
            names = np.char.decode(names, "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"'class_names' in {path} is not UTF-8 ({error}): store it as such") from error
    return tuple(names.tolist())
