"""The images that a network is inspected on, one by one under a progress bar, with a name for people."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from vitlocal.data import ImageDataModule, Resize
from vitlocal.data.decode import decode
from vitlocal.data.listing import image_files
from vitlocal.errors import InputError

SEED = 0  # as in LocalityMonitor, which so chooses the same images

NamedImages = Iterator[tuple[str, Tensor]]
"""Names, and uint8 images (C, H, W)."""


def chosen(total: int, count: int) -> list[int]:
    """At most ``count`` positions below ``total``, at random but always the same, ascending."""
    order = torch.randperm(total, generator=torch.Generator().manual_seed(SEED))
    return sorted(order[:count].tolist())


def _progress(positions: list[int]) -> Iterable[int]:
    return tqdm(positions, desc="inspecting", unit="image", disable=None)


def of_data(data: ImageDataModule, count: int) -> NamedImages:
    """At most ``count`` validation images of a data set.

    Raises:
        InputError: the data are missing or wrong.
    """
    data.prepare_data()
    data.setup()
    dataset = data.val_dataloader().dataset
    for position in _progress(chosen(len(dataset), count)):  # type: ignore[arg-type]
        item = dataset[position]
        yield f"image {item['index'].item()} of {data.name}", item["image"]


def of_folder(folder: Path, size: tuple[int, int], resize: Resize, count: int) -> NamedImages:
    """At most ``count`` images in a folder and the folders below.

    A file that can't be decoded is named on stderr and left out.

    Args:
        folder: with JPEG, PNG, PPM, BMP, PGM, TIFF or WebP files.
        size: height and width that they are brought to.
        resize: in which way, as in training.
        count: how many.

    Raises:
        InputError: there is no such folder, or no image in it that can be decoded.
    """
    files = image_files(folder)
    wrong = 0
    positions = chosen(len(files), count)
    for name in (files[position] for position in _progress(positions)):
        path = folder / name
        try:
            image = torch.from_numpy(decode(path.read_bytes(), size, resize, str(path)).copy())
        except OSError as error:
            sentence = f"{path} can't be read ({error.strerror}): make it readable or remove it"
        except InputError as error:
            sentence = str(error)
        else:
            yield name, image
            continue
        wrong += 1
        tqdm.write(f"vitlocal: left out: {sentence}", file=sys.stderr)
    if wrong == len(positions):
        raise InputError(f"images {folder}: there is no image in it that can be decoded; give another folder")
