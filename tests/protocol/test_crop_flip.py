import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms.v2 import functional as tv

from tests.protocol.helpers import close_to, make_images
from vitlocal.errors import InputError
from vitlocal.protocol import CropFlip


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("padding", [0, 1, 4, 20])
@pytest.mark.parametrize("size", [(60, 3, 16, 16), (60, 1, 9, 14), (1, 3, 8, 8)])
def test_equals_a_slow_loop(size, padding, flip):
    component = CropFlip(padding, flip)
    images = make_images("random", size)
    before = images.clone()
    batch = {"image": images}
    component.apply(batch, generator(2))
    plan = component.draw(len(images), generator(2))
    for image, result, top, left, mirrored in zip(images, batch["image"], *plan, strict=True):
        expected = tv.crop(F.pad(image, [padding] * 4), int(top), int(left), *image.shape[1:])
        assert torch.equal(result, tv.hflip(expected) if mirrored else expected)
    assert torch.equal(images, before)


def test_the_plan_is_uniform():
    top, left, flip = CropFlip(padding=2).draw(50_000, generator())
    for offset in range(5):
        assert close_to(int((top == offset).sum()), 50_000, 1 / 5)
        assert close_to(int(((top == offset) & (left == 4 - offset)).sum()), 50_000, 1 / 25)
    assert int(top.max()) == int(left.max()) == 4
    assert close_to(int(flip.sum()), 50_000, 0.5)


def test_no_flip_when_off():
    assert not CropFlip(flip=False).draw(1000, generator()).flip.any()


def test_non_contiguous_batch():
    images = make_images("random", (20, 16, 18, 3)).permute(0, 3, 1, 2)
    strided, contiguous = {"image": images}, {"image": images.contiguous()}
    CropFlip().apply(strided, generator())
    CropFlip().apply(contiguous, generator())
    assert torch.equal(strided["image"], contiguous["image"])


def test_negative_padding():
    with pytest.raises(InputError, match=r"CropFlip: padding=-1 .* from 0 to 65535"):
        CropFlip(padding=-1)
