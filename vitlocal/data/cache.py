"""Image files decoded once to one array on disk."""

import hashlib
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from PIL import Image
from torchvision.transforms.v2 import functional as TF
from tqdm import tqdm  # type: ignore[import-untyped]

from vitlocal.data.archive import Archive
from vitlocal.data.dataset import Images
from vitlocal.data.lock import locked
from vitlocal.errors import InputError
from vitlocal.files import atomic_path

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
"""What Pillow may decode, whatever a file is called: some of its other readers start programs."""


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


def decode(content: bytes, size: int, name: str) -> np.ndarray:
    """Read an image file as a square RGB image.

    The shorter side is resized to ``size`` (bilinear, antialiased) and the centre cut out; an image
    that is ``size`` on both sides stays as it is.

    Args:
        content: the file.
        size: pixels a side of the result.
        name: the file's name, for messages.

    Returns:
        uint8 (3, size, size).

    Raises:
        InputError: the file can't be decoded, has more than 8 bits a channel or far too many pixels.
    """
    try:
        # Pillow only warns of an image with more pixels than its limit, and refuses at twice as many.
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                _check_shape(image.size, size, name)
                image.load()
                if image.mode.startswith(("I", "F")):
                    raise InputError(f"{name} has more than 8 bits a channel: convert it to an 8-bit image")
                rgb = image.convert("RGB")
        square = TF.center_crop(TF.resize(rgb, [size], TF.InterpolationMode.BILINEAR), [size])
    except InputError:
        raise
    # Pillow's readers raise many kinds of errors on damaged files.
    except Exception as error:
        said = re.sub(r" *<_io\.BytesIO[^>]*>", "", str(error))  # what Pillow calls the file
        raise InputError(f"{name} can't be decoded ({said}): replace or remove it") from error
    return np.asarray(square).transpose(2, 0, 1)


def _check_shape(shape: tuple[int, int], size: int, name: str) -> None:
    """Refuse an image so long that it would be huge once its shorter side is ``size``."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and size * size * max(shape) > limit * min(shape):
        raise InputError(
            f"{name} is {shape[0]}x{shape[1]}, too long to resize its shorter side to {size}: "
            "crop it, or remove it"
        )


def decoded_images(archive: Archive, listing: Listing, split: str, size: int) -> Images:
    """The images of a split, decoded at the first call and memory-mapped from then on.

    The array is kept in :func:`cache_folder`; a changed archive or listing is decoded anew and
    replaces it. Of several processes one decodes, and the others wait for it. Where the array can't be
    written, the images are decoded into memory.

    Args:
        archive: where the files are.
        listing: which files, at least one, and their labels.
        split: a short name, for the cache and the progress bar.
        size: pixels a side.

    Returns:
        Images (N, 3, size, size), named as in the archive.

    Raises:
        InputError: an image can't be decoded, or the cache is damaged.
    """
    path = _kept(archive, listing, f"{split}-{size}px", ".npy")
    shape = (len(listing.files), 3, size, size)
    if not path.exists():
        try:
            with locked(path.parent / f"{split}-{size}px", f"decoding of {archive.path}"):
                if not path.exists():
                    _drop_unfinished(path)
                    _write(path, _decode_all(archive, listing, split, size), shape)
                    drop_older(path)
        except OSError as error:
            rank_zero_warn(
                f"the decoded images could not be kept in {path} ({error}); every run decodes them again"
            )
            kind = np.dtype((np.uint8, shape[1:]))
            pixels = np.fromiter(_decode_all(archive, listing, split, size), kind, count=shape[0])
            return _images(pixels, listing)
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    # Damage to its header raises many kinds of errors in NumPy.
    except Exception as error:
        raise InputError(f"{path} can't be read ({error}): delete it, and it is made anew") from error
    if pixels.dtype != np.uint8 or pixels.shape != shape:
        raise InputError(f"{path} is not the cache it should be: delete it, and it is made anew")
    return _images(pixels, listing)


def statistics_file(archive: Archive, listing: Listing, size: int) -> Path:
    """Where mean and std of the images of :func:`decoded_images` are kept."""
    return _kept(archive, listing, f"mean_std-{size}px", ".json")


def _kept(archive: Archive, listing: Listing, name: str, suffix: str) -> Path:
    key = cache_key(archive.fingerprint, *listing.files)
    return cache_folder(archive.path) / f"{name}-{key}{suffix}"


def _images(pixels: np.ndarray, listing: Listing) -> Images:
    return Images(pixels, np.asarray(listing.labels, dtype=np.int64), listing.files)


def _decode_all(archive: Archive, listing: Listing, split: str, size: int) -> Iterator[np.ndarray]:
    for name in tqdm(listing.files, desc=f"decoding {split} images", unit="image"):
        yield decode(archive.read(name), size, f"{name} in {archive.path}")


def _write(path: Path, images: Iterator[np.ndarray], shape: tuple[int, ...]) -> None:
    # Written in sequence rather than through a memory map, where a full disk kills the process.
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for image in images:
            file.write(image.tobytes())
