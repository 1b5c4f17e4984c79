"""Batches and slow references for the tests of vitlocal.protocol."""

import torch
from torch import Tensor
from torchvision.transforms import v2

REFERENCE = v2.AutoAugment()


def make_images(kind: str, size: tuple[int, int, int, int]) -> Tensor:
    """uint8 images of one kind: random, constant (another level in each), dark, ramp or two_levels."""
    generator = torch.Generator().manual_seed(sum(size))
    if kind == "constant":
        levels = torch.randint(256, size[:2], generator=generator, dtype=torch.uint8)
        return levels[:, :, None, None].expand(size).contiguous()
    if kind == "ramp":
        ramp = torch.arange(size[2] * size[3]).view(size[2:]).remainder(256)
        return (ramp + 40 * torch.arange(size[0] * size[1]).view(*size[:2], 1, 1)).to(torch.uint8)
    if kind == "two_levels":
        return torch.randint(2, size, generator=generator, dtype=torch.uint8) * 255
    highest = {"random": 256, "dark": 3}[kind]
    return torch.randint(highest, size, generator=generator, dtype=torch.uint8)


def make_batch(
    batch_size: int = 8, channels: int = 3, height: int = 12, width: int = 10, num_classes: int = 5
) -> dict[str, Tensor]:
    """A training batch with one-hot targets, as the data room gives it."""
    label = torch.arange(batch_size) % num_classes
    return {
        "image": make_images("random", (batch_size, channels, height, width)),
        "label": label,
        "index": torch.arange(batch_size),
        "target": torch.nn.functional.one_hot(label, num_classes).float(),
    }


def torchvision_operation(image: Tensor, name: str, magnitude: float) -> Tensor:
    """torchvision's v2 AutoAugment operation on one image (C, H, W)."""
    return REFERENCE._apply_image_or_video_transform(
        image, name, magnitude, interpolation=REFERENCE.interpolation, fill=REFERENCE._fill
    )


def close_to(count: int, trials: int, probability: float) -> bool:
    """Whether a binomial count is within 4.5 standard deviations of its mean."""
    deviation = (trials * probability * (1 - probability)) ** 0.5
    return abs(count - trials * probability) <= 4.5 * deviation + 1e-9
