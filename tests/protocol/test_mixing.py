import pytest
import torch

from tests.protocol.helpers import close_to, make_batch
from vitlocal.errors import InputError
from vitlocal.protocol import CutMix, Cutout, MixUp


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def distinct_batch(batch_size, height=12, width=10):
    """Image i is constant i and its target is one-hot i, so that every pixel says whose it is."""
    numbers = torch.arange(batch_size, dtype=torch.uint8)
    return {
        "image": numbers.view(-1, 1, 1, 1).expand(-1, 3, height, width).contiguous(),
        "label": torch.arange(batch_size),
        "target": torch.eye(batch_size),
    }


@pytest.mark.parametrize("box", ["image", "batch"])
@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("batch_size", [1, 2, 50])
def test_cutmix_target_is_the_counted_share_of_pixels(batch_size, alpha, box):
    component = CutMix(alpha, probability=0.9, box=box)
    for seed in range(8):
        batch = distinct_batch(batch_size)
        component.apply(batch, generator(seed))
        pixels = batch["image"][:, 0].flatten(1).long()
        counted = torch.zeros(batch_size, batch_size).scatter_add_(1, pixels, torch.ones(pixels.shape)) / 120
        torch.testing.assert_close(batch["target"], counted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("box", ["image", "batch"])
def test_cutmix_equals_a_slow_loop(box):
    component = CutMix(probability=0.8, box=box)
    batch = make_batch(30)
    images, targets = batch["image"], batch["target"]
    before = images.clone()
    component.apply(batch, generator(1))
    plan = component.draw(30, 12, 10, generator(1))
    assert sorted(plan.partner.tolist()) == list(range(30))
    for i in range(30):
        expected = images[i].clone()
        top, bottom, left, right = plan.box[i if box == "image" else 0].tolist()
        other = int(plan.partner[i])
        for y in range(top, bottom):
            for x in range(left, right):
                expected[:, y, x] = images[other][:, y, x]
        assert torch.equal(batch["image"][i], expected)
        share = (bottom - top) * (right - left) / 120
        torch.testing.assert_close(batch["target"][i], (1 - share) * targets[i] + share * targets[other])
    assert torch.equal(images, before)


def test_cutmix_box_is_the_papers():
    """Sides and clipping against the authors' formula, for the lambdas that the component draws."""
    component = CutMix(alpha=0.7, probability=1.0)
    plan = component.draw(500, 32, 24, generator(2))
    replay = generator(2)
    torch.randperm(500, generator=replay)
    share = component.draw_lambda(500, replay)
    centres = torch.randint(32, (500,), generator=replay), torch.randint(24, (500,), generator=replay)
    for i, lam in enumerate(share.tolist()):
        ratio = (1 - lam) ** 0.5
        expected = []
        for length, centre in zip((32, 24), centres, strict=True):
            cut, c = int(length * ratio), int(centre[i])
            expected += [min(max(c - cut // 2, 0), length), min(max(c + cut // 2, 0), length)]
        assert plan.box[i].tolist() == expected
    assert len(plan.box.unique(dim=0)) > 400  # a box of its own for each image


def test_cutmix_batch_box_is_shared_and_image_box_is_not():
    assert len(CutMix(box="batch", probability=1.0).draw(40, 32, 32, generator()).box) == 1
    batch = distinct_batch(40, 32, 32)
    CutMix(box="batch", probability=1.0).apply(batch, generator(3))
    changed = batch["image"][:, 0] != torch.arange(40).view(-1, 1, 1)
    changed = changed[changed.flatten(1).any(dim=1)]
    assert len(changed) > 30
    assert (changed == changed[0]).all()


def test_cutmix_without_mixed_labels_pastes_the_same_and_leaves_the_target():
    mixed, unmixed = make_batch(30), make_batch(30)
    target = unmixed["target"].clone()
    CutMix(probability=1.0).apply(mixed, generator(4))
    CutMix(probability=1.0, mix_labels=False).apply(unmixed, generator(4))
    assert torch.equal(mixed["image"], unmixed["image"])
    assert torch.equal(unmixed["target"], target) and not torch.equal(mixed["target"], target)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_how_often_an_image_is_mixed(probability):
    for component in (CutMix(probability=probability), MixUp(alpha=1.0, probability=probability)):
        share = component.draw_lambda(20_000, generator(6))
        assert close_to(int((share < 1).sum()), 20_000, probability)
    count = sum(
        int(CutMix(probability=probability, box="batch").draw_lambda(1, generator(seed)) < 1)
        for seed in range(2000)
    )
    assert close_to(count, 2000, probability)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_lambda_has_the_moments_of_a_beta(alpha):
    share = MixUp(alpha).draw_lambda(40_000, generator(7))
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(float(share.mean()) - 0.5) < 4.5 * (variance / 40_000) ** 0.5
    assert float(share.var()) == pytest.approx(variance, rel=0.03)
    assert float(share.min()) >= 0 and float(share.max()) <= 1


def test_mixup_equals_a_slow_loop():
    component = MixUp(alpha=0.8, probability=0.7)
    batch = make_batch(60)
    images, targets = batch["image"], batch["target"]
    before = images.clone()
    component.apply(batch, generator(8))
    plan = component.draw(60, generator(8))
    assert sorted(plan.partner.tolist()) == list(range(60))
    assert 0.5 < float((plan.weight > 0).double().mean()) < 0.9
    for i in range(60):
        other, weight = int(plan.partner[i]), float(plan.weight[i])
        exact = (1 - weight) * images[i].double() + weight * images[other].double()
        assert (batch["image"][i].double() - exact).abs().max() <= 0.5 + 1e-4
        torch.testing.assert_close(batch["target"][i], (1 - weight) * targets[i] + weight * targets[other])
    assert batch["image"].dtype == torch.uint8
    assert torch.equal(images, before)


@pytest.mark.parametrize("size", [1, 4, 5, 40])
def test_cutout_zeroes_a_square(size):
    batch = {"image": torch.full((300, 3, 12, 10), 9, dtype=torch.uint8)}
    component = Cutout(size)
    component.apply(batch, generator(9))
    boxes = component.draw(300, 12, 10, generator(9)).tolist()
    for image, (top, bottom, left, right) in zip(batch["image"], boxes, strict=True):
        expected = torch.full((3, 12, 10), 9, dtype=torch.uint8)
        expected[:, top:bottom, left:right] = 0
        assert torch.equal(image, expected)
        assert 0 <= top < bottom <= 12 and 0 <= left < right <= 10
        if top > 0 and bottom < 12:
            assert bottom - top == size
        if left > 0 and right < 10:
            assert right - left == size


def test_cutout_centre_is_uniform():
    boxes = Cutout(1).draw(60_000, 6, 5, generator(10))
    cells, counts = boxes.unique(dim=0, return_counts=True)
    assert len(cells) == 30
    assert all(close_to(count, 60_000, 1 / 30) for count in counts.tolist())


def test_cutout_leaves_the_target_and_some_images():
    batch = make_batch(1000)
    batch["image"].clamp_(min=1)
    target = batch["target"].clone()
    Cutout(2, probability=0.4).apply(batch, generator(11))
    cut = (batch["image"] == 0).flatten(1).any(dim=1)
    assert close_to(int(cut.sum()), 1000, 0.4)
    assert torch.equal(batch["target"], target)


@pytest.mark.parametrize(
    ("component", "arguments", "message"),
    [
        (CutMix, {"alpha": 0.0}, "CutMix: alpha=0.0 .* above 0"),
        (CutMix, {"alpha": float("nan")}, "CutMix: alpha=nan .* above 0"),
        (CutMix, {"probability": 1.5}, "CutMix: probability=1.5 .* from 0 to 1"),
        (CutMix, {"box": "pixel"}, "CutMix: box='pixel' .* image, batch"),
        (MixUp, {"alpha": -1.0}, "MixUp: alpha=-1.0 .* above 0"),
        (MixUp, {"probability": -0.1}, "MixUp: probability=-0.1 .* from 0 to 1"),
        (Cutout, {"size": 0}, "Cutout: size=0 .* from 1 to 65535"),
        (Cutout, {"probability": 2.0}, "Cutout: probability=2.0 .* from 0 to 1"),
    ],
)
def test_values_out_of_range(component, arguments, message):
    with pytest.raises(InputError, match=message):
        component(**arguments)
