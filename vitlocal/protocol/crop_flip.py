"""Random crop and horizontal flip."""

from typing import NamedTuple

import torch
from torch import Tensor

from vitlocal.protocol.base import Augmentation, check
from vitlocal.protocol.geometry import gather_pixels


class CropFlipPlan(NamedTuple):
    """What happens to each image.

    Attributes:
        top: int64 (B,), first row of the crop in the padded image.
        left: int64 (B,), first column of the crop in the padded image.
        flip: bool (B,), whether the crop is mirrored left to right.
    """

    top: Tensor
    left: Tensor
    flip: Tensor


class CropFlip(Augmentation):
    """Each image: padded with zeros, cropped to its size at random, mirrored with probability 1/2.

    The same as torchvision's ``RandomCrop(size, padding)`` then ``RandomHorizontalFlip()``, an image
    at a time.

    Args:
        padding: zeros added on each side before the crop, in pixels; 0 for no crop.
        flip: whether to mirror left to right.

    Raises:
        InputError: if ``padding`` is negative or above 65535.
    """

    def __init__(self, padding: int = 4, flip: bool = True) -> None:
        check(0 <= padding < 2**16, self, "padding", padding, "from 0 to 65535")
        self.padding = padding
        self.flip = flip

    def draw(self, batch_size: int, generator: torch.Generator) -> CropFlipPlan:
        """Draw what happens to each of ``batch_size`` images."""
        top, left = torch.randint(2 * self.padding + 1, (2, batch_size), generator=generator)
        flip = torch.rand(batch_size, generator=generator) < 0.5
        return CropFlipPlan(top, left, flip & self.flip)

    def apply(self, batch: dict[str, Tensor], generator: torch.Generator) -> None:
        """Change ``batch["image"]``; see :meth:`Augmentation.apply`."""
        images = batch["image"]
        height, width = images.shape[-2:]
        plan = self.draw(len(images), generator)
        top, left, flip = torch.stack(plan).unsqueeze(-1).to(images.device, non_blocking=True)
        columns = torch.arange(width, device=images.device)
        rows = torch.arange(height, device=images.device) + top - self.padding  # (B, H)
        columns = torch.where(flip.bool(), width - 1 - columns, columns) + left - self.padding  # (B, W)
        rows_inside = (rows >= 0) & (rows < height)
        columns_inside = (columns >= 0) & (columns < width)
        source = (rows * width).unsqueeze(2) + columns.unsqueeze(1) + 1
        source *= rows_inside.unsqueeze(2) & columns_inside.unsqueeze(1)
        batch["image"] = gather_pixels(images, source.flatten(1))
