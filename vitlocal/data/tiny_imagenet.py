"""Tiny-ImageNet."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from vitlocal.data.archive import Archive
from vitlocal.data.base import ImageDataModule
from vitlocal.data.cache import Listing, decoded_images, statistics_file
from vitlocal.data.dataset import Splits
from vitlocal.data.download import RemoteFile, check_sources, download
from vitlocal.errors import InputError

SIZE = (64, 64)
SUFFIXES = (".jpeg", ".jpg")


class TinyImageNet(ImageDataModule):
    """Tiny-ImageNet: 200 classes, 100,000 training and 10,000 validation images, 64x64 (Stanford CS231n).

    Reads the official layout, or a part of it. The labelled validation images are the test images,
    as in the literature; the official test images have no labels and are what is predicted. The
    images are decoded once, into a folder beside ``path``.

    Args:
        path: ``tiny-imagenet-200.zip``, or the folder it unpacks to. What is there is used as it is.
        download: Download the archive, checked by its MD5, if it is not there and ``path`` ends in its name.
        sources: URLs of the archive, tried in turn: http, https or file; null: the official one.
        timeout: Seconds without a byte after which a source has failed; one that is far too slow for as
            long waits until the others have been tried.
        **kwargs: Arguments common to all data sets.
    """

    name = "tiny_imagenet"
    photometric: ClassVar[dict[str, Any]] = {"class_path": "vitlocal.protocol.ColorJitter"}

    remote: ClassVar[RemoteFile] = RemoteFile(
        "tiny-imagenet-200.zip",
        248_100_043,
        "90528d7ca1a48142e341f4ef8d21d0de",
        ("http://cs231n.stanford.edu/tiny-imagenet-200.zip",),
    )

    def __init__(
        self,
        path: str = "data/tiny-imagenet-200.zip",
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
        """Download the archive if there is nothing at ``path`` and it has the archive's name.

        Raises:
            InputError: it can't be downloaded, or may not be.
        """
        if self.path.exists() or self.path.name != self.remote.name:
            return
        if not self.download:
            raise InputError(
                f"{self.path} is not there, and download=false forbids to fetch it: "
                f"{self.remote.by_hand(self.path.parent)}"
            )
        download(self.remote, self.path.parent, self.sources, self.timeout)

    def load(self) -> Splits:
        """List the images and read them, decoded, from the cache.

        Raises:
            InputError: the archive is missing or damaged, or its layout is not the official one.
        """
        with Archive(self.path) as archive:
            root = _root(archive)
            wnids = archive.read(f"{root}wnids.txt").decode("utf-8", "replace").split()
            classes = {wnid: label for label, wnid in enumerate(wnids)}
            listings = {
                "train": _train(archive, root, classes),
                "test": _val(archive, root, classes),
                "predict": _unlabelled(archive, root),
            }
            images = {
                split: decoded_images(archive, listing, split, SIZE)
                for split, listing in listings.items()
                if listing.files
            }
            if "train" not in images:
                raise InputError(f"{self.path} has no images in {root}train/<wnid>/images: get it again")
            return Splits(
                source=str(self.path),
                class_names=_class_names(archive, root, wnids),
                statistics_file=statistics_file(archive, listings["train"], SIZE),
                **images,
            )


def _root(archive: Archive) -> str:
    """The folder in the archive, with its slash, that holds ``wnids.txt``."""
    found = [name for name in archive.names if f"/{name}".endswith("/wnids.txt")]
    if not found:
        raise InputError(f"{archive.path} holds no wnids.txt: give tiny-imagenet-200.zip or its folder")
    return min(found, key=len).removesuffix("wnids.txt")


def _label(classes: Mapping[str, int], wnid: str, file: str, archive: Archive) -> int:
    if wnid not in classes:
        raise InputError(f"class '{wnid}' of {file} in {archive.path} is not in wnids.txt: add it there")
    return classes[wnid]


def _train(archive: Archive, root: str, classes: Mapping[str, int]) -> Listing:
    files = archive.images(f"{root}train/", SUFFIXES)
    labels = [
        _label(classes, file.removeprefix(f"{root}train/").split("/")[0], file, archive) for file in files
    ]
    return Listing(files, labels)


def _val(archive: Archive, root: str, classes: Mapping[str, int]) -> Listing:
    files = archive.images(f"{root}val/images/", SUFFIXES)
    if not files:
        return Listing([], [])
    text = archive.read(f"{root}val/val_annotations.txt").decode("utf-8", "replace")
    wnids = dict(line.split("\t")[:2] for line in text.splitlines() if line.count("\t"))
    labels = []
    for file in files:
        name = file.rpartition("/")[2]
        if name not in wnids:
            raise InputError(f"{file} in {archive.path} has no line in val_annotations.txt: add or remove it")
        labels.append(_label(classes, wnids[name], file, archive))
    return Listing(files, labels)


def _unlabelled(archive: Archive, root: str) -> Listing:
    files = archive.images(f"{root}test/images/", SUFFIXES)
    return Listing(files, [-1] * len(files))


def _class_names(archive: Archive, root: str, wnids: list[str]) -> tuple[str, ...]:
    """The first name that ``words.txt`` gives each class, or the wnid itself."""
    words: dict[str, str] = {}
    if f"{root}words.txt" in archive.names:
        for line in archive.read(f"{root}words.txt").decode("utf-8", "replace").splitlines():
            wnid, _, names = line.partition("\t")
            words[wnid] = names.split(",")[0].strip()
    return tuple(words.get(wnid) or wnid for wnid in wnids)
