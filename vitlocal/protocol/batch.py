"""Batches of any Lightning project: where images and labels are in them, and how others take their place."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vitlocal.errors import InputError

IMAGES = ("image", "images", "pixel_values", "img", "x")
CHANNELS = (1, 3)
LABELS = ("target", "targets", "label", "labels", "y")


def places(batch: Any) -> tuple[Any, Any]:
    """Key or position of the images and of the labels in a batch; None for labels that it has not.

    Of a mapping the first of the names ``IMAGES`` and ``LABELS``; of a tuple or list the first two items.

    Raises:
        InputError: no images are found.
    """
    images: Any = None
    labels: Any = None
    if isinstance(batch, dict):
        images, labels = (next((name for name in names if name in batch), None) for names in (IMAGES, LABELS))
    elif isinstance(batch, tuple | list):
        images, labels = (place if place < len(batch) else None for place in (0, 1))
    if images is None:
        raise InputError(
            f"the batch ({_shown(batch)}) has no images to augment: give (images, labels), or a mapping with "
            f"one of {', '.join(IMAGES)} and one of {', '.join(LABELS)}"
        )
    return images, labels


def replaced(batch: Any, changed: dict[Any, Tensor | None]) -> Any:
    """The batch with other tensors in some places: itself where it can be changed, else a new one.

    Args:
        batch: a dict, list or tuple.
        changed: by key or position, as :func:`places` gives them; None, for missing labels, is no place.
    """
    if isinstance(batch, dict | list):
        for place, tensor in changed.items():
            if place is not None:
                batch[place] = tensor
        return batch
    items = [changed.get(place, item) for place, item in enumerate(batch)]
    return type(batch)(*items) if hasattr(batch, "_fields") else type(batch)(items)


def check_images(images: Any, component: object) -> None:
    """Refuse what is no batch of images.

    Raises:
        InputError: if it is not uint8 or floating point, (B, C, H, W), or is empty, or has its channels last.
    """
    fits = isinstance(images, Tensor) and (images.dtype == torch.uint8 or images.is_floating_point())
    if not fits or images.ndim != 4 or not images.numel():
        raise InputError(
            f"{type(component).__name__}: images are {_shown(images)}, but they must be a tensor "
            "(B, C, H, W) of uint8 or of floats in 0..1"
        )
    if images.shape[1] not in CHANNELS and images.shape[3] in CHANNELS:
        raise InputError(
            f"{type(component).__name__}: images are {_shown(images)}, which has its channels last: give "
            "(B, C, H, W), as images.permute(0, 3, 1, 2)"
        )


def probabilities(labels: Any, batch_size: int, num_classes: int | None, component: object) -> Tensor:
    """Labels as class probabilities, float32 (B, K).

    Args:
        labels: whole numbers (B,) below ``num_classes``, or already probabilities (B, K), K above 1 and
            ``num_classes`` where that is given.
        batch_size: B.
        num_classes: K.
        component: what needs them.

    Raises:
        InputError: if they are neither, or ``num_classes`` is missing or too small.
    """
    name = type(component).__name__
    tensor = isinstance(labels, Tensor) and labels.ndim in (1, 2) and len(labels) == batch_size
    whole = tensor and not labels.is_floating_point() and not labels.is_complex()
    if (
        not tensor
        or (labels.ndim == 1 and (not whole or labels.dtype == torch.bool))
        or labels.shape[1:] == (1,)
    ):
        raise InputError(
            f"{name}: labels are {_shown(labels)}: give class numbers ({batch_size},) or probabilities "
            f"({batch_size}, K), class numbers of an integer type"
        )
    if labels.ndim == 2:
        if num_classes not in (None, labels.shape[1]):
            raise InputError(
                f"{name}: labels are {_shown(labels)}, but num_classes is {num_classes}: give "
                f"({batch_size}, {num_classes})"
            )
        found = labels.float()
        least, most = (end.item() for end in found.aminmax())
        if not 0 <= least <= most <= 1:
            raise InputError(
                f"{name}: labels {_shown(labels)} go from {least:.3g} to {most:.3g}, but probabilities must "
                f"be in 0..1: give those, or class numbers ({batch_size},)"
            )
        return found
    if num_classes is None:
        raise InputError(
            f"{name}: labels are class numbers, of which it mixes probabilities: give num_classes"
        )
    least, most = (int(end) for end in labels.aminmax())
    if least < 0 or most >= num_classes:
        raise InputError(f"{name}: labels go from {least} to {most}, but num_classes is {num_classes}")
    return F.one_hot(labels.long(), num_classes).float()


def levels(images: Tensor, component: object) -> Tensor:
    """Images as uint8: themselves, or floats in 0..1 to the nearest of 256 levels.

    Raises:
        InputError: if there are not 1 or 3 channels, or floats are not in 0..1, as those of normalised images
            are not.
    """
    if images.shape[1] not in CHANNELS:
        raise InputError(
            f"{type(component).__name__}: images are {_shown(images)}, but it changes colours: give 1 "
            "channel, or 3"
        )
    if images.dtype == torch.uint8:
        return images
    least, most = (float(end) for end in images.aminmax())
    if not 0 <= least <= most <= 1:
        raise InputError(
            f"{type(component).__name__}: images are floats from {least:.3g} to {most:.3g}, but they must be "
            "in 0..1: augment before they are normalised"
        )
    return (images.float() * 255).round_().to(torch.uint8)


def of_levels(found: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 images as ``dtype``, the opposite of :func:`levels`."""
    return found if dtype == torch.uint8 else (found / 255).to(dtype)


def _shown(given: object) -> str:
    if isinstance(given, Tensor):
        return f"{str(given.dtype).removeprefix('torch.')} {tuple(given.shape)}"
    if isinstance(given, dict):
        return f"a mapping of {', '.join(map(str, given)) or 'nothing'}"
    return "missing" if given is None else f"a {type(given).__name__}"
