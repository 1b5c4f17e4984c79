"""What the commands of this room read: a trained network, and the images of its data set."""

import json
from collections.abc import Iterator, Sequence
from importlib import import_module

import torch
from torch import Tensor

from vitlocal.data import BatchDataset, ImageDataModule
from vitlocal.errors import InputError
from vitlocal.models.subject import Subject
from vitlocal.runs import Run
from vitlocal.runs.datasets import make_data

Batch = dict[str, Tensor]


def need(what: str, *modules: str) -> None:
    """Refuse where a package is missing.

    Args:
        what: needs it, for people.
        modules: of the packages.

    Raises:
        InputError: one can't be imported.
    """
    for module in modules:
        try:
            import_module(module)
        except ImportError as error:
            raise InputError(f"{what} needs {module} ({error}): pip install 'vitlocal[compress]'") from error


def data_of(subject: Subject, run: Run, given: ImageDataModule | str | None) -> ImageDataModule:
    """The data set that is given, else the run's, read and checked against the network.

    Args:
        subject: the network.
        run: that it is of.
        given: data set, or what says which; see :func:`vitlocal.runs.datasets.make_data`.

    Raises:
        InputError: none is known, it is missing or wrong, or its images are not such as the network takes.
    """
    if given is None:
        data = run.load_data()
    else:
        data = given if isinstance(given, ImageDataModule) else make_data(given)
    data.prepare_data()
    data.setup()
    facts = {
        "image_size": (subject.image_size, data.image_size),
        "in_channels": (len(subject.mean), data.in_channels),
        "num_classes": (run.hyperparameters["num_classes"], data.num_classes),
        "multilabel": (bool(run.hyperparameters.get("multilabel")), data.multilabel),
    }
    for fact, (own, its) in facts.items():
        if own != its:
            raise InputError(
                f"the model has {fact} {own} but the data set {data.name} has {its}: "
                "give the data set that the model was trained on"
            )
    return data


def onnx_metadata(run: Run) -> dict[str, str]:
    """What somebody who has the ONNX file alone has to know of its input and output, as JSON.

    Raises:
        InputError: the checkpoint can't be read.
    """
    facts = run.hyperparameters
    known = (name for name in ("class_names", "resize", "multilabel") if facts.get(name) is not None)
    return {name: json.dumps(facts[name]) for name in known}


def training_batches(data: ImageDataModule, count: int, size: int, seed: int) -> list[Tensor]:
    """Un-augmented training images, chosen by ``seed``, none twice: ``count`` batches uint8 (B, C, H, W).

    Raises:
        InputError: there are fewer training images.
    """
    images = _images(data, "train")
    if len(images) < count * size:
        raise InputError(
            f"the data set {data.name} has {len(images)} training images, fewer than {count} batches of "
            f"{size}: give a smaller calibration_batches or batch_size"
        )
    return [batch["image"] for batch in chosen_training_batches(data, size, seed, count * size)]


def chosen_training_batches(data: ImageDataModule, size: int, seed: int, most: int) -> list[Batch]:
    """Un-augmented training images, chosen by ``seed``, none twice, with their labels: at most ``most``."""
    images = _images(data, "train")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    return [images.__getitems__(part.tolist()) for part in order[:most].split(size)]


def validation_batches(data: ImageDataModule, size: int, most: int | None = None) -> Iterator[Batch]:
    """Validation images in batches: all in their order, or ``most`` of them, spread evenly."""
    images = _images(data, "val")
    total = len(images)
    count = total if most is None else min(most, total)
    positions: Sequence[int] = [number * total // count for number in range(count)]
    for first in range(0, count, size):
        yield images.__getitems__(positions[first : first + size])


def _images(data: ImageDataModule, split: str) -> BatchDataset:
    loader = data.train_dataloader() if split == "train" else data.val_dataloader()
    assert isinstance(loader.dataset, BatchDataset)
    return loader.dataset
