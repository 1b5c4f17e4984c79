"""Several labels an image: loss, metrics and predictions against slow loops and scikit-learn."""

import csv
import math

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from PIL import Image
from sklearn.metrics import f1_score, hamming_loss, log_loss, roc_auc_score

from tests import blobs
from vitlocal import cli
from vitlocal.data import NPZ
from vitlocal.errors import InputError
from vitlocal.protocol import CutMix, LabelSmoothing
from vitlocal.runs import ProcessStates, RunCheckpoint, open_run
from vitlocal.tasks import Classification, EpochMetrics
from vitlocal.tasks.class_weights import positive_weights
from vitlocal.tasks.metrics import multilabel_metrics

NAMES = ("mass", "nodule", "hernia")
NETWORK = {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
SMALL = {"network": NETWORK, "warmup_epochs": 0, "lr": 0.02}


@pytest.fixture
def chest(tmp_path):
    """Three labels, each a channel that is brighter where it is on."""
    rng = np.random.default_rng(0)
    arrays = {"class_names": np.array(NAMES)}
    for split, count in (("train", 24), ("val", 13), ("test", 7)):
        labels = (rng.random((count, 3)) < [0.5, 0.4, 0.3]).astype(np.uint8)
        labels[:3] = np.eye(3)
        arrays[f"{split}_labels"] = labels
        noise = rng.integers(0, 120, (count, 8, 8, 3))
        arrays[f"{split}_images"] = (noise + 120 * labels[:, None, None]).astype(np.uint8)
    np.savez(tmp_path / "chest.npz", **arrays)
    return tmp_path / "chest.npz"


def data_of(path, **options):
    return NPZ(path=str(path), batch_size=8, **options)


class FirstStep(Callback):
    """The first batch, the logits that it gets, and its loss."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 0:
            self.label, self.target = batch["label"].clone(), batch["target"].double()
            with torch.no_grad():
                self.logits = pl_module(batch["image"]).double()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 0:
            self.loss = outputs["loss"].item()


@pytest.mark.parametrize("weights", [None, [0.5, 3.0, 1.0]])
def test_the_loss_by_a_slow_loop(chest, make_trainer, weights):
    first = FirstStep()
    callbacks = [CutMix(probability=1.0), LabelSmoothing(0.2), first]
    make_trainer(callbacks=callbacks).fit(Classification(**SMALL, class_weights=weights), data_of(chest))
    total = 0.0
    for logits, target in zip(first.logits.tolist(), first.target.tolist(), strict=True):
        for w, y, logit in zip(weights or [1.0] * 3, target, logits, strict=True):
            s = 1 / (1 + math.exp(-logit))
            total -= w * y * math.log(s) + (1 - y) * math.log(1 - s)
    assert first.loss == pytest.approx(total / first.logits.numel(), rel=1e-5)


def test_targets_are_mixed_and_smoothed_by_halves(chest, make_trainer):
    plain, mixed, both = FirstStep(), FirstStep(), FirstStep()
    for callbacks in ([plain], [CutMix(1.0, 1.0), mixed], [CutMix(1.0, 1.0), LabelSmoothing(0.2), both]):
        seed_everything(0, verbose=False)
        make_trainer(callbacks=callbacks).fit(Classification(**SMALL), data_of(chest))
    assert (plain.target == plain.label).all()
    assert ((mixed.target > 0) & (mixed.target < 1)).any()
    torch.testing.assert_close(both.target, 0.8 * mixed.target + 0.1)
    # Called by itself, it has to be told.
    images, labels = torch.zeros(2, 3, 8, 8), torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    found = LabelSmoothing(0.2, multilabel=True)(images, labels)[1]
    torch.testing.assert_close(found, torch.tensor([[0.9, 0.9, 0.1], [0.1, 0.1, 0.1]]))


def test_metrics_in_batches_with_padding_are_sklearns():
    generator = torch.Generator().manual_seed(0)
    probability = torch.rand(50, 4, generator=generator)
    labels = (torch.rand(50, 4, generator=generator) < torch.tensor([0.5, 0.3, 0.2, 0.1])).long()
    metrics = multilabel_metrics(4)
    for part in range(0, 50, 7):
        padded = torch.cat([labels[part : part + 7], torch.full((1, 4), -1)])
        metrics.update(torch.cat([probability[part : part + 7].logit(), torch.rand(1, 4)]), padded)
    found = {name: value.item() for name, value in metrics.compute().items()}
    assert found == {
        "label_accuracy": pytest.approx(((probability > 0.5) == labels).double().mean().item()),
        "f1_macro": pytest.approx(f1_score(labels, probability > 0.5, average="macro")),
        "auroc_macro": pytest.approx(roc_auc_score(labels, probability, average="macro"), abs=1e-6),
    }


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (20.0, 100.0), (-100.0, -20.0)])
def test_logits_are_logits_in_whatever_range(low, high):
    """torchmetrics takes those in 0..1 for probabilities, batch by batch, and rounds large ones to 1."""
    generator = torch.Generator().manual_seed(0)
    logits = low + (high - low) * torch.rand(60, 2, generator=generator)
    labels = (torch.rand(60, 2, generator=generator) < 0.4).long()
    metrics = multilabel_metrics(2)
    for part in range(0, 60, 20):
        metrics.update(logits[part : part + 20], labels[part : part + 20])
    found = metrics.compute()
    assert found["auroc_macro"].item() == pytest.approx(roc_auc_score(labels, logits), abs=1e-6)
    expected = 1 - hamming_loss(labels, logits.double().sigmoid() > 0.5)
    assert found["label_accuracy"].item() == pytest.approx(expected)


def test_a_run_measures_what_sklearn_does_and_keeps_the_best_by_auroc(chest, make_trainer, tmp_path):
    task, best = Classification(**SMALL), RunCheckpoint(dirpath=tmp_path)
    trainer = make_trainer(max_epochs=2, callbacks=[EpochMetrics(), best], enable_checkpointing=True)
    trainer.fit(task, data_of(chest))
    dataset = trainer.val_dataloaders.dataset
    batch = dataset.__getitems__(range(len(dataset)))
    with torch.no_grad():
        probability = task.eval()(batch["image"]).double().sigmoid()
    labels = batch["label"]
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    losses = [log_loss(labels[:, k], probability[:, k]) for k in range(3)]
    expected = {
        "val/loss": np.mean(losses),
        "val/label_accuracy": ((probability > 0.5) == labels).double().mean(),
        "val/f1_macro": f1_score(labels, probability > 0.5, average="macro"),
        "val/auroc_macro": roc_auc_score(labels, probability, average="macro"),
    }
    for name, value in expected.items():
        assert float(rows[-1][name]) == pytest.approx(float(value), abs=2e-6), name
    assert rows[-1]["train/label_accuracy_augmented"] and not {"val/acc1", "val/acc5"} & rows[-1].keys()
    assert best.monitor == "val/auroc_macro"
    assert best.best_model_score.item() == pytest.approx(max(float(row["val/auroc_macro"]) for row in rows))
    assert {"test/loss", "test/label_accuracy"} <= trainer.test(task, data_of(chest), verbose=False)[0].keys()


def test_a_monitor_that_is_given_is_kept(chest, make_trainer, tmp_path):
    given = RunCheckpoint(monitor="val/loss", mode="min", dirpath=tmp_path)
    make_trainer(callbacks=[given], enable_checkpointing=True).fit(Classification(**SMALL), data_of(chest))
    assert given.monitor == "val/loss" and given.best_model_path


def test_it_learns(chest, make_trainer):
    seed_everything(0, verbose=False)
    trainer = make_trainer(max_epochs=20)
    trainer.fit(Classification(**SMALL), data_of(chest))
    assert trainer.callback_metrics["val/auroc_macro"] > 0.9


def test_a_resumed_run_is_the_same_bit_for_bit(chest, make_trainer, tmp_path):
    class Keep(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 4:
                trainer.save_checkpoint(tmp_path / "within.ckpt")

    def run(*callbacks, checkpoint=None):
        seed_everything(0, verbose=False)
        task = Classification({**NETWORK, "drop_rate": 0.1}, warmup_epochs=0, class_weights="balanced")
        protocol = [CutMix(), LabelSmoothing()]
        trainer = make_trainer(max_epochs=2, callbacks=[*protocol, *callbacks, ProcessStates()])
        trainer.fit(task, data_of(chest), ckpt_path=checkpoint)
        return task.state_dict(), trainer.callback_metrics

    weights, measured = run(Keep())
    again, same = run(checkpoint=tmp_path / "within.ckpt")
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    for name in ("train/loss", "train/label_accuracy_augmented", "val/loss", "val/auroc_macro"):
        assert measured[name] == same[name]


def test_balanced_weights_let_both_sides_weigh_alike(chest, make_trainer):
    task, data = Classification(**SMALL, class_weights="balanced"), data_of(chest)
    make_trainer().fit(task, data)
    with_it = task.class_weights.double().numpy() * data.train_labels.sum(0)
    assert with_it.tolist() == pytest.approx((1 - data.train_labels).sum(0).tolist())
    for given, says in (
        ([1.0, 2.0], "has 2 values, but there are 3"),
        ([1.0, -1.0, 1.0], "has -1.0 for class 'nodule'"),
    ):
        with pytest.raises(InputError, match=f"model.class_weights {says}"):
            positive_weights(given, data.train_labels, NAMES)
    with pytest.raises(InputError, match="no train_labels to count"):
        positive_weights("balanced", None, NAMES)


def test_a_model_of_the_other_kind_is_refused(chest, npz_file, make_trainer):
    task = Classification(**SMALL)
    make_trainer().fit(task, data_of(chest))
    task.hparams["class_names"] = None
    with pytest.raises(InputError, match="the model has multilabel True but the data set has False"):
        make_trainer().validate(task, data_of(npz_file), verbose=False)


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_command_takes_such_a_run(chest, tmp_path, capsys):
    run = blobs.fit(tmp_path, chest, "--config=modern.yaml")
    settings = open_run(run).hyperparameters
    assert settings["multilabel"] is True and settings["class_names"] == NAMES
    assert read(run / "metrics.csv")[-1]["val/auroc_macro"]
    best = f"--ckpt_path={run / 'checkpoints' / 'best.ckpt'}"
    common = ["--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path / 'more'}", best]
    cli.main(["predict", "--config=npz.yaml", f"--data.path={chest}", *common])
    (path,) = (tmp_path / "more").rglob("predictions.csv")
    rows, module = read(path), open_run(run).load_module().eval()
    with np.load(chest) as arrays, torch.no_grad():
        images, labels = torch.from_numpy(arrays["test_images"].transpose(0, 3, 1, 2)), arrays["test_labels"]
        probability = module(images).sigmoid()
    assert list(rows[0]) == [
        "image",
        *(f"{kind}/{name}" for kind in ("label", "probability") for name in NAMES),
    ]
    for number, row in enumerate(rows):
        assert [int(row[f"label/{name}"]) for name in NAMES] == labels[number].tolist()
        given = [float(row[f"probability/{name}"]) for name in NAMES]
        assert given == pytest.approx(probability[number].tolist(), abs=1e-5)

    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "photos" / "a.png")
    cli.main(["predict", f"--images={tmp_path / 'photos'}", *common])
    (path,) = (tmp_path / "more").glob("lightning_logs/photos*/*/predictions.csv")
    assert list(read(path)[0]) == ["image", *(f"probability/{name}" for name in NAMES)]

    cli.main(["validate", "--config=npz.yaml", f"--data.path={chest}", *common])
    assert "val/auroc_macro" in capsys.readouterr().out
    cli.main(["inspect", str(run), "--max_images=4", "--maps=0"])
    small = ["--calibration_batches=1", "--batch_size=8", "--seeds=[0]", "--int8=false"]
    cli.main(["quantize", "--ckpt_path", str(run), *small])
    (fp32, *_) = read(run / "quantize" / "quantize.csv")
    with np.load(chest) as arrays, torch.no_grad():
        images, labels = torch.from_numpy(arrays["val_images"].transpose(0, 3, 1, 2)), arrays["val_labels"]
        wrong = hamming_loss(labels, module(images).sigmoid() > 0.5)
    assert float(fp32["label_accuracy"]) == pytest.approx(1 - wrong)
    cli.main(["compare", str(run), f"--output={tmp_path / 'compared'}"])
