"""Data sets in one NumPy file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vitlocal.data.base import ImageDataModule
from vitlocal.data.cache import cache_folder, cache_key
from vitlocal.data.dataset import Images, Splits
from vitlocal.data.npz_file import NpzFile
from vitlocal.errors import InputError

SPLITS = ("train", "val", "test")
ARRAYS = ("class_names", *(f"{split}_{kind}" for split in SPLITS for kind in ("images", "labels")))
IMAGES_A_CHUNK = 1024


class NPZ(ImageDataModule):
    """A ``.npz`` file in the layout of MedMNIST (medmnist.com), of any image size.

    ``train_images`` uint8 (N, H, W) or (N, H, W, C) with C = 1 or 3, ``train_labels`` integers (N,) or
    (N, 1) from 0; the same with ``val_`` and ``test_``, both optional; ``class_names`` optional. Labels
    (N, K) with K above 1 are 0 or 1 of each class, where an image may show several or none, as in
    ChestMNIST. Arrays that are stored uncompressed, as by ``numpy.savez``, are mapped from the file;
    compressed ones are unpacked into memory.

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
        with NpzFile(self.path) as file:
            status = self.path.stat()
            key = cache_key(str(status.st_size), str(status.st_mtime_ns))
            statistics_file = cache_folder(self.path) / f"mean_std-{key}.json"
            # Where there are statistics of this file, all of it has been read and verified before.
            arrays = file.read(ARRAYS, verify=not statistics_file.exists())
        if missing := [name for name in ("train_images", "train_labels") if name not in arrays]:
            raise self._lacks(missing[0], file.names)
        images: dict[str, Images] = {}
        for split in SPLITS:
            if f"{split}_images" in arrays:
                if f"{split}_labels" not in arrays:
                    raise self._lacks(f"{split}_labels", file.names)
                images[split] = Images(
                    _pixels(arrays.pop(f"{split}_images"), f"{split}_images", self.path),
                    _labels(arrays[f"{split}_labels"], f"{split}_labels", self.path),
                )
        return Splits(
            source=str(self.path),
            class_names=_class_names(arrays.get("class_names"), images, self.path),
            statistics_file=statistics_file,
            **images,
        )

    def _lacks(self, name: str, names: Sequence[str]) -> InputError:
        return InputError(f"{self.path} has no array '{name}', only {', '.join(names)}: add it")


def _pixels(images: np.ndarray, name: str, path: Path) -> np.ndarray:
    """Images as (N, C, H, W), without a second copy of them."""
    if images.dtype != np.uint8 or not (images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3))):
        raise InputError(
            f"'{name}' in {path} is {images.dtype} of shape {images.shape}: "
            "give uint8 (N, H, W) or (N, H, W, C) with C = 1 or 3"
        )
    if images.ndim == 3:
        return images[:, None]
    moved = images.transpose(0, 3, 1, 2)
    if moved.flags.c_contiguous or not (images.flags.writeable and images.flags.c_contiguous):
        return moved  # of one channel; or mapped, and a batch is brought into order when it is gathered
    # In place, as each image's bytes stay among themselves.
    ordered = images.reshape(moved.shape)
    for start in range(0, len(images), IMAGES_A_CHUNK):
        chunk = slice(start, start + IMAGES_A_CHUNK)
        ordered[chunk] = moved[chunk].copy()
    return ordered


def _labels(labels: np.ndarray, name: str, path: Path) -> np.ndarray:
    if labels.dtype.kind not in "iub" or labels.ndim not in (1, 2):
        raise InputError(
            f"'{name}' in {path} is {labels.dtype} of shape {labels.shape}: give integers (N,) or (N, 1), or "
            "of K labels an image (N, K)"
        )
    several = labels.ndim == 2 and labels.shape[1] > 1
    return labels.astype(np.int64).reshape(labels.shape if several else -1)


def _class_names(names: np.ndarray | None, images: Mapping[str, Images], path: Path) -> tuple[str, ...]:
    if names is None and images["train"].labels.ndim == 2:
        return tuple(str(label) for label in range(images["train"].labels.shape[1]))
    if names is None:
        highest = max(int(split.labels.max(initial=0)) for split in images.values())
        if highest >= len(images["train"]):
            raise InputError(
                f"{path} has label {highest} but only {len(images['train'])} training images: "
                "give labels from 0 without gaps"
            )
        return tuple(str(label) for label in range(highest + 1))
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
