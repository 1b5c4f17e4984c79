"""The task: what it optimises, what it logs, and what a checkpoint carries."""

import copy
import csv
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, seed_everything

from vitlocal.data import CIFAR10, CIFAR100, NPZ, Digits, ImageFolder, TinyImageNet
from vitlocal.errors import InputError
from vitlocal.heads import LocalityMonitor
from vitlocal.tasks import Classification, EpochMetrics, PredictionWriter

NETWORK = {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
SMALL = {"network": NETWORK, "warmup_epochs": 1}


@pytest.fixture
def task():
    seed_everything(0, verbose=False)
    return Classification(**SMALL)


class Recorder(Callback):
    """Keeps the learning rate, loss and batch of every step."""

    def __init__(self):
        self.rates, self.losses, self.batches = [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        self.batches.append({name: tensor.clone() for name, tensor in batch.items()})

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(outputs["loss"].item())


class Halve(Callback):
    """A protocol of its own: shares each target with the next class."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        batch["target"] = (batch["target"] + batch["target"].roll(1, dims=1)) / 2


def test_normalises_like_torchvision(task, small_data, make_trainer):
    from torchvision.transforms.v2 import functional as tv

    make_trainer().fit(task, small_data)
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    expected = tv.normalize(images.float() / 255, small_data.mean, small_data.std)
    torch.testing.assert_close(task.normalize(images), expected, rtol=1e-5, atol=1e-5)


def test_loss_is_the_targets_cross_entropy(task, small_data, make_trainer):
    recorder = Recorder()

    class FirstLogits(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 0:
                with torch.no_grad():
                    log = F.log_softmax(pl_module(batch["image"]), dim=1)
                rows = zip(log, batch["target"], strict=True)
                self.expected = sum(-(p * row).sum().item() for row, p in rows) / len(log)

    first = FirstLogits()
    make_trainer(callbacks=[Halve(), first, recorder]).fit(task, small_data)
    assert recorder.losses[0] == pytest.approx(first.expected, rel=1e-5)
    assert recorder.batches[0]["target"].max() == 0.5


def test_learning_rate_warms_up_and_falls_to_zero_by_step(task, small_data, make_trainer):
    recorder = Recorder()
    make_trainer(max_epochs=3, callbacks=[recorder]).fit(task, small_data)
    # 3 steps an epoch: 3 of warm-up, then the half cosine over 6.
    assert recorder.rates == pytest.approx(
        [1e-3 / 3, 2e-3 / 3, 1e-3, 1e-3, 0.933e-3, 0.75e-3, 0.5e-3, 0.25e-3, 0.067e-3], abs=1e-6
    )


def test_it_learns_and_logs(task, small_data, make_trainer, tmp_path):
    trainer = make_trainer(max_epochs=30, callbacks=[EpochMetrics()])
    trainer.fit(task, small_data)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == list(range(1, 31))
    assert [int(row["step"]) for row in rows] == list(range(3, 93, 3))
    assert float(rows[-1]["val/acc1"]) == 1.0 and float(rows[-1]["val/acc5"]) == 1.0
    assert float(rows[-1]["train/loss"]) < float(rows[0]["train/loss"]) / 2
    assert float(rows[1]["lr"]) < 1e-3 and rows[0]["train/acc1_augmented"]


def test_what_was_not_measured_in_an_epoch_is_left_empty(task, small_data, make_trainer, tmp_path):
    """Not copied from an earlier one, as the trainer keeps it."""
    callbacks = [LocalityMonitor(every_n_epochs=4, before_training=False), EpochMetrics()]
    make_trainer(max_epochs=5, callbacks=callbacks, check_val_every_n_epoch=2).fit(task, small_data)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    given = {
        name: [bool(row[name]) for row in rows] for name in ("train/loss", "val/acc1", "locality/mad_min")
    }
    assert given == {
        "train/loss": [True] * 5,
        "val/acc1": [False, True, False, True, False],
        "locality/mad_min": [False, False, False, True, False],
    }


def test_validation_equals_a_plain_computation(task, small_data, make_trainer):
    trainer = make_trainer(callbacks=[Halve()])
    trainer.fit(task, small_data)
    task.eval()
    images, labels = [], []
    for batch in small_data.val_dataloader():
        images.append(batch["image"])
        labels.append(batch["label"])
    labels = torch.cat(labels)
    with torch.no_grad():
        logits = task(torch.cat(images))
    logged = trainer.callback_metrics
    assert len(labels) == 13  # not a multiple of the batch size: each image must count once
    assert logged["val/loss"].item() == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert logged["val/acc1"].item() == pytest.approx((logits.argmax(1) == labels).float().mean().item())


def test_training_accuracy_counts_own_labels(task, small_data, make_trainer):
    class Count(Recorder):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            with torch.no_grad():
                self.losses.append(
                    (pl_module(batch["image"]).argmax(1) == batch["label"]).float().mean().item()
                )

        def on_train_batch_end(self, *args):
            pass

    count = Count()
    trainer = make_trainer(callbacks=[Halve(), count])
    trainer.fit(task, small_data)
    expected = sum(count.losses) / len(count.losses)
    assert trainer.callback_metrics["train/acc1_augmented"].item() == pytest.approx(expected)


def test_checkpoint_stands_alone(task, small_data, make_trainer, tmp_path):
    trainer = make_trainer()
    trainer.fit(task, small_data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = Classification.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    task.eval()
    loaded.eval()
    assert torch.equal(loaded(images), task(images))
    assert tuple(loaded.hparams["mean"]) == small_data.mean
    assert set(loaded.state_dict()) == {f"network.{name}" for name in loaded.network.state_dict()}


def test_checkpoint_of_other_data_is_refused(small_data, make_trainer):
    other = Classification(
        **SMALL, image_size=(8, 8), in_channels=3, num_classes=10, mean=(0.5,) * 3, std=(0.2,) * 3
    )
    with pytest.raises(InputError, match="num_classes 10 but the data set has 3"):
        make_trainer().validate(other, small_data, verbose=False)


def test_mixed_precision_and_clipped_gradients(small_data, make_trainer):
    trainer = make_trainer(precision="bf16-mixed", gradient_clip_val=1.0)
    trainer.fit(Classification(**SMALL), small_data)
    assert trainer.callback_metrics["train/loss"].isfinite()


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
def test_compiled_training_learns_the_same(small_data, make_trainer):
    """Through PyTorch's own compiler; what is observed and saved is the network as it was."""
    trained = []
    for compiled in (False, True):
        seed_everything(0, verbose=False)
        task = Classification(**SMALL, compile=compiled)
        make_trainer(max_epochs=1).fit(task, small_data)
        trained.append(task.network.state_dict())
    torch.testing.assert_close(trained[1], trained[0], rtol=1e-3, atol=1e-4)


def test_fewer_batches_than_are_accumulated_make_a_mean_too(small_data, make_trainer):
    """Lightning divides the last step's gradient by the number that other steps have (lightning#19987)."""

    class Gradients(Callback):
        def __init__(self):
            self.batches, self.found, self.expected = [], [], []

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.batches.append({name: tensor.clone() for name, tensor in batch.items()})

        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            network = copy.deepcopy(pl_module.network)
            network.zero_grad()
            for batch in self.batches:
                logits = network(pl_module.normalize(batch["image"]))
                (F.cross_entropy(logits, batch["target"]) / len(self.batches)).backward()
            self.expected.append([parameter.grad.clone() for parameter in network.parameters()])
            self.found.append([parameter.grad.clone() for parameter in pl_module.network.parameters()])
            self.batches.clear()

    gradients = Gradients()
    task = Classification(**SMALL)
    make_trainer(callbacks=[gradients], accumulate_grad_batches=2, max_epochs=2).fit(task, small_data)
    assert len(gradients.found) == 4  # of 2 batches, of 1; in each epoch
    torch.testing.assert_close(gradients.found, gradients.expected, rtol=1e-4, atol=1e-6)


def test_unending_training_has_no_schedule(task, small_data, make_trainer):
    with pytest.raises(InputError, match="max_epochs"):
        make_trainer(max_epochs=-1).fit(task, small_data)


def test_predictions_are_written(task, small_data, make_trainer, tmp_path):
    trainer = make_trainer(callbacks=[PredictionWriter()])
    trainer.fit(task, small_data)
    trainer.predict(task, small_data)
    with (tmp_path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    dataset = trainer.predict_dataloaders.dataset
    batch = dataset.__getitems__(range(len(dataset)))
    with torch.no_grad():
        probabilities = task(batch["image"]).softmax(1)
    assert [int(row["image"]) for row in rows] == list(range(7))
    assert [row["label"] for row in rows] == [str(label) for label in batch["label"].tolist()]
    for row, expected in zip(rows, probabilities, strict=True):
        assert row["predicted"] == str(expected.argmax().item())
        assert float(row["probability"]) == pytest.approx(expected.max().item(), abs=1e-6)


def test_predictions_have_the_names_that_the_model_was_trained_with(task, npz_file, make_trainer, tmp_path):
    trainer = make_trainer(callbacks=[PredictionWriter()])
    trainer.fit(task, named(npz_file, ["no", "10", "ünder"]))
    trainer.predict(task, NPZ(path=str(npz_file), batch_size=8))
    rows = list(csv.DictReader((tmp_path / "predictions.csv").open(encoding="utf-8")))
    assert [row["label"] for row in rows] == ["no", "10", "ünder", "no", "10", "ünder", "no"]
    assert {row["predicted"] for row in rows} <= {"no", "10", "ünder"}


@pytest.mark.parametrize("kind", [CIFAR10, CIFAR100, Digits, ImageFolder, NPZ, TinyImageNet])
def test_loggers_see_no_name_with_two_values(kind):
    path = {} if kind is Digits else {"path": "x"}
    ours = Classification(image_size=(8, 8), num_classes=3).hparams_initial
    assert ours and not ours.keys() & kind(**path).hparams_initial.keys()


def test_the_facts_are_in_the_checkpoint_but_not_in_the_log(task, small_data, make_trainer, tmp_path):
    trainer = make_trainer()
    trainer.fit(task, small_data)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    kept = torch.load(tmp_path / "x.ckpt", weights_only=True)["hyper_parameters"]
    assert kept["image_size"] == (8, 8) and kept["num_classes"] == 3
    assert not {"image_size", "in_channels", "num_classes", "mean", "std"} & task.hparams_initial.keys()


def named(path, names):
    with np.load(path) as arrays:
        np.savez(path.with_name("named.npz"), class_names=np.array(names), **arrays)
    return NPZ(path=str(path.with_name("named.npz")), batch_size=8)


def test_class_names_are_kept_and_others_refused(task, npz_file, make_trainer, tmp_path):
    trainer = make_trainer()
    trainer.fit(task, named(npz_file, ["no", "10", "ünder"]))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    kept = torch.load(tmp_path / "x.ckpt", weights_only=True)["hyper_parameters"]
    assert kept["class_names"] == ("no", "10", "ünder") and kept["resize"] == "crop"
    again = Classification.load_from_checkpoint(tmp_path / "x.ckpt")
    make_trainer().validate(
        again, NPZ(path=str(npz_file), batch_size=8), verbose=False
    )  # numbers its classes
    with pytest.raises(InputError, match="has class_names '10' as number 1 but the data set has 'ünder'"):
        make_trainer().validate(again, named(npz_file, ["no", "ünder", "10"]), verbose=False)


def test_a_checkpoint_without_class_names_takes_those_of_the_data(task, npz_file, make_trainer):
    make_trainer().fit(task, named(npz_file, ["a", "b", "c"]))
    facts = {name: task.hparams[name] for name in ("image_size", "in_channels", "num_classes", "mean", "std")}
    older = Classification(**SMALL, **facts)
    make_trainer().validate(older, named(npz_file, ["a", "b", "c"]), verbose=False)
    assert older.hparams["class_names"] == ("a", "b", "c")
