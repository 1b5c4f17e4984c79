"""CutMix, MixUp and Cutout."""

from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from vitlocal.protocol.base import Augmentation, check

Box = Literal["image", "batch"]
"""Whether each image has a box of its own, or a batch has one."""


class MixUpPlan(NamedTuple):
    """What happens to each image.

    Attributes:
        partner: int64 (B,), the image it is mixed with.
        weight: float64 (B,), the partner's share, 0 where nothing is mixed.
    """

    partner: Tensor
    weight: Tensor


class CutMixPlan(NamedTuple):
    """What happens to each image.

    Attributes:
        partner: int64 (B,), the image that the box is taken from.
        box: int64 (n, 4): top, bottom, left, right, the ends exclusive; empty where nothing is
            pasted. n is B, or 1 if all images share one box.
        weight: float64 (n,), the pasted part of the image's area, which is the partner's share.
    """

    partner: Tensor
    box: Tensor
    weight: Tensor


class Mixing(Augmentation):
    """Base of the augmentations that mix each image, and its target, with a random partner.

    Args:
        alpha: lambda, the image's own share, is drawn from Beta(alpha, alpha).
        probability: how often there is any mixing at all.
        num_classes: K, which labels that are class numbers need; a data module of vitlocal's has it.

    Raises:
        InputError: if ``alpha`` is not above 0 or ``probability`` is not in 0..1.
    """

    changes_labels = True

    def __init__(self, alpha: float, probability: float, num_classes: int | None) -> None:
        check(0 < alpha < float("inf"), self, "alpha", alpha, "a number above 0")
        check(0 <= probability <= 1, self, "probability", probability, "from 0 to 1")
        self.alpha = alpha
        self.probability = probability
        self.num_classes = num_classes

    def draw_lambda(self, size: int, generator: torch.Generator) -> Tensor:
        """Draw ``size`` lambdas, float64 (size,): from Beta(alpha, alpha), or 1 for no mixing."""
        mixed = torch.rand(size, generator=generator) < self.probability
        # torch draws no Beta from a given generator, so NumPy draws it, seeded from there.
        seed = int(torch.randint(2**62, (), generator=generator))
        share = torch.from_numpy(np.random.default_rng(seed).beta(self.alpha, self.alpha, size))
        return torch.where(mixed, share, 1.0)

    @staticmethod
    def mix_targets(target: Tensor, partner: Tensor, weight: Tensor) -> Tensor:
        """Return ``(1 - weight) * target + weight * partner's target``.

        Args:
            target: float32 (B, K).
            partner: int64 (B,), on the target's device.
            weight: float64 (B,) or (1,), on the CPU.
        """
        own = (1 - weight).float().unsqueeze(1).to(target.device, non_blocking=True)
        return target * own + target[partner] * (1 - own)


class MixUp(Mixing):
    """Each image: blended with a random other one, and its target likewise.

    Zhang et al. 2018, arXiv 1710.09412, with a lambda an image. Pixels of uint8 are rounded to the
    nearest level; the target has lambda itself.

    Args:
        alpha: lambda, the image's own share, is drawn from Beta(alpha, alpha).
        probability: how often an image is blended at all.
        num_classes: K, which labels that are class numbers need; a data module of vitlocal's has it.

    Raises:
        InputError: if ``alpha`` is not above 0 or ``probability`` is not in 0..1.
    """

    def __init__(self, alpha: float = 0.2, probability: float = 1.0, num_classes: int | None = None) -> None:
        super().__init__(alpha, probability, num_classes)

    def draw(self, batch_size: int, generator: torch.Generator) -> MixUpPlan:
        """Draw what happens to each of ``batch_size`` images."""
        partner = torch.randperm(batch_size, generator=generator)
        return MixUpPlan(partner, 1 - self.draw_lambda(batch_size, generator))

    def apply(self, batch: dict[str, Tensor], generator: torch.Generator) -> None:
        """Change ``batch["image"]`` and ``batch["target"]``; see :meth:`Augmentation.apply`."""
        images = batch["image"]
        plan = self.draw(len(images), generator)
        partner = plan.partner.to(images.device, non_blocking=True)
        weight = plan.weight.float().view(-1, 1, 1, 1).to(images.device, non_blocking=True)
        blended = torch.lerp(images.float(), images[partner].float(), weight)
        blended = blended if images.is_floating_point() else blended.round_()
        batch["image"] = blended.to(images.dtype)
        batch["target"] = self.mix_targets(batch["target"], partner, plan.weight)


class CutMix(Mixing):
    """Each image: a box of it replaced by the same box of a random other one, its target by area.

    Yun et al. 2019, arXiv 1905.04899. The box has sqrt(1 - lambda) of the image's height and width
    (whole and even, as in the authors' code), a uniform centre, and is clipped to the image; the
    partner's share of the target is the part of the image that is really pasted.

    Args:
        alpha: lambda is drawn from Beta(alpha, alpha); 1 makes it uniform.
        probability: how often there is a box at all.
        box: "image" draws lambda, box and whether to paste for each image; "batch" draws them once
            for the whole batch, as the authors' code does.
        mix_labels: whether the target is mixed too; false, to see what the pasted box alone does, keeps
            the image's own.
        num_classes: K, which labels that are class numbers need; a data module of vitlocal's has it.

    Raises:
        InputError: if ``alpha`` is not above 0, ``probability`` not in 0..1, or ``box`` unknown.
    """

    def __init__(
        self,
        alpha: float = 1.0,
        probability: float = 0.5,
        box: Box = "image",
        mix_labels: bool = True,
        num_classes: int | None = None,
    ) -> None:
        super().__init__(alpha, probability, num_classes)
        check(box in get_args(Box), self, "box", box, f"one of {', '.join(get_args(Box))}")
        self.box = box
        self.mix_labels = mix_labels
        self.changes_labels = mix_labels

    def draw(self, batch_size: int, height: int, width: int, generator: torch.Generator) -> CutMixPlan:
        """Draw what happens to each of ``batch_size`` images of this size."""
        size = batch_size if self.box == "image" else 1
        partner = torch.randperm(batch_size, generator=generator)
        side = (1 - self.draw_lambda(size, generator)).sqrt()
        half = torch.stack((height * side, width * side)).long() // 2
        box = _draw_boxes(half, half, height, width, generator)
        top, bottom, left, right = box.unbind(1)
        return CutMixPlan(partner, box, ((bottom - top) * (right - left)).double() / (height * width))

    def apply(self, batch: dict[str, Tensor], generator: torch.Generator) -> None:
        """Change ``batch["image"]`` and ``batch["target"]``; see :meth:`Augmentation.apply`."""
        images = batch["image"]
        batch_size, _, height, width = images.shape
        plan = self.draw(batch_size, height, width, generator)
        partner = plan.partner.to(images.device, non_blocking=True)
        # Where a bit of the mask is set, images ^ (images ^ other) = other; faster than torch.where.
        bits = _bits(images)
        difference = bits.index_select(0, partner).bitwise_xor_(bits)
        pasted = difference.bitwise_and_(_inside(plan.box, bits)).bitwise_xor_(bits)
        batch["image"] = pasted.view(images.dtype)
        if self.mix_labels:
            batch["target"] = self.mix_targets(batch["target"], partner, plan.weight)


class Cutout(Augmentation):
    """Each image: a square of it made zero; the target stays.

    DeVries & Taylor 2017, arXiv 1708.04552: the centre is uniform, the square clipped to the image.

    Args:
        size: the square's side, in pixels.
        probability: how often an image gets a square.

    Raises:
        InputError: if ``size`` is below 1 or above 65535, or ``probability`` is not in 0..1.
    """

    def __init__(self, size: int = 8, probability: float = 1.0) -> None:
        check(1 <= size < 2**16, self, "size", size, "from 1 to 65535")
        check(0 <= probability <= 1, self, "probability", probability, "from 0 to 1")
        self.size = size
        self.probability = probability

    def draw(self, batch_size: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Draw the square of each of ``batch_size`` images: int64 (B, 4), as in :class:`CutMixPlan`."""
        chosen = torch.rand(batch_size, generator=generator) < self.probability
        before = chosen * (self.size // 2)
        after = chosen * (self.size - self.size // 2)
        return _draw_boxes(before, after, height, width, generator)

    def apply(self, batch: dict[str, Tensor], generator: torch.Generator) -> None:
        """Change ``batch["image"]``; see :meth:`Augmentation.apply`."""
        images = batch["image"]
        batch_size, _, height, width = images.shape
        box = self.draw(batch_size, height, width, generator)
        bits = _bits(images)
        batch["image"] = (bits & ~_inside(box, bits)).view(images.dtype)


def _draw_boxes(before: Tensor, after: Tensor, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Boxes about uniform centres, clipped to the image: int64 (n, 4), top, bottom, left, right.

    Args:
        before: int64 (2, n) or (n,), pixels above and to the left of the centre.
        after: the same from the centre on, itself included.
        height: rows of the image.
        width: columns of the image.
        generator: where the centres come from.
    """
    size = before.shape[-1:]
    centre = torch.stack([torch.randint(length, size, generator=generator) for length in (height, width)])
    (top, left), end = (centre - before).clamp(min=0), centre + after
    return torch.stack((top, end[0].clamp(max=height), left, end[1].clamp(max=width)), dim=1)


def _bits(images: Tensor) -> Tensor:
    """The images' bits as whole numbers, so that floats are cut and pasted as uint8 is, exactly."""
    return images.view(
        {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[images.element_size()]
    )


def _inside(box: Tensor, bits: Tensor) -> Tensor:
    """A mask of the pixels in their image's box: (n, 1, H, W) of the type of ``bits``, -1 (255) or 0."""
    height, width = bits.shape[-2:]
    top, bottom, left, right = box.t().unsqueeze(-1)
    rows, columns = torch.arange(height), torch.arange(width)
    rows_inside = ((rows >= top) & (rows < bottom)).to(bits.dtype).neg_()
    columns_inside = ((columns >= left) & (columns < right)).to(bits.dtype).neg_()
    rows_inside = rows_inside.to(bits.device, non_blocking=True)
    columns_inside = columns_inside.to(bits.device, non_blocking=True)
    return (rows_inside.unsqueeze(2) & columns_inside.unsqueeze(1)).unsqueeze(1)
