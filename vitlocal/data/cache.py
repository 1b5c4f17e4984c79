"""What takes long to make, such as decoded image files, made once to one array on disk."""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from tqdm import tqdm  # type: ignore[import-untyped]

from vitlocal.data.archive import Archive
from vitlocal.data.dataset import Images
from vitlocal.data.decode import Resize, decode
from vitlocal.data.lock import locked
from vitlocal.data.memory import memory_limit
from vitlocal.errors import InputError
from vitlocal.files import atomic_path

DECODING = "upright over white"
"""Part of every key, and another one whenever :func:`decode` makes other pixels of the same files."""


@dataclass(frozen=True)
class Listing:
    """The image files of one split, in order.

    Attributes:
        files: names in the archive.
        labels: one class a file, -1 where unknown.
    """

    files: Sequence[str]
    labels: Sequence[int]


def cache_folder(source: Path) -> Path:
    """Where what is computed from ``source`` is kept: ``SOURCE.vitlocal`` beside it."""
    return source.with_name(f"{source.name}.vitlocal")


def cache_key(*parts: str) -> str:
    """A short name for what was cached, other whenever a part is other."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def drop_older(path: Path) -> None:
    """Remove the files that ``path``, called ``NAME-KEY.suffix``, replaces: NAME with other keys."""
    name = path.stem.rpartition("-")[0]
    for other in path.parent.glob(f"{name}-*{path.suffix}"):
        if other != path:
            other.unlink(missing_ok=True)


def _drop_unfinished(path: Path) -> None:
    """Remove what processes that were killed left of ``path``; only with its lock."""
    name = path.stem.rpartition("-")[0]
    for other in path.parent.glob(f".{name}-*.tmp{path.suffix}"):
        other.unlink(missing_ok=True)


def decoded_images(
    archive: Archive, listing: Listing, split: str, size: tuple[int, int], resize: Resize = "crop"
) -> Images:
    """The images of a split, decoded at the first call and memory-mapped from then on.

    The array is kept in :func:`cache_folder`; a changed archive or listing is decoded anew and
    replaces it. Of several processes one decodes, and the others wait for it. Where the array can't be
    written, the images are decoded into memory.

    Args:
        archive: where the files are.
        listing: which files, at least one, and their labels.
        split: a short name, for the cache and the progress bar.
        size: height and width in pixels.
        resize: how an image of another shape comes to that size.

    Returns:
        Images (N, 3, H, W), named as in the archive.

    Raises:
        InputError: an image can't be decoded, or the cache is damaged.
    """
    name = f"{split}-{_spelled(size, resize)}"
    path = _kept(archive, listing, name, ".npy")
    shape = (len(listing.files), 3, *size)

    def decoded() -> Iterator[np.ndarray]:
        for file in tqdm(listing.files, desc=f"decoding {split} images", unit="image"):
            yield decode(archive.read(file), size, resize, f"{file} in {archive.path}")

    if not path.exists():
        try:
            with locked(path.parent / name, f"decoding of {archive.path}"):
                if not path.exists():
                    _drop_unfinished(path)
                    _write(path, decoded(), shape)
                    drop_older(path)
        except OSError as error:
            if math.prod(shape) > memory_limit():
                raise InputError(
                    f"the decoded images can't be kept in {path} ({error}), and their "
                    f"{math.prod(shape)} bytes don't fit into the memory: make room there"
                ) from error
            rank_zero_warn(
                f"the decoded images could not be kept in {path} ({error}); every run decodes them again"
            )
            kind = np.dtype((np.uint8, shape[1:]))
            pixels = np.fromiter(decoded(), kind, count=shape[0])
            return _images(pixels, listing)
    pixels = _mapped(path)
    if pixels.dtype != np.uint8 or pixels.shape != shape:
        raise InputError(f"{path} is not the cache it should be: delete it, and it is made anew")
    return _images(pixels, listing)


def statistics_file(
    archive: Archive, listing: Listing, size: tuple[int, int], resize: Resize = "crop"
) -> Path:
    """Where mean and std of the images of :func:`decoded_images` are kept."""
    return _kept(archive, listing, f"mean_std-{_spelled(size, resize)}", ".json")


def _spelled(size: tuple[int, int], resize: Resize) -> str:
    # Cropped squares are called as they ever were, so that new ones replace those that older releases left.
    height, width = size
    side = f"{height}px" if height == width else f"{height}x{width}px"
    return side if resize == "crop" else f"{resize}-{side}"


def _kept(archive: Archive, listing: Listing, name: str, suffix: str) -> Path:
    key = cache_key(DECODING, archive.fingerprint, *listing.files)
    return cache_folder(archive.path) / f"{name}-{key}{suffix}"


def _images(pixels: np.ndarray, listing: Listing) -> Images:
    return Images(pixels, np.asarray(listing.labels, dtype=np.int64), listing.files)


def _write(path: Path, images: Iterator[np.ndarray], shape: tuple[int, ...]) -> None:
    # Written in sequence rather than through a memory map, where a full disk kills the process.
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for image in images:
            file.write(image.tobytes())


def cached_array(path: Path, make: Callable[[], np.ndarray], work: str) -> np.ndarray:
    """An array that is made at the first call and memory-mapped from then on.

    Of several processes one makes it, and the others wait for it. Where it can't be written, it is kept in
    memory.

    Args:
        path: where it is kept, called ``NAME-KEY.npy``; it replaces others of the same name.
        make: makes it.
        work: what other processes wait for, for their message.

    Raises:
        InputError: the file is damaged.
    """
    if not path.exists():
        try:
            with locked(path.parent / path.stem, work):
                if not path.exists():
                    _drop_unfinished(path)
                    made = make()
                    with atomic_path(path) as temporary:
                        np.save(temporary, made)
                    drop_older(path)
        except OSError as error:
            rank_zero_warn(f"{path} could not be written ({error}); every run makes it again")
            return make()
    return _mapped(path)


def _mapped(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    # Damage to its header raises many kinds of errors in NumPy.
    except Exception as error:
        raise InputError(f"{path} can't be read ({error}): delete it, and it is made anew") from error
