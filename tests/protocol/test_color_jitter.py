import math

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from tests.protocol.helpers import close_to, make_images
from vitlocal.errors import InputError
from vitlocal.protocol import ColorJitter

FUNCTIONS = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    "strengths", [(0.4, 0.4, 0.4, 0.1), (1.5, 0.9, 2.0, 0.5), (0.3, 0, 0, 0), (0, 0, 0.2, 0)]
)
@pytest.mark.parametrize("size", [(120, 3, 16, 16), (40, 1, 15, 11), (1, 3, 8, 8)])
def test_equals_torchvision_in_the_drawn_order(size, strengths):
    component = ColorJitter(*strengths)
    images = make_images("random", size)
    before = images.clone()
    batch = {"image": images}
    component.apply(batch, generator(4))
    plan = component.draw(len(images), generator(4))
    for image, result, order, factor in zip(images, batch["image"], plan.order, plan.factor, strict=True):
        for operation in order.tolist():
            if strengths[operation] > 0:
                image = FUNCTIONS[operation](image, float(factor[operation]))
        assert torch.equal(result, image)
    assert torch.equal(images, before)


def test_without_strength_nothing_changes():
    images = make_images("random", (6, 3, 8, 8))
    batch = {"image": images}
    ColorJitter(0, 0, 0, 0).apply(batch, generator())
    assert torch.equal(batch["image"], images)


def test_all_orders_are_equally_likely():
    order = ColorJitter().draw(48_000, generator()).order
    orders, counts = order.unique(dim=0, return_counts=True)
    assert len(orders) == math.factorial(4)
    assert all(close_to(count, 48_000, 1 / 24) for count in counts.tolist())
    assert torch.equal(orders.sort(dim=1).values, torch.arange(4).expand(24, 4))


def test_factors_are_uniform_over_torchvisions_ranges():
    strengths = (0.4, 1.7, 0.2, 0.15)
    reference = v2.ColorJitter(*strengths)
    factor = ColorJitter(*strengths).draw(40_000, generator()).factor
    ranges = (reference.brightness, reference.contrast, reference.saturation, reference.hue)
    for drawn, (low, high) in zip(factor.unbind(1), ranges, strict=True):
        assert low <= float(drawn.min()) and float(drawn.max()) <= high
        for quarter in range(1, 4):
            below = int((drawn < low + (high - low) * quarter / 4).sum())
            assert close_to(below, 40_000, quarter / 4)


def test_factors_and_images_are_independent():
    factor = ColorJitter(0.4, 0.4, 0.4, 0.4).draw(20_000, generator()).factor
    off_diagonal = torch.corrcoef(factor.T) - torch.eye(4)
    assert off_diagonal.abs().max() < 4.5 / 20_000**0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"brightness": -0.1}, "brightness=-0.1 .* 0 or more"),
        ({"contrast": float("nan")}, "contrast=nan .* 0 or more"),
        ({"saturation": float("inf")}, "saturation=inf .* 0 or more"),
        ({"hue": 0.6}, "hue=0.6 .* from 0 to 0.5"),
        ({"hue": -0.1}, "hue=-0.1 .* from 0 to 0.5"),
    ],
)
def test_values_out_of_range(arguments, message):
    with pytest.raises(InputError, match=f"ColorJitter: {message}"):
        ColorJitter(**arguments)
