"""Canaries: each fails where a release of another library has changed what it does not promise."""

import inspect
import os
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import LambdaCallback

from tests import blobs
from vitlocal import internals
from vitlocal.protocol import Protocol
from vitlocal.tasks import Classification


class Progress(Callback):
    def __init__(self):
        self.seen = []

    def on_train_start(self, trainer, pl_module):
        self.steps = internals.steps_an_epoch(trainer)
        internals.set_up_validation(trainer)
        self.loaders = trainer.val_dataloaders
        self.note("start", trainer)

    def on_train_batch_end(self, trainer, *_):
        self.note("batch", trainer)

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.note("validation", trainer)

    def on_train_end(self, trainer, pl_module):
        self.note("end", trainer)

    def note(self, where, trainer):
        self.seen.append((where, internals.epochs_begun(trainer), internals.within_epoch(trainer)))


def test_lightnings_progress_and_loaders(small_data, make_trainer):
    progress = Progress()
    task = Classification({"embed_dim": 8, "depth": 1, "num_heads": 2}, warmup_epochs=0)
    trainer = make_trainer(max_epochs=2, callbacks=[progress, *Protocol().callbacks()])
    trainer.fit(task, small_data)
    assert progress.loaders is not None and progress.steps == 3
    batches = [[("batch", epoch, True)] * 3 + [("validation", epoch, True)] for epoch in (1, 2)]
    assert progress.seen == [("start", 0, False), *batches[0], *batches[1], ("end", 2, False)]


def test_where_an_epoch_is_left(small_data, make_trainer):
    left = []
    note = LambdaCallback(on_train_batch_end=lambda trainer, *_: left.append(internals.leaves_epoch(trainer)))
    task = Classification({"embed_dim": 8, "depth": 1, "num_heads": 2}, warmup_epochs=0)
    callbacks = [note, *Protocol().callbacks()]
    make_trainer(max_epochs=2, max_steps=5, callbacks=callbacks).fit(task, small_data)
    assert left == [False, False, True, False, True]


def test_a_checkpoints_epochs(tmp_path, npz_file):
    run = blobs.fit(tmp_path, npz_file)
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert internals.epochs_of_checkpoint(checkpoint) == 2


@pytest.mark.parametrize("limit", ["max_epochs=1", "max_steps=3"])  # three steps an epoch
def test_a_run_that_ended_with_an_epoch_resumes_by_steps(tmp_path, npz_file, limit):
    words = ("--locality=null", "--model.schedule=constant")
    whole = blobs.fit(tmp_path / "whole", npz_file, *words)
    blobs.fit(tmp_path / "parts", npz_file, *words, f"--trainer.{limit}")
    more = ("--trainer.max_epochs=9", "--trainer.max_steps=6", "--ckpt_path=last")
    parts = blobs.fit(tmp_path / "parts", npz_file, *words, *more)
    assert (parts / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()


def test_a_checkpoint_holds_the_tasks_arguments_and_not_the_whole_configuration(tmp_path, npz_file):
    run = blobs.fit(tmp_path, npz_file)
    kept = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["hyper_parameters"]
    assert kept.keys() <= set(inspect.signature(Classification).parameters)


def test_products_of_float32_are_in_float32_and_the_setting_comes_back():
    """TF32 and bfloat16 keep 10 and 7 bits of a factor: 1 + 2^-12 would be 1."""
    factor = torch.full((64, 64), 1 + 2.0**-12)
    try:
        for setting in ("medium", "high", "highest"):
            torch.set_float32_matmul_precision(setting)
            with internals.float32_products(torch.device("cpu")):
                assert (factor @ torch.eye(64) == factor).all()
            assert torch.get_float32_matmul_precision() == setting
    finally:
        torch.set_float32_matmul_precision("highest")


def test_lightning_leaves_its_seed(monkeypatch):
    seed_everything(123)
    assert internals.global_seed() == 123
    monkeypatch.delenv("PL_GLOBAL_SEED")
    torch.manual_seed(7)
    assert internals.global_seed() == 7
    assert "PL_GLOBAL_SEED" not in os.environ


def test_lightning_names_the_weights_that_spawned_processes_hand_over():
    import inspect

    from lightning.pytorch.strategies.launchers import multiprocessing

    assert ".temp.ckpt" in inspect.getsource(multiprocessing)
    assert internals.is_weights_of_process("/some/where/.temp.ckpt")
    assert not internals.is_weights_of_process("last.ckpt")


def test_backward_of_softmax_and_clamp_are_autograds():
    scores = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    weights = scores.softmax(-1)
    clipped = (weights - 0.1).clamp(0, 0.4)
    towards = torch.randn_like(clipped)
    expected, of_weights = torch.autograd.grad(clipped, (scores, weights), towards)
    with torch.no_grad():
        found = internals.clamp_backward(towards, clipped, 0, 0.4)
        torch.testing.assert_close(found, of_weights)
        torch.testing.assert_close(internals.softmax_backward(found, weights), expected)


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="Linux says what the CPU has")
def test_the_cpus_matrix_units():
    assert internals.cpu_has_amx() == ("amx_bf16" in Path("/proc/cpuinfo").read_text())
