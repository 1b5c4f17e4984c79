from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch

from tests.protocol.helpers import make_batch
from vitlocal.protocol import (
    Augmentation,
    AutoAugment,
    ColorJitter,
    CropFlip,
    CutMix,
    Cutout,
    Protocol,
    generator_for,
)
from vitlocal.protocol.base import apply_each


class Recorder(Augmentation):
    """Writes three random numbers into the batch."""

    def apply(self, batch, generator):
        batch["drawn"] = torch.rand(3, generator=generator)


def drawn(component, rank=0, epoch=0, batch_idx=0, before=()):
    batch = {"image": torch.zeros(1), "target": torch.zeros(1, 1)}
    trainer = SimpleNamespace(global_rank=rank, current_epoch=epoch, callbacks=[*before, component])
    component.on_train_batch_start(trainer, None, batch, batch_idx)
    return batch["drawn"].tolist()


def test_the_same_batch_draws_the_same(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "3")
    first = drawn(Recorder(), 1, 2, 3)
    torch.rand(5)  # neither the global generator nor earlier batches matter
    drawn(Recorder(), 1, 2, 2)
    assert drawn(Recorder(), 1, 2, 3) == first


def test_everything_that_should_change_the_draw_does(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "3")
    draws = [drawn(Recorder(), r, e, b) for r in range(3) for e in range(3) for b in range(3)]
    # Two of one kind draw different numbers, by their place among the callbacks or in the protocol.
    draws.append(drawn(Recorder(), before=[Recorder()]))
    in_protocol = Recorder()
    for in_protocol.place in ("photometric", "mixing"):
        draws.append(drawn(in_protocol))
    monkeypatch.setenv("PL_GLOBAL_SEED", "4")
    draws.append(drawn(Recorder()))
    assert len({tuple(numbers) for numbers in draws}) == len(draws)


def test_a_protocols_components_know_their_places():
    cutouts = Protocol(photometric=Cutout(), mixing=Cutout())
    assert [component.place for component in cutouts.callbacks()] == ["crop_flip", "photometric", "mixing"]
    first, second = drawn_boxes(cutouts.photometric), drawn_boxes(cutouts.mixing)
    assert not torch.equal(first, second)  # two of a kind did draw the same boxes


def drawn_boxes(component):
    batch = make_batch(8)
    batch["image"] = torch.full_like(batch["image"], 255)
    component.on_train_batch_start(
        SimpleNamespace(global_rank=0, current_epoch=0, callbacks=[]), None, batch, 0
    )
    return batch["image"]


class Collector(pl.LightningModule):
    """Keeps what training_step and validation_step get."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)
        self.trained, self.validated = [], []

    def training_step(self, batch, batch_idx):
        self.trained.append(batch["drawn"].tolist())
        return self.layer(batch["drawn"]).sum()

    def validation_step(self, batch, batch_idx):
        self.validated.append("drawn" in batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_the_trainer_applies_it_in_training_only(monkeypatch, tmp_path):
    monkeypatch.setenv("PL_GLOBAL_SEED", "3")
    batches = torch.utils.data.DataLoader([{"image": torch.zeros(1), "target": torch.zeros(1)}] * 2)
    module = Collector()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        callbacks=[Recorder()],
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, batches, batches)
    assert module.trained == [drawn(Recorder(), 0, e, b) for e in range(2) for b in range(2)]
    assert module.validated and not any(module.validated)


def test_without_lightnings_seed_torchs_is_used(monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        by_torch = drawn(Recorder())
    monkeypatch.setenv("PL_GLOBAL_SEED", "11")
    assert drawn(Recorder()) == by_torch


def test_generator_is_stable_across_processes():
    """A resumed run is another process: Python's own hash of strings, salted in each, must not get in."""
    assert generator_for(0, "CutMix", 0, 1, 2).initial_seed() == 17908372730427204930


@pytest.mark.parametrize("component", [CropFlip(), AutoAugment(), ColorJitter(), CutMix(probability=1.0)])
def test_components_draw_by_the_given_generator_alone(component):
    results = []
    for seed in (0, 0, 1):
        batch = make_batch(16)
        torch.manual_seed(len(results))
        component.apply(batch, torch.Generator().manual_seed(seed))
        results.append(batch["image"])
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_each_image_gets_its_own_operation():
    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1)
    add, double = (lambda x, p: x + p.view(-1, 1, 1, 1).to(torch.uint8)), (lambda x, p: 2 * x)
    changed = apply_each(images, torch.tensor([0, -1, 0, 1, -1]), [add, double], torch.arange(10, 15))
    assert changed.flatten().tolist() == [10, 1, 14, 6, 4]
    assert images.flatten().tolist() == [0, 1, 2, 3, 4]


def test_an_operation_without_images_is_not_called():
    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1)
    changed = apply_each(images, torch.full((5,), -1), [lambda x, p: x / 0], torch.arange(5))
    assert torch.equal(changed, images)
