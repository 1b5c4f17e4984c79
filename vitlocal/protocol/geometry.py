"""Geometric operations on batches: each output pixel is looked up in its image, or is 0.

With nearest interpolation a shear, a translation and a rotation only move pixels. Where each comes
from depends on the magnitude and the image's size alone, and AutoAugment has few magnitudes. So
torchvision's own operation is run once for each on a picture whose values are its pixels' numbers,
and its answer is the map for every image: torchvision's pixels by construction.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as tv


def gather_pixels(images: Tensor, source: Tensor) -> Tensor:
    """Build each image from pixels of its own.

    Args:
        images: (n, C, H, W).
        source: int64 (n, H * W): 1 + the flat index of the pixel to take, 0 for a zero.
    """
    with_zero = F.pad(images.flatten(2), (1, 0))
    return with_zero.gather(2, source.unsqueeze(1).expand(-1, images.shape[1], -1)).view(images.shape)


def shear_x(images: Tensor, magnitude: Tensor) -> Tensor:
    """Shift each row by ``magnitude`` times its distance from the top; zeros come in.

    Args:
        images: uint8 (n, C, H, W).
        magnitude: (n,), on the CPU, with few distinct values: a map is kept for each. The same for all below.
    """
    return _warp(_shear_x, images, magnitude)


def shear_y(images: Tensor, magnitude: Tensor) -> Tensor:
    """Shift each column by ``magnitude`` times its distance from the left; zeros come in."""
    return _warp(_shear_y, images, magnitude)


def translate_x(images: Tensor, magnitude: Tensor) -> Tensor:
    """Shift to the right by the whole part of ``magnitude`` pixels; zeros come in."""
    return _warp(_translate_x, images, magnitude)


def translate_y(images: Tensor, magnitude: Tensor) -> Tensor:
    """Shift down by the whole part of ``magnitude`` pixels; zeros come in."""
    return _warp(_translate_y, images, magnitude)


def rotate(images: Tensor, magnitude: Tensor) -> Tensor:
    """Rotate counter-clockwise about the centre by ``magnitude`` degrees; zeros come in."""
    return _warp(tv.rotate, images, magnitude)


def _shear_x(image: Tensor, magnitude: float) -> Tensor:
    degrees = math.degrees(math.atan(magnitude))
    return tv.affine(image, angle=0.0, translate=[0, 0], scale=1.0, shear=[degrees, 0.0], center=[0, 0])


def _shear_y(image: Tensor, magnitude: float) -> Tensor:
    degrees = math.degrees(math.atan(magnitude))
    return tv.affine(image, angle=0.0, translate=[0, 0], scale=1.0, shear=[0.0, degrees], center=[0, 0])


def _translate_x(image: Tensor, magnitude: float) -> Tensor:
    return tv.affine(image, angle=0.0, translate=[int(magnitude), 0], scale=1.0, shear=[0.0, 0.0])


def _translate_y(image: Tensor, magnitude: float) -> Tensor:
    return tv.affine(image, angle=0.0, translate=[0, int(magnitude)], scale=1.0, shear=[0.0, 0.0])


def _warp(operation: Callable[[Tensor, float], Tensor], images: Tensor, magnitude: Tensor) -> Tensor:
    distinct, which = magnitude.unique(return_inverse=True)
    height, width = images.shape[-2:]
    maps = torch.stack([_source(operation, m, height, width, images.device) for m in distinct.tolist()])
    return gather_pixels(images, maps[which.to(images.device, non_blocking=True)])


@lru_cache(maxsize=256)  # more than the 100 maps of AutoAugment's operations on one image size
def _source(
    operation: Callable[[Tensor, float], Tensor],
    magnitude: float,
    height: int,
    width: int,
    device: torch.device,
) -> Tensor:
    """Where ``operation`` takes each pixel from, int64 (H * W,), as :func:`gather_pixels` wants it.

    Made on the CPU, so that every device moves the same pixels. float32 counts exactly to 2^24.
    """
    numbers = torch.arange(1, height * width + 1, dtype=torch.float32).view(1, height, width)
    return operation(numbers, magnitude).flatten().long().to(device)
