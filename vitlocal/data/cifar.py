"""CIFAR-10 and CIFAR-100."""

import tarfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torchvision import datasets
from torchvision.datasets.utils import check_integrity

from vitlocal.data.base import ImageDataModule
from vitlocal.data.dataset import Images, Splits
from vitlocal.data.statistics import Statistics
from vitlocal.errors import InputError


class CIFAR10(ImageDataModule):
    """CIFAR-10: 50,000 training and 10,000 test images, 32x32, 10 classes (Krizhevsky 2009).

    Args:
        path: Folder of the official archive, or where to put it.
        download: Download the archive if it is not there; it is checked by its MD5 in any case.
        **kwargs: Arguments common to all data sets.
    """

    name = "cifar10"
    photometric: ClassVar[dict[str, Any]] = {
        "class_path": "vitlocal.protocol.AutoAugment",
        "init_args": {"policy": "cifar10"},
    }
    published_statistics = Statistics((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    reader: ClassVar[type[datasets.CIFAR10]] = datasets.CIFAR10

    def __init__(self, path: str = "data", download: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.path = Path(path).expanduser()
        self.download = download

    def fetch(self) -> None:
        """Download the archive if need be, and unpack it.

        Raises:
            InputError: it is not there and can't be downloaded, or may not be.
        """
        # An archive put there by hand is unpacked by torchvision's download, without the network.
        here = check_integrity(self.path / self.reader.filename, self.reader.tgz_md5)
        self._read(train=True, download=self.download or here)

    def load(self) -> Splits:
        """Read the unpacked archive.

        Raises:
            InputError: it is missing or damaged.
        """
        train, test = self._read(train=True), self._read(train=False)
        return Splits(
            source=f"{self.reader.base_folder} in {self.path}",
            class_names=tuple(train.classes),
            train=_images(train),
            test=_images(test),
        )

    def _read(self, train: bool, download: bool = False) -> datasets.CIFAR10:
        try:
            return self.reader(self.path, train=train, download=download)
        except (OSError, EOFError, RuntimeError, tarfile.TarError) as error:
            raise InputError(
                f"{self.reader.__name__} can't be read from {self.path} "
                f"(download={str(self.download).lower()}: {error}): "
                f"put {self.reader.filename} with MD5 {self.reader.tgz_md5} there, from any mirror"
            ) from error


class CIFAR100(CIFAR10):
    """CIFAR-100: 50,000 training and 10,000 test images, 32x32, 100 classes (Krizhevsky 2009).

    Args:
        path: Folder of the official archive, or where to put it.
        download: Download the archive if it is not there; it is checked by its MD5 in any case.
        **kwargs: Arguments common to all data sets.
    """

    name = "cifar100"
    published_statistics = Statistics((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
    reader = datasets.CIFAR100


def _images(split: datasets.CIFAR10) -> Images:
    pixels = np.ascontiguousarray(split.data.transpose(0, 3, 1, 2))
    return Images(pixels, np.asarray(split.targets, dtype=np.int64))
