"""Augmentations outside vitlocal's training: called, as a collate function, in anyone's LightningModule."""

import collections

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset, default_collate
from torchvision.transforms import v2

from tests.protocol.helpers import make_images
from vitlocal.errors import InputError
from vitlocal.protocol import (
    AutoAugment,
    ColorJitter,
    CropFlip,
    CutMix,
    Cutout,
    LabelSmoothing,
    MixUp,
    generator_for,
)

CLASSES = 5
COMPONENTS = (
    CropFlip(2),
    AutoAugment(),
    ColorJitter(),
    CutMix(probability=1.0, num_classes=CLASSES),
    MixUp(alpha=1.0, num_classes=CLASSES),
    Cutout(4),
    LabelSmoothing(num_classes=CLASSES),
)
MOVING = [one for one in COMPONENTS if not isinstance(one, AutoAugment | ColorJitter | MixUp)]
IMAGES, LABELS = make_images("random", (16, 3, 12, 10)), torch.arange(16) % CLASSES
ONE_HOT = torch.eye(CLASSES)[LABELS]


def called(component, images, labels):
    torch.manual_seed(3)
    return component(images, labels)


def drawn_by_the_call():
    """The generator that the first call after ``torch.manual_seed(3)`` draws from."""
    torch.manual_seed(3)
    return torch.Generator().manual_seed(int(torch.randint(2**63 - 1, ())))


def named(components):
    return pytest.mark.parametrize("component", components, ids=lambda one: type(one).__name__)


@named(COMPONENTS)
def test_a_call_is_what_the_protocol_does(component):
    batch = {"image": IMAGES, "target": ONE_HOT}
    component.apply(batch, drawn_by_the_call())
    images, labels = called(component, IMAGES, LABELS)
    assert torch.equal(images, batch["image"])
    assert torch.equal(labels, batch["target"] if component.changes_labels else LABELS)
    assert torch.equal(called(component, IMAGES, ONE_HOT)[1], batch["target"])
    assert torch.equal(IMAGES, make_images("random", (16, 3, 12, 10))) and LABELS.tolist()[:6] == [
        0,
        1,
        2,
        3,
        4,
        0,
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@named(COMPONENTS)
def test_floats_become_what_levels_become(component, dtype):
    images = (IMAGES / 255).to(dtype)
    found, labels = called(component, images, LABELS)
    of_levels, expected = called(component, IMAGES, LABELS)
    assert found.dtype == dtype and torch.equal(labels, expected)
    nearest = 0.51 / 255 if isinstance(component, MixUp) else 0  # its blends are rounded where they are uint8
    nearest += 2**-8 if dtype == torch.bfloat16 and isinstance(component, MixUp) else 0
    torch.testing.assert_close(found, (of_levels / 255).to(dtype), rtol=0, atol=nearest)


@named(MOVING)
def test_what_moves_pixels_takes_normalised_images_bit_by_bit(component):
    images = torch.randn(16, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    where = torch.arange(1, 361, dtype=torch.float64).view(1, 3, 12, 10) + 1000 * torch.arange(16).view(
        -1, 1, 1, 1
    )
    found, moved = called(component, images, LABELS)[0], called(component, where, LABELS)[0]
    expected = torch.zeros_like(images)
    for place in (moved > 0).nonzero().tolist():  # 0 where zeros came in
        image, pixel = divmod(int(moved[tuple(place)]), 1000)
        expected[tuple(place)] = images[image].flatten()[pixel - 1]
    assert torch.equal(found, expected)


def test_mixup_of_floats_is_exact():
    component, images = MixUp(alpha=1.0, num_classes=CLASSES), IMAGES / 255
    plan = component.draw(16, drawn_by_the_call())
    weight = plan.weight.view(-1, 1, 1, 1)
    expected = (1 - weight) * images.double() + weight * images[plan.partner].double()
    torch.testing.assert_close(called(component, images, LABELS)[0].double(), expected, rtol=0, atol=1e-6)


def test_images_alone():
    found = called(CropFlip(), IMAGES, None)
    assert torch.equal(found, called(CropFlip(), IMAGES, LABELS)[0])


@pytest.mark.parametrize(("ours", "theirs"), [(CutMix, v2.CutMix), (MixUp, v2.MixUp)])
def test_torchvisions_place_can_be_taken(ours, theirs):
    for labels in (LABELS, ONE_HOT):
        options = {} if labels is ONE_HOT else {"num_classes": CLASSES}
        found, expected = ours(**options)(IMAGES / 255, labels), theirs(**options)(IMAGES / 255, labels)
        assert type(found) is type(expected)
        assert [(one.shape, one.dtype) for one in found] == [(one.shape, one.dtype) for one in expected]


def loaded(seed, workers):
    cutmix = CutMix(probability=1.0, num_classes=CLASSES)
    loader = DataLoader(
        TensorDataset(IMAGES[:1].expand(16, -1, -1, -1) / 255, LABELS),
        batch_size=4,
        num_workers=workers,
        collate_fn=lambda samples: cutmix(*default_collate(samples)),
    )
    torch.manual_seed(seed)
    return [labels for _, labels in loader]


@pytest.mark.parametrize("workers", [0, 2])
def test_as_a_collate_function_it_follows_torchs_seed(workers):
    first, again, other = loaded(0, workers), loaded(0, workers), loaded(1, workers)
    assert torch.equal(torch.cat(first), torch.cat(again)) and not torch.equal(
        torch.cat(first), torch.cat(other)
    )
    shares = [labels.amax(1).tolist() for labels in first]
    assert len({tuple(each) for each in shares}) == 4  # each batch, and so each worker, draws its own


Pair = collections.namedtuple("Pair", ["pictures", "classes"])
KINDS = {
    "list": default_collate,
    "tuple": lambda samples: tuple(default_collate(samples)),
    "named tuple": lambda samples: Pair(*default_collate(samples)),
    "dict": lambda samples: dict(zip(("pixel_values", "labels"), default_collate(samples), strict=True)),
}


class Theirs(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, CLASSES)
        self.seen, self.validated = [], []

    def pair(self, batch):
        return tuple(batch.values()) if isinstance(batch, dict) else tuple(batch)

    def training_step(self, batch, batch_idx):
        self.seen.append(batch)
        images, labels = self.pair(batch)
        return torch.nn.functional.cross_entropy(self.layer(images.float().mean((1, 2, 3))[:, None]), labels)

    def validation_step(self, batch):
        self.validated.append(self.pair(batch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_in_anyones_module(kind, make_trainer, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "5")
    loader = DataLoader(TensorDataset(IMAGES, LABELS), batch_size=8, collate_fn=KINDS[kind])
    components = [CropFlip(), CutMix(probability=1.0, num_classes=CLASSES)]
    module = Theirs()
    make_trainer(callbacks=components, max_epochs=2).fit(module, loader, loader)
    for number, batch in enumerate(module.seen):
        epoch, index = divmod(number, 2)
        part = slice(8 * index, 8 * index + 8)
        expected = {"image": IMAGES[part], "target": ONE_HOT[part]}
        for place, component in enumerate(components):
            component.apply(expected, generator_for(5, f"augmentation {place}", 0, epoch, index))
        images, labels = module.pair(batch)
        assert torch.equal(images, expected["image"]) and torch.equal(labels, expected["target"])
    assert len(module.seen) == 4
    assert isinstance(module.seen[0], Pair) == (kind == "named tuple")
    assert all(labels.ndim == 1 for _, labels in module.validated)
    assert "training_step" not in vars(module)


def test_a_step_that_fails_leaves_the_module_as_it_was(make_trainer):
    module = Theirs()
    module.training_step = failing = lambda batch, batch_idx: 1 / 0
    loader = DataLoader(TensorDataset(IMAGES, LABELS), batch_size=8, collate_fn=KINDS["tuple"])
    with pytest.raises(ZeroDivisionError):
        make_trainer(callbacks=[CropFlip()]).fit(module, loader)
    assert module.training_step is failing


CUTMIX = CutMix(num_classes=CLASSES)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CutMix()(IMAGES, LABELS), "CutMix: labels are class numbers, .* give num_classes"),
        (lambda: CUTMIX(IMAGES), "CutMix: labels are missing: give class numbers .16,. or"),
        (lambda: CUTMIX(IMAGES, LABELS + 1), "CutMix: labels go from 1 to 5, but num_classes is 5"),
        (lambda: CUTMIX(IMAGES, LABELS[:3]), "CutMix: labels are int64 .3,.: give class numbers .16,."),
        (
            lambda: CUTMIX(IMAGES, LABELS[:, None]),
            "labels are int64 .16, 1.: give class numbers .16,. or",
        ),
        (
            lambda: CUTMIX(IMAGES, LABELS[:, None] / 4),
            "CutMix: labels are float32 .16, 1.: give class numbers",
        ),
        (
            lambda: CUTMIX(IMAGES, LABELS.float()),
            "labels are float32 .16,.: give class numbers .*integer type",
        ),
        (lambda: CUTMIX(IMAGES, LABELS > 1), "CutMix: labels are bool .16,.: give class numbers"),
        (
            lambda: CUTMIX(IMAGES, ONE_HOT[:, :4]),
            "labels are float32 .16, 4., but num_classes is 5: give .16, 5",
        ),
        (
            lambda: CUTMIX(IMAGES, 2 * ONE_HOT),
            "CutMix: labels float32 .16, 5. go from 0 to 2, but prob.* 0..1",
        ),
        (
            lambda: MixUp()(IMAGES, ONE_HOT - 0.5),
            "MixUp: labels .* go from -0.5 to 0.5, but probabilities must",
        ),
        (lambda: MixUp()(IMAGES, ONE_HOT * torch.nan), "MixUp: labels .* go from nan to nan, but"),
        (lambda: MixUp()(IMAGES, LABELS.tolist()), "MixUp: labels are a list: give class numbers"),
        (
            lambda: LabelSmoothing()(IMAGES, ONE_HOT.flip(0) + ONE_HOT > 0),
            "LabelSmoothing: .* multilabel=True",
        ),
        (
            lambda: AutoAugment()(IMAGES[:, :2]),
            "AutoAugment: images are uint8 .16, 2, 12, 10., but it .* 1 chan",
        ),
        (lambda: ColorJitter()(IMAGES.repeat(1, 2, 1, 1)), "ColorJitter: images are uint8 .16, 6, .* or 3"),
        (
            lambda: CUTMIX(IMAGES.permute(0, 2, 3, 1), LABELS),
            "uint8 .16, 12, 10, 3., which has its channels last",
        ),
        (lambda: Cutout()(IMAGES[:0]), "Cutout: images are uint8 .0, 3, 12, 10., but they must be"),
        (
            lambda: CropFlip()(IMAGES[..., None]),
            "CropFlip: images are uint8 .16, 3, 12, 10, 1., but they must",
        ),
        (lambda: CropFlip()(IMAGES.numpy()), "CropFlip: images are a ndarray, but they must be a tensor"),
        (lambda: CropFlip()(IMAGES[0]), "CropFlip: images are uint8 .3, 12, 10., but .* .B, C, H, W."),
        (lambda: CropFlip()(IMAGES.long()), "CropFlip: images are int64 .16, 3, 12, 10., but they must be"),
        (lambda: AutoAugment()(IMAGES / 100), "AutoAugment: images are floats from 0 to 2.55, but .* 0..1"),
        (lambda: ColorJitter()(IMAGES / torch.nan), "ColorJitter: images are floats from nan to nan"),
    ],
)
def test_what_can_not_be_augmented_is_said(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("batch", [{"a": IMAGES}, IMAGES, ()])
def test_a_batch_without_images_is_said(batch, make_trainer):
    component = CropFlip()
    with pytest.raises(
        InputError, match=r"the batch \(.*\) has no images to augment: give \(images, labels\)"
    ):
        component.on_train_batch_start(make_trainer(callbacks=[component]), Theirs(), batch, 0)
