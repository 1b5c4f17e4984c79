import pytest
import torch

from tests.protocol.helpers import make_images, torchvision_operation
from vitlocal.protocol import geometry
from vitlocal.protocol.auto_augment import OPERATIONS, magnitude_table

GEOMETRIC = {
    "ShearX": geometry.shear_x,
    "ShearY": geometry.shear_y,
    "TranslateX": geometry.translate_x,
    "TranslateY": geometry.translate_y,
    "Rotate": geometry.rotate,
}


@pytest.mark.parametrize("size", [(32, 32), (28, 28), (13, 21), (64, 48), (1, 7), (5, 1)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", GEOMETRIC)
def test_all_magnitudes_and_signs_in_one_batch(name, channels, size):
    levels = magnitude_table(*size)[list(OPERATIONS).index(name)]
    magnitudes = torch.cat([levels, -levels])
    images = make_images("random", (20, channels, *size))
    result = GEOMETRIC[name](images, magnitudes)
    expected = [torchvision_operation(x, name, m) for x, m in zip(images, magnitudes.tolist(), strict=True)]
    assert torch.equal(result, torch.stack(expected))


def test_the_maps_are_for_the_size_of_the_images():
    """Same number of pixels, another shape: the cache must tell them apart."""
    for size in ((8, 18), (18, 8), (12, 12)):
        images = make_images("random", (2, 1, *size))
        expected = torch.stack([torchvision_operation(x, "Rotate", 20.0) for x in images])
        assert torch.equal(geometry.rotate(images, torch.tensor([20.0, 20.0], dtype=torch.float64)), expected)


def test_gather_pixels():
    image = torch.tensor([[[[10, 20], [30, 40]], [[1, 2], [3, 4]]]], dtype=torch.uint8)
    source = torch.tensor([[4, 0, 1, 1]])
    expected = torch.tensor([[[[40, 0], [10, 10]], [[4, 0], [1, 1]]]], dtype=torch.uint8)
    assert torch.equal(geometry.gather_pixels(image, source), expected)
