"""Class weights against scikit-learn and a slow loop."""

import math

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from sklearn.utils.class_weight import compute_class_weight

from vitlocal.data import NPZ
from vitlocal.errors import InputError
from vitlocal.protocol import CutMix
from vitlocal.runs import ProcessStates
from vitlocal.tasks import Classification
from vitlocal.tasks.class_weights import loss_weights

NETWORK = {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
SMALL = {"network": NETWORK, "warmup_epochs": 0}
NAMES = ("cat", "dog", "owl")


class FirstStep(Callback):
    """The loss of the first step, and what it comes from."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 0:
            with torch.no_grad():
                self.logits = pl_module(batch["image"]).double()
            self.target = batch["target"].double()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 0:
            self.loss = outputs["loss"].item()


@pytest.fixture
def uneven(npz_file):
    """20, 3 and 1 training images of three classes."""
    with np.load(npz_file) as arrays:
        changed = dict(arrays) | {"train_labels": np.array([0] * 20 + [1] * 3 + [2]), "class_names": NAMES}
    np.savez(npz_file.with_name("uneven.npz"), **changed)
    return NPZ(path=str(npz_file.with_name("uneven.npz")), batch_size=8)


def test_balanced_ones_are_scikit_learns():
    labels = np.random.default_rng(0).choice(4, 50, p=[0.6, 0.3, 0.05, 0.05])
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    found = loss_weights("balanced", labels, "abcd")
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
    assert found[labels].mean().item() == pytest.approx(1)


def test_the_loss_of_mixed_targets_by_a_slow_loop(small_data, make_trainer):
    weights = [0.5, 3.0, 0.0]
    first = FirstStep()
    cutmix = CutMix(probability=1.0, num_classes=3)
    make_trainer(callbacks=[cutmix, first]).fit(Classification(**SMALL, class_weights=weights), small_data)
    assert ((first.target > 0).sum(1) > 1).any()
    total = 0.0
    for logits, target in zip(first.logits.tolist(), first.target.tolist(), strict=True):
        norm = math.log(sum(math.exp(logit) for logit in logits))
        total += sum(w * y * (norm - logit) for w, y, logit in zip(weights, target, logits, strict=True))
    assert first.loss == pytest.approx(total / len(first.logits), rel=1e-5)


def test_balanced_ones_count_the_images_trained_on(uneven, make_trainer):
    task = Classification(**SMALL, class_weights="balanced")
    trainer = make_trainer()
    trainer.fit(task, uneven)
    assert task.class_weights.tolist() == pytest.approx([24 / 60, 24 / 9, 24 / 3])
    assert "class_weights" not in task.state_dict()

    held_out = NPZ(path=str(uneven.path), batch_size=8, val_fraction=0.5)
    with pytest.raises(InputError, match=r"class 'owl' \(1 images\) without"):
        make_trainer().fit(task, held_out)
    with np.load(uneven.path) as arrays:
        np.savez(uneven.path, **(dict(arrays) | {"train_labels": np.array([0] * 18 + [1] * 4 + [2] * 2)}))
    task = Classification(**SMALL, class_weights="balanced")
    make_trainer().fit(task, NPZ(path=str(uneven.path), batch_size=8, val_fraction=0.5))
    assert task.class_weights.tolist() == pytest.approx([12 / 27, 12 / 6, 12 / 3])


def test_only_the_loss_of_training_is_weighted(small_data, make_trainer):
    found = []
    for weights in (None, [1.0, 1.0, 1.0], [2.0, 2.0, 2.0]):
        seed_everything(0, verbose=False)
        trainer = make_trainer()
        trainer.fit(Classification(**SMALL, lr=0.0, class_weights=weights), small_data)
        found.append([trainer.callback_metrics[name].item() for name in ("train/loss", "val/loss")])
    assert found[0] == found[1]
    assert found[2] == [pytest.approx(2 * found[0][0], rel=1e-6), found[0][1]]


def test_a_resumed_run_has_them_again(uneven, make_trainer, tmp_path):
    class Keep(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 2:
                trainer.save_checkpoint(tmp_path / "within.ckpt")

    def run(*callbacks, checkpoint=None):
        seed_everything(0, verbose=False)
        task = Classification(**SMALL, class_weights="balanced")
        trainer = make_trainer(callbacks=[*callbacks, ProcessStates()], precision="bf16-mixed")
        trainer.fit(task, uneven, ckpt_path=checkpoint)
        return task.state_dict(), trainer.callback_metrics["train/loss"]

    weights, loss = run(Keep())
    again, same = run(checkpoint=tmp_path / "within.ckpt")
    assert loss == same
    assert all(torch.equal(weights[name], again[name]) for name in weights)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([1.0, 2.0], "has 2 values, but there are 3 classes"),
        ([1.0, -2.0, 1.0], "has -2.0 for class 'dog': give a number of 0 or more"),
        ([1.0, 1.0, math.nan], "has nan for class 'owl'"),
        ([math.inf, 1.0, 1.0], "has inf for class 'cat'"),
        ([0.0, 0.0, 0.0], "are all 0"),
    ],
)
def test_wrong_lists(given, says, uneven, make_trainer):
    with pytest.raises(InputError, match=f"model.class_weights {says}"):
        make_trainer().fit(Classification(**SMALL, class_weights=given), uneven)


def test_what_can_not_be_balanced():
    with pytest.raises(InputError, match="class 'dog' has no training image"):
        loss_weights("balanced", np.array([0, 2]), NAMES)
    with pytest.raises(InputError, match="no train_labels to count"):
        loss_weights("balanced", None, NAMES)
