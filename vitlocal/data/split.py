"""Holding out a part of labelled images."""

import math
from collections.abc import Sequence

import numpy as np

from vitlocal.errors import InputError


def stratified_split(
    labels: np.ndarray, fraction: float, seed: int, class_names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Divide images so that every class is divided in the same proportion.

    ``ceil(fraction * N)`` images are held out. Each class gives its share, rounded down; the images
    that are still lacking come one each from the classes whose shares were cut most.

    Args:
        labels: int64 (N,), classes from 0, every class at least once.
        fraction: share to hold out, above 0 and below 1.
        seed: which images of a class are held out, 0 to 2**32 - 1.
        class_names: one name a class, for messages.

    Returns:
        Positions kept and positions held out, each int64 and ascending.

    Raises:
        InputError: a class would have no image on one of the two sides.
    """
    counts = np.bincount(labels, minlength=len(class_names))
    shares = fraction * counts
    # 1e-9: 0.07 * 100 is a little above 7 in floating point, but 7 images are meant.
    sizes = np.floor(shares + 1e-9).astype(np.int64)
    lacking = math.ceil(fraction * len(labels) - 1e-9) - int(sizes.sum())
    sizes[np.argsort(sizes - shares, kind="stable")[:lacking]] += 1
    for name, size, count in zip(class_names, sizes, counts, strict=True):
        if size in (0, count):
            side, change = ("validation", "larger") if size == 0 else ("training", "smaller")
            raise InputError(
                f"val_fraction={fraction} leaves class '{name}' ({count} images) without a {side} image: "
                f"choose a {change} val_fraction, or give more images of that class"
            )
    # RandomState: its streams are frozen, so a seed means the same images under every NumPy.
    random = np.random.RandomState(seed)
    held_out = np.zeros(len(labels), dtype=bool)
    for label, size in enumerate(sizes):
        held_out[random.permutation(np.flatnonzero(labels == label))[:size]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def multilabel_split(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide images that have several labels each so that every label is divided in nearly one proportion.

    Iterative stratification (Sechidis et al. 2011, algorithm 1): the images of the label that fewest of
    the images still to be dealt out have go, one by one in random order, to the side that lacks most of that
    label, then most images.

    Args:
        labels: 0 or 1, (N, K).
        fraction: share to hold out, above 0 and below 1.
        seed: which images are held out, 0 to 2**32 - 1.

    Returns:
        Positions kept and positions held out, each int64 and ascending.
    """
    shares = np.array([1 - fraction, fraction])
    lacking = shares[:, None] * labels.sum(axis=0)  # of each side and label
    room = shares * len(labels)
    side = np.full(len(labels), -1)
    # RandomState: as in stratified_split.
    order = np.random.RandomState(seed).permutation(len(labels))

    def deal(image: int, wanted: np.ndarray) -> None:
        chosen = int(wanted[1] > wanted[0] or (wanted[1] == wanted[0] and room[1] > room[0]))
        side[image] = chosen
        lacking[chosen] -= labels[image]
        room[chosen] -= 1

    left = labels.sum(axis=0)
    while left.any():
        label = int(np.where(left > 0, left, len(labels) + 1).argmin())
        for image in order[(labels[order, label] == 1) & (side[order] < 0)]:
            deal(image, lacking[:, label])
        left = labels[side < 0].sum(axis=0)
    for image in order[side[order] < 0]:  # without any label
        deal(image, room)
    return np.flatnonzero(side == 0), np.flatnonzero(side == 1)
