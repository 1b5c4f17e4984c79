import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from tests.protocol.helpers import make_images
from vitlocal.protocol import operations

KINDS = ("random", "constant", "dark", "ramp", "two_levels")
SIZES = ((9, 3, 32, 32), (9, 1, 32, 32), (9, 3, 13, 21), (9, 1, 7, 5), (1, 3, 16, 16))
FACTORS = (0.0, 0.1, 0.37, 0.6, 0.95, 1.0, 1.33, 1.9, 2.7)


def assert_pixels_equal(operation, reference, images, parameters):
    """Each image with each parameter, once with all parameters mixed in the batch."""
    for shift in range(len(parameters)):
        mixed = [parameters[(i + shift) % len(parameters)] for i in range(len(images))]
        result = operation(images, torch.tensor(mixed, dtype=torch.float64))
        expected = torch.stack([reference(x, p) for x, p in zip(images, mixed, strict=True)])
        assert result.dtype == torch.uint8
        assert torch.equal(result, expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["brightness", "saturation", "contrast", "sharpness"])
def test_blends_give_torchvisions_pixels(name, kind, size):
    images = make_images(kind, size)
    before = images.clone()
    assert_pixels_equal(
        getattr(operations, f"adjust_{name}"), getattr(tv, f"adjust_{name}"), images, list(FACTORS)
    )
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", ["brightness", "saturation", "contrast", "sharpness"])
def test_blends_give_torchvisions_pixels_at_random_factors(name):
    images = make_images("random", (400, 3, 24, 20))
    factor = torch.rand(400, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2
    result = getattr(operations, f"adjust_{name}")(images, factor)
    reference = getattr(tv, f"adjust_{name}")
    expected = torch.stack([reference(x, f) for x, f in zip(images, factor.tolist(), strict=True)])
    assert torch.equal(result, expected)


@pytest.mark.parametrize("size", [(3, 3, 256, 256), (2, 1, 250, 255)])
@pytest.mark.parametrize("kind", ["random", "two_levels"])
def test_contrast_of_large_images(kind, size):
    assert_pixels_equal(
        operations.adjust_contrast, tv.adjust_contrast, make_images(kind, size), [0.1, 0.7, 1.61]
    )


@pytest.mark.parametrize("size", [(2, 3, 2, 9), (2, 1, 9, 2), (2, 3, 1, 1), (2, 3, 3, 3)])
def test_sharpness_of_small_images(size):
    assert_pixels_equal(
        operations.adjust_sharpness, tv.adjust_sharpness, make_images("random", size), [0.3, 1.8]
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_hue_gives_torchvisions_pixels(kind, size):
    turns = [-0.5, -0.21, -0.1, -1e-9, 0.0, 0.04, 1 / 6, 0.33, 0.5]
    assert_pixels_equal(operations.adjust_hue, tv.adjust_hue, make_images(kind, size), turns)


def test_hue_of_a_grid_of_all_colours():
    levels = torch.cat([torch.arange(0, 256, 5), torch.tensor([1, 127, 128, 254])]).to(torch.uint8)
    colours = torch.stack(torch.meshgrid(levels, levels, levels, indexing="ij")).flatten(2)
    for turn in (-0.37, 0.0, 0.1, 0.25):
        result = operations.adjust_hue(colours.unsqueeze(0), torch.tensor([turn], dtype=torch.float64))
        assert torch.equal(result[0], tv.adjust_hue(colours, turn))


@pytest.mark.parametrize("channels", [1, 3])
def test_posterize(channels):
    images = make_images("ramp", (9, channels, 16, 17))
    assert_pixels_equal(
        operations.posterize, lambda x, bits: tv.posterize(x, int(bits)), images, list(range(9))
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_solarize(channels):
    images = make_images("ramp", (8, channels, 16, 17))
    assert_pixels_equal(
        operations.solarize, tv.solarize, images, [0.0, 0.5, 1.0, 85.0, 113.33, 170.00001, 255.0]
    )


@pytest.mark.parametrize("name", ["adjust_brightness", "adjust_contrast", "adjust_sharpness", "adjust_hue"])
def test_non_contiguous_images(name):
    images = make_images("random", (4, 12, 14, 3)).permute(0, 3, 1, 2)
    factor = torch.tensor([0.2, 0.4, 0.1, 0.3], dtype=torch.float64)
    function = getattr(operations, name)
    assert torch.equal(function(images, factor), function(images.contiguous(), factor))
