"""Random crop and horizontal flip."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vitlocal.protocol.base import Augmentation, check


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
        batch_size, channels, height, width = images.shape
        plan = self.draw(batch_size, generator)
        # Farther out than the image is long there is nothing but zeros.
        above, beside = min(self.padding, height), min(self.padding, width)
        padded = F.pad(images, (beside, beside, above, above))
        top = (plan.top - self.padding).clamp(-height, height) + above
        left = (plan.left - self.padding).clamp(-width, width) + beside
        # A row of a crop is a run of pixels in memory: its number is where it starts.
        rows = torch.arange(batch_size * channels).view(batch_size, channels, 1) * padded.shape[2]
        rows = rows + top.view(-1, 1, 1) + torch.arange(height)
        starts = (rows * padded.shape[3] + left.view(-1, 1, 1)).to(images.device, non_blocking=True)
        runs = padded.flatten().unfold(0, width, 1)
        crops = runs.index_select(0, starts.flatten()).view(images.shape)
        mirrored = plan.flip.nonzero().flatten().to(images.device, non_blocking=True)
        batch["image"] = crops.index_copy_(0, mirrored, crops.index_select(0, mirrored).flip(3))
