"""AutoAugment (Cubuk et al. 2019, arXiv 1805.09501), a sub-policy an image."""

from collections.abc import Callable
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torchvision.transforms import AutoAugment as TorchvisionAutoAugment
from torchvision.transforms import AutoAugmentPolicy
from torchvision.transforms.v2 import functional as tv

from vitlocal.protocol import geometry, operations
from vitlocal.protocol.base import Augmentation, apply_each, check
from vitlocal.protocol.batch import levels, of_levels

Policy = Literal["cifar10", "imagenet", "svhn"]
"""The data set that AutoAugment's policy was searched on."""

# AutoAugment's names. Each takes images and their magnitudes, as `magnitude_table` gives them.
OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ShearX": geometry.shear_x,
    "ShearY": geometry.shear_y,
    "TranslateX": geometry.translate_x,
    "TranslateY": geometry.translate_y,
    "Rotate": geometry.rotate,
    "Brightness": lambda images, magnitude: operations.adjust_brightness(images, 1 + magnitude),
    "Color": lambda images, magnitude: operations.adjust_saturation(images, 1 + magnitude),
    "Contrast": lambda images, magnitude: operations.adjust_contrast(images, 1 + magnitude),
    "Sharpness": lambda images, magnitude: operations.adjust_sharpness(images, 1 + magnitude),
    "Posterize": operations.posterize,
    "Solarize": lambda images, magnitude: operations.solarize(images, 255 * magnitude),
    "AutoContrast": lambda images, _: tv.autocontrast(images),
    "Equalize": lambda images, _: tv.equalize(images),
    "Invert": lambda images, _: tv.invert(images),
}
# The greatest magnitude of the operations that go both ways, on images of (height, width).
_GREATEST: dict[str, Callable[[int, int], float]] = {
    "ShearX": lambda height, width: 0.3,
    "ShearY": lambda height, width: 0.3,
    "TranslateX": lambda height, width: 150 / 331 * width,
    "TranslateY": lambda height, width: 150 / 331 * height,
    "Rotate": lambda height, width: 30.0,
    "Brightness": lambda height, width: 0.9,
    "Color": lambda height, width: 0.9,
    "Contrast": lambda height, width: 0.9,
    "Sharpness": lambda height, width: 0.9,
}
_BOTH_WAYS = torch.tensor([name in _GREATEST for name in OPERATIONS])


@lru_cache(maxsize=8)
def magnitude_table(height: int, width: int) -> Tensor:
    """Return the ten magnitudes of each of ``OPERATIONS`` on images of this size, float64 (14, 10).

    Those of torchvision's v2 AutoAugment. Translations are in pixels, rotations in degrees,
    posterize in bits, solarize in parts of 255; an operation without a magnitude has zeros.
    """
    # In float32 first, as torchvision's are: the last bits decide some pixels.
    table = {name: torch.linspace(0, greatest(height, width), 10) for name, greatest in _GREATEST.items()}
    table["Posterize"] = (8 - torch.arange(10) / 2.25).round()
    table["Solarize"] = torch.linspace(1, 0, 10)
    return torch.stack([table.get(name, torch.zeros(10)) for name in OPERATIONS]).double()


class AutoAugmentPlan(NamedTuple):
    """What happens to each image, in two steps.

    Attributes:
        sub_policy: int64 (B,), which pair of operations of the policy.
        applied: bool (B, 2), whether each of the two is applied.
        sign: float64 (B, 2), -1 or 1, for operations that go both ways.
    """

    sub_policy: Tensor
    applied: Tensor
    sign: Tensor


class AutoAugment(Augmentation):
    """Each image: one of the policy's 25 sub-policies, its two operations each with its probability.

    Policies, magnitudes and pixels are those of torchvision's ``v2.AutoAugment`` with nearest
    interpolation and zeros outside; torchvision draws one sub-policy for all the images of a
    batch, this one for each. It works in 256 levels, to which floats in 0..1 are rounded.

    Args:
        policy: the data set that the policy was learned on.

    Raises:
        InputError: if there is no such policy.
    """

    def __init__(self, policy: Policy = "cifar10") -> None:
        check(policy in get_args(Policy), self, "policy", policy, f"one of {', '.join(get_args(Policy))}")
        self.policy = policy
        # 25 pairs of (name, probability, magnitude 0..9 or None)
        self.sub_policies = TorchvisionAutoAugment(AutoAugmentPolicy(policy)).policies
        names = list(OPERATIONS)
        self._operation = torch.tensor(
            [[names.index(name) for name, _, _ in pair] for pair in self.sub_policies]
        )
        self._probability = torch.tensor([[p for _, p, _ in pair] for pair in self.sub_policies])
        self._level = torch.tensor([[level or 0 for _, _, level in pair] for pair in self.sub_policies])

    def draw(self, batch_size: int, generator: torch.Generator) -> AutoAugmentPlan:
        """Draw what happens to each of ``batch_size`` images."""
        sub_policy = torch.randint(len(self.sub_policies), (batch_size,), generator=generator)
        applied = torch.rand(batch_size, 2, generator=generator) < self._probability[sub_policy]
        sign = torch.randint(2, (batch_size, 2), generator=generator).double() * 2 - 1
        return AutoAugmentPlan(sub_policy, applied, sign)

    def apply(self, batch: dict[str, Tensor], generator: torch.Generator) -> None:
        """Change ``batch["image"]``; see :meth:`Augmentation.apply`."""
        images = levels(batch["image"], self)
        plan = self.draw(len(images), generator)
        table = magnitude_table(*images.shape[-2:])
        for step in range(2):
            operation = self._operation[plan.sub_policy, step]
            magnitude = table[operation, self._level[plan.sub_policy, step]]
            signed = torch.where(_BOTH_WAYS[operation], magnitude * plan.sign[:, step], magnitude)
            which = torch.where(plan.applied[:, step], operation, -1)
            images = apply_each(images, which, list(OPERATIONS.values()), signed)
        batch["image"] = of_levels(images, batch["image"].dtype)
