"""Macro F1 and AUROC against scikit-learn."""

import csv
import math

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from sklearn.metrics import f1_score, roc_auc_score

from vitlocal.runs import ProcessStates
from vitlocal.tasks import Classification, EpochMetrics
from vitlocal.tasks.metrics import MacroAUROC, evaluation_metrics

NETWORK = {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
SMALL = {"network": NETWORK, "warmup_epochs": 0}


def drawn(count, classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, generator=generator) * 2
    return logits, torch.randint(0, classes, (count,), generator=generator)


def mean_area(logits, labels):
    probability = logits.double().softmax(1).numpy()
    present = sorted(set(labels.tolist()))
    return np.mean([roc_auc_score(labels.numpy() == k, probability[:, k]) for k in present])


@pytest.mark.parametrize("absent", [None, 2])
def test_in_batches_with_padding_they_are_sklearns(absent):
    logits, labels = drawn(50, 5)
    if absent is not None:
        logits, labels = logits[labels != absent], labels[labels != absent]
    metrics = evaluation_metrics(5, macro=True)
    for part in range(0, len(labels), 7):
        padded = torch.cat([labels[part : part + 7], torch.tensor([-1])])
        metrics.update(torch.cat([logits[part : part + 7], torch.zeros(1, 5)]), padded)
    found = metrics.compute()
    assert found["auroc_macro"].item() == pytest.approx(mean_area(logits, labels), abs=1e-6)
    f1 = f1_score(labels, logits.argmax(1), average="macro")
    assert found["f1_macro"].item() == pytest.approx(f1, abs=1e-6)
    assert found["acc1"].item() == pytest.approx((logits.argmax(1) == labels).double().mean().item())


def test_metrics_that_agree_on_the_first_batch_stay_apart():
    """As torchmetrics#2596 has it, a collection would take them for one, and update only the first."""
    logits = torch.arange(6.0).flip(0).expand(4, 6)
    metrics = evaluation_metrics(6, macro=True)
    metrics.update(logits, torch.full((4,), 5))  # in the last place: acc5 and F1 count the same
    metrics.update(logits, torch.full((4,), 3))  # in the fourth
    found = metrics.compute()
    assert (found["acc1"], found["acc5"], found["f1_macro"]) == (0, 0.5, 0)


def test_sklearns_own_one_against_the_rest():
    logits, labels = drawn(80, 4, seed=1)
    expected = roc_auc_score(labels, logits.double().softmax(1), multi_class="ovr", average="macro")
    assert MacroAUROC()(logits, labels).item() == pytest.approx(expected, abs=1e-6)


def test_images_of_large_logits_are_told_apart():
    """As torchmetrics#2819 has it: probabilities would all be 1, and the area one half."""
    score = torch.tensor([98.0950, 98.4612, 98.1145, 98.1506, 97.6037, 98.9425, 99.2644, 99.5014, 99.7280])
    label = torch.tensor([0, 1, 1, 1, 1, 1, 1, 1, 1])
    found = MacroAUROC()(torch.stack([torch.zeros(9), score], 1), label)
    assert found.item() == pytest.approx(roc_auc_score(label, score))
    logits = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)).double() * 60
    labels = logits.argmax(1).roll(1)
    odds = logits - torch.stack(
        [logits[:, [j for j in range(4) if j != k]].logsumexp(1) for k in range(4)], 1
    )
    areas = [roc_auc_score(labels == k, odds[:, k]) for k in range(4)]
    assert MacroAUROC()(logits.float(), labels).item() == pytest.approx(np.mean(areas), abs=1e-6)


def test_one_class_alone_can_not_be_ranked():
    logits, _ = drawn(6, 3)
    assert math.isnan(MacroAUROC()(logits, torch.zeros(6, dtype=torch.int64)))


def test_a_run_has_them_in_its_table_by_option(small_data, make_trainer, tmp_path):
    task = Classification(**SMALL, macro_metrics=True)
    trainer = make_trainer(max_epochs=2, callbacks=[EpochMetrics()])
    trainer.fit(task, small_data)
    dataset = small_data.val_dataloader().dataset
    batch = dataset.__getitems__(range(len(dataset)))
    with torch.no_grad():
        logits = task.eval()(batch["image"])
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[1]["val/auroc_macro"]) == pytest.approx(mean_area(logits, batch["label"]), abs=1e-5)
    f1 = f1_score(batch["label"], logits.argmax(1), average="macro")
    assert float(rows[1]["val/f1_macro"]) == pytest.approx(f1, abs=1e-5)
    tested = trainer.test(task, small_data, verbose=False)[0]
    assert {"test/f1_macro", "test/auroc_macro"} < set(tested)


def test_without_the_option_they_are_not_measured(small_data, make_trainer, tmp_path):
    trainer = make_trainer(callbacks=[EpochMetrics()])
    trainer.fit(Classification(**SMALL), small_data)
    with (tmp_path / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["val/acc1"] and not row["val/f1_macro"] and not row["val/auroc_macro"]


def test_a_run_resumed_within_an_epoch_measures_the_same(small_data, make_trainer, tmp_path):
    class Keep(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 2:
                trainer.save_checkpoint(tmp_path / "within.ckpt")

    def run(*callbacks, checkpoint=None):
        seed_everything(0, verbose=False)
        trainer = make_trainer(callbacks=[*callbacks, ProcessStates()])
        trainer.fit(Classification(**SMALL, macro_metrics=True), small_data, ckpt_path=checkpoint)
        return {name: value.item() for name, value in trainer.callback_metrics.items() if "val" in name}

    assert run() == run(Keep()) == run(checkpoint=tmp_path / "within.ckpt")
