"""Random brightness, contrast, saturation and hue."""

from typing import NamedTuple

import torch
from torch import Tensor

from vitlocal.protocol import operations
from vitlocal.protocol.base import Augmentation, apply_each, check
from vitlocal.protocol.batch import levels, of_levels

_OPERATIONS = (
    operations.adjust_brightness,
    operations.adjust_contrast,
    operations.adjust_saturation,
    operations.adjust_hue,
)


class ColorJitterPlan(NamedTuple):
    """What happens to each image.

    Attributes:
        order: int64 (B, 4), the operations in the order they are applied:
            0 brightness, 1 contrast, 2 saturation, 3 hue.
        factor: float64 (B, 4), the factor of brightness, contrast, saturation and hue.
    """

    order: Tensor
    factor: Tensor


class ColorJitter(Augmentation):
    """Each image: brightness, contrast, saturation and hue by random factors, in random order.

    The same as torchvision's ``v2.ColorJitter``, an image at a time, with its pixels. A strength of 0
    leaves that operation out; saturation and hue leave grey images as they are.

    Args:
        brightness: b: the factor is uniform between max(0, 1 - b) and 1 + b.
        contrast: the same for contrast.
        saturation: the same for saturation.
        hue: h: the hue turns by a part of the circle uniform between -h and h; 0 to 0.5.

    Raises:
        InputError: if a strength is negative or infinite, or ``hue`` is above 0.5.
    """

    def __init__(
        self, brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4, hue: float = 0.1
    ) -> None:
        for name, strength in (
            ("brightness", brightness),
            ("contrast", contrast),
            ("saturation", saturation),
        ):
            check(0 <= strength < float("inf"), self, name, strength, "a number of 0 or more")
        check(0 <= hue <= 0.5, self, "hue", hue, "from 0 to 0.5")
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.hue = hue

    def draw(self, batch_size: int, generator: torch.Generator) -> ColorJitterPlan:
        """Draw what happens to each of ``batch_size`` images."""
        strength = torch.tensor(
            [self.brightness, self.contrast, self.saturation, self.hue], dtype=torch.float64
        )
        centre = torch.tensor([1, 1, 1, 0], dtype=torch.float64)
        low = centre - strength
        low[:3].clamp_(min=0)
        high = centre + strength
        order = torch.rand(batch_size, 4, generator=generator).argsort(dim=1)
        uniform = torch.rand(batch_size, 4, generator=generator, dtype=torch.float64)
        return ColorJitterPlan(order, low + (high - low) * uniform)

    def apply(self, batch: dict[str, Tensor], generator: torch.Generator) -> None:
        """Change ``batch["image"]``; see :meth:`Augmentation.apply`."""
        images = levels(batch["image"], self)
        plan = self.draw(len(images), generator)
        strengths = (self.brightness, self.contrast, self.saturation, self.hue)
        changes = torch.tensor([strength > 0 for strength in strengths])
        for turn in plan.order.unbind(1):
            which = torch.where(changes[turn], turn, -1)
            factor = plan.factor.gather(1, turn.unsqueeze(1)).squeeze(1)
            images = apply_each(images, which, _OPERATIONS, factor)
        batch["image"] = of_levels(images, batch["image"].dtype)
