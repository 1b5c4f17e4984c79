"""Lightning's own callbacks and flags on the command line: they work, or one sentence says why not."""

import csv

import pytest
import torch
from lightning.pytorch.callbacks import ModelSummary

from tests import blobs
from vitlocal.tasks import Classification


@pytest.fixture
def fit(tmp_path, npz_file):
    return lambda *words: blobs.fit(tmp_path, npz_file, "--model.network.patch_size=4", *words)


def table(run, name="metrics"):
    with (run / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_weight_averaging_validates_and_saves_the_averaged_weights(fit):
    run = fit("--trainer.callbacks=EMAWeightAveraging", "--trainer.callbacks.decay=0.5")
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["averaging_state"]["n_averaged"] > 0
    averaged = checkpoint["state_dict"]["network.head.weight"]
    current = checkpoint["current_model_state"]["network.head.weight"]
    assert not torch.equal(averaged, current)


def test_the_learning_rate_finders_rate_is_used(fit):
    run = fit("--trainer.callbacks=LearningRateFinder", "--trainer.callbacks.num_training_steps=8")
    rates = [float(row["lr"]) for row in table(run)]
    assert len(rates) == 2 and rates[0] != pytest.approx(0.02)


@pytest.mark.parametrize(
    "words", [("--trainer.max_epochs=-1", "--trainer.max_steps=7"), ("--trainer.max_steps=7",)]
)
def test_training_by_steps_ends_its_schedule_there(fit, words):
    run = fit("--trainer.max_epochs=50", *words, "--trainer.log_every_n_steps=1")
    rows = table(run)
    assert [int(row["step"]) for row in rows] == [3, 6, 7]
    # No warm-up: before the 7th step the cosine is at 6 / 7 of its way.
    expected = 0.02 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * 6 / 7)).item())
    assert float(rows[-1]["lr"]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=val_loss"),
            "EarlyStopping monitors val_loss, which is not logged: give val/loss",
        ),
        (
            ("--checkpoint.monitor=val_acc1",),
            "RunCheckpoint monitors val_acc1, which is not logged: give val/acc1",
        ),
        (
            ("--trainer.callbacks=ModelCheckpoint", "--trainer.callbacks.filename={epoch}-{val/loss:.2f}"),
            "ModelCheckpoint.filename is {epoch}-{val/loss:.2f}, whose / makes folders",
        ),
        (
            ("--trainer.callbacks=LearningRateMonitor",),
            "LearningRateMonitor writes to loggers, and there is none",
        ),
        (("--trainer.val_check_interval=500",), "`val_check_interval` (500) must be less than or equal"),
        (("--trainer.max_epochs=-1",), "trainer.max_epochs is not set, nor max_steps"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_step(fit, tmp_path, capsys, words, sentence):
    with pytest.raises(SystemExit) as ended:
        fit(*words)
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert ended.value.code == 1 and said.startswith("vitlocal: error: ") and sentence in said
    assert not list(tmp_path.rglob("metrics.csv")) and not list(tmp_path.rglob("config.yaml"))


def test_a_constant_rate_needs_no_end(fit):
    words = ("--model.schedule=constant", "--trainer.max_epochs=-1", "--trainer.max_time=00:00:00:02")
    rows = table(fit(*words))
    assert rows and {float(row["lr"]) for row in rows} == {0.02}


def test_training_longer_after_the_end_says_what_the_rate_does(fit, tmp_path, recwarn):
    said = "the learning rate was"
    fit("--trainer.max_epochs=3", "--trainer.max_time=00:00:00:01")  # it may be over or not
    fit("--trainer.max_epochs=3", "--ckpt_path=last")
    assert not [each for each in recwarn if said in str(each.message)]
    fit("--trainer.max_epochs=6", "--ckpt_path=last")
    # At the end of the cosine's half, and in the middle of the new one.
    (warning,) = [str(each.message) for each in recwarn if said in str(each.message)]
    assert f"{said} 0 at the end" in warning and "the schedule now has 0.01 there" in warning


def test_overfitting_a_few_batches(fit):
    rows = table(fit("--trainer.overfit_batches=2", "--trainer.max_epochs=3"))
    assert [int(row["step"]) for row in rows] == [2, 4, 6]
    assert all(float(row["val/loss"]) > 0 for row in rows)


def test_validation_every_so_many_steps_whatever_the_epoch(fit):
    words = ("--trainer.check_val_every_n_epoch=null", "--trainer.val_check_interval=4")
    run = fit(*words, "--trainer.max_epochs=4")
    # Steps 4, 8 and 12 are in the epochs 2, 3 and 4.
    assert [row["val/loss"] != "" for row in table(run)] == [False, True, True, True]
    assert {(row["epoch"], row["step"]) for row in table(run, "heads")} == {
        ("0", "0"),
        ("2", "4"),
        ("3", "8"),
        ("4", "12"),
    }


def test_the_summary_counts_the_operations_of_an_image(make_trainer, small_data):
    seen = []

    class Noted(ModelSummary):
        @staticmethod
        def summarize(*args, total_flops, **options):
            seen.append(total_flops)

    trainer = make_trainer(callbacks=[Noted()], fast_dev_run=1)
    trainer.fit(Classification({"depth": 1}, warmup_epochs=0), small_data)
    # 4 patches of 4x4 colour pixels and the class token; 192 features, 384 in the MLP; 3 classes.
    of_layer = 5 * 192 * (3 * 192 + 192 + 2 * 384)
    # torch does not count attention's own products in the kernel that it has for the CPU.
    assert seen[0] - 2 * (4 * 48 * 192 + of_layer + 192 * 3) in (0, 2 * 2 * 5 * 5 * 192)
