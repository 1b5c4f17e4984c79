"""Mean and standard deviation of each channel."""

import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from vitlocal.data.cache import drop_older
from vitlocal.files import atomic_path

VALUES_A_CHUNK = 2**22
"""Pixel values counted at once; bounds the memory (8 bytes each) on memory-mapped images."""


class Statistics(NamedTuple):
    """Of each channel, on the 0..1 scale."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def channel_statistics(images: np.ndarray) -> Statistics:
    """Exact mean and population standard deviation of 8-bit images, read once, chunk by chunk.

    Args:
        images: uint8 (N, C, H, W), also a memory map.

    Returns:
        Mean and std on the 0..1 scale; the std of a constant channel is given as 1, so that it
        can be divided by.
    """
    channels = images.shape[1]
    counts = np.zeros((channels, 256), dtype=np.int64)
    step = max(1, VALUES_A_CHUNK // images[0].size)
    for start in range(0, len(images), step):
        chunk = images[start : start + step]
        for channel in range(channels):
            counts[channel] += np.bincount(chunk[:, channel].ravel(), minlength=256)
    values = np.arange(256) / 255
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1))
    std[(counts > 0).sum(axis=1) == 1] = 1.0
    return Statistics(tuple(mean.tolist()), tuple(std.tolist()))


def cached_statistics(images: np.ndarray, path: Path) -> Statistics:
    """:func:`channel_statistics`, kept in a small JSON file.

    Args:
        images: uint8 (N, C, H, W).
        path: the file, ``NAME-KEY.json``, where KEY changes with the images. Files of NAME with
            other keys are removed. Where it can't be written, nothing is kept.
    """
    channels = images.shape[1]
    try:
        kept = json.loads(path.read_text())
        statistics = Statistics(tuple(map(float, kept["mean"])), tuple(map(float, kept["std"])))
        sane = all(map(math.isfinite, statistics.mean)) and all(0 < std < 1e9 for std in statistics.std)
        if sane and len(statistics.mean) == len(statistics.std) == channels:
            return statistics
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        pass  # not there yet, or damaged: it is made anew
    statistics = channel_statistics(images)
    try:
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(statistics._asdict()))
        drop_older(path)
    except OSError as error:
        rank_zero_warn(f"mean and std could not be kept in {path} ({error}); every run computes them again")
    return statistics
