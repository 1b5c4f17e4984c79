"""CIFAR-10 and CIFAR-100."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torchvision import datasets
from torchvision.datasets.utils import check_integrity

from vitlocal.data.archive import unpack
from vitlocal.data.base import ImageDataModule
from vitlocal.data.dataset import Images, Splits
from vitlocal.data.download import RemoteFile, check_sources, download
from vitlocal.data.lock import locked
from vitlocal.data.statistics import Statistics
from vitlocal.errors import InputError


class CIFAR10(ImageDataModule):
    """CIFAR-10: 50,000 training and 10,000 test images, 32x32, 10 classes (Krizhevsky 2009).

    Its files are Python pickles; none is opened before its MD5 is found to be the official one.

    Args:
        path: Folder of the official archive, or where to put it.
        download: Download the archive if it is not there; it is checked by its MD5 in any case.
        sources: URLs of the archive, tried in turn: http, https or file; null: the official one.
        timeout: Seconds without a byte after which a source has failed; one that is far too slow for as
            long waits until the others have been tried.
        **kwargs: Arguments common to all data sets.
    """

    name = "cifar10"
    photometric: ClassVar[dict[str, Any]] = {
        "class_path": "vitlocal.protocol.AutoAugment",
        "init_args": {"policy": "cifar10"},
    }
    published_statistics = Statistics((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    reader: ClassVar[type[datasets.CIFAR10]] = datasets.CIFAR10
    archive_size: ClassVar[int] = 170_498_071

    def __init__(
        self,
        path: str = "data",
        download: bool = True,
        sources: list[str] | None = None,
        timeout: float = 30.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_sources(sources, timeout)
        self.path = Path(path).expanduser().absolute()
        self.download = download
        self.sources = sources
        self.timeout = timeout

    def fetch(self) -> None:
        """Download the archive if need be, and unpack it.

        Raises:
            InputError: it is not there and can't be downloaded, or may not be; or it is damaged.
        """
        folder = self.path / self.reader.base_folder
        try:
            if self._is_whole():
                return
            with locked(folder, f"unpacking of {self.reader.filename}"):
                if self._is_whole():
                    return
                if folder.exists():
                    raise InputError(
                        f"{folder} is not as the official archive has it: remove it, and it is unpacked again"
                    )
                unpack(self._archive(), folder)
        except OSError as error:
            raise InputError(f"{self.path} can't be used ({error}): choose another folder") from error

    def _archive(self) -> Path:
        reader = self.reader
        remote = RemoteFile(reader.filename, self.archive_size, reader.tgz_md5, (reader.url,))
        if not self.download and not (self.path / remote.name).exists():
            raise InputError(
                f"{self.path / remote.name} is not there, and download=false forbids to fetch it: "
                f"{remote.by_hand(self.path)}"
            )
        return download(remote, self.path, self.sources, self.timeout)

    def _is_whole(self) -> bool:
        reader = self.reader
        files: Sequence[Sequence[str]] = [
            *reader.train_list,
            *reader.test_list,
            (reader.meta["filename"], reader.meta["md5"]),
        ]
        folder = self.path / reader.base_folder
        return all(check_integrity(folder / name, md5) for name, md5 in files)

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

    def _read(self, train: bool) -> datasets.CIFAR10:
        # The reader checks each file's MD5 before it unpickles it.
        try:
            return self.reader(self.path, train=train, download=False)
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"{self.reader.__name__} can't be read from {self.path} ({error}): "
                f"remove {self.reader.base_folder}, and put {self.reader.filename} "
                f"with MD5 {self.reader.tgz_md5} there"
            ) from error


class CIFAR100(CIFAR10):
    """CIFAR-100: 50,000 training and 10,000 test images, 32x32, 100 classes (Krizhevsky 2009).

    Its files are Python pickles; none is opened before its MD5 is found to be the official one.

    Args:
        path: Folder of the official archive, or where to put it.
        download: Download the archive if it is not there; it is checked by its MD5 in any case.
        sources: URLs of the archive, tried in turn: http, https or file; null: the official one.
        timeout: Seconds without a byte after which a source has failed; one that is far too slow for as
            long waits until the others have been tried.
        **kwargs: Arguments common to all data sets.
    """

    name = "cifar100"
    published_statistics = Statistics((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
    reader = datasets.CIFAR100
    archive_size = 169_001_437


def _images(split: datasets.CIFAR10) -> Images:
    pixels = np.ascontiguousarray(split.data.transpose(0, 3, 1, 2))
    return Images(pixels, np.asarray(split.targets, dtype=np.int64))
