"""Checkpoints are whole or not there, and a run resumes from one as if nothing had been."""

import errno
import os
import signal

import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from torch.multiprocessing import ProcessRaisedException

from vitlocal.data import NPZ
from vitlocal.errors import InputError
from vitlocal.runs import ProcessStates, RunCheckpoint
from vitlocal.runs.checkpoints import CheckpointFiles, newest, read
from vitlocal.tasks import Classification, EpochMetrics

CONTENT = {"state_dict": {"weight": torch.arange(5000.0)}, "hyper_parameters": {}, "global_step": 3}


def checkpoint(step):
    return {**CONTENT, "global_step": step}


@pytest.fixture
def folder(tmp_path):
    """The checkpoints of the newest of two runs, with two ``last`` ones."""
    for version in (0, 1):
        for step in (3, 6):
            path = tmp_path / f"version_{version}" / "checkpoints" / "last.ckpt"
            CheckpointFiles().save_checkpoint(checkpoint(step), path)
    return path.parent


# Files


def test_the_one_before_the_last_is_kept(folder):
    assert {path.name for path in folder.iterdir()} == {"last.ckpt", "last.previous.ckpt"}
    assert read(folder / "last.ckpt")["global_step"] == 6
    assert read(folder / "last.previous.ckpt")["global_step"] == 3
    loaded = CheckpointFiles().load_checkpoint(folder / "last.ckpt")
    assert torch.equal(loaded["state_dict"]["weight"], CONTENT["state_dict"]["weight"])


@pytest.mark.parametrize("at", ["write", "fsync", "rename"])
def test_a_full_disk_leaves_the_old_checkpoint(folder, monkeypatch, at):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    if at == "write":
        monkeypatch.setattr("pathlib.Path.open", full)
    elif at == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(InputError, match=r"last\.ckpt could not be written \(No space left"):
        CheckpointFiles().save_checkpoint(checkpoint(9), folder / "last.ckpt")
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_limit_of_the_file_size(folder):
    """A real failing write: the kernel takes only a part of it."""
    resource = pytest.importorskip("resource")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, old[1]))
    try:
        with pytest.raises(InputError, match=r"could not be written \(File too large\)"):
            CheckpointFiles().save_checkpoint(checkpoint(9), folder / "last.ckpt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert read(folder / "last.ckpt")["global_step"] == 6
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_one_that_is_cut_short_is_passed_over(folder, share, caplog):
    path = folder / "last.ckpt"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with caplog.at_level("INFO"):
        found = newest(folder.parent.parent, "last", resuming=True)
    assert found == (folder / "last.previous.ckpt", 3)
    assert "last.ckpt is not whole" in caplog.text
    (folder / "last.previous.ckpt").write_bytes(b"")
    with pytest.raises(InputError, match=r"none of .* can be read"):
        newest(folder.parent.parent, "last", resuming=True)


def test_one_that_was_being_replaced_is_found(folder):
    (folder / "last.ckpt").unlink()
    assert newest(folder.parent.parent, "last", resuming=True) == (folder / "last.previous.ckpt", 3)


def test_a_run_without_a_checkpoint(folder, tmp_path):
    (tmp_path / "version_2").mkdir()
    assert newest(tmp_path, "last", resuming=False) == (folder / "last.ckpt", 6)
    with pytest.raises(InputError, match="version_2 was stopped before its first checkpoint; start it anew"):
        newest(tmp_path, "last", resuming=True)
    with pytest.raises(InputError, match=r"no run in .* has a best\.ckpt"):
        newest(tmp_path, "best", resuming=False)


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    path = tmp_path / "crafted.ckpt"
    torch.save({"state_dict": {}, "hyper_parameters": Payload(tmp_path / "executed")}, path)
    for load in (read, lambda p: CheckpointFiles().load_checkpoint(p, weights_only=False)):
        with pytest.raises(InputError, match="no whole checkpoint of tensors and plain values"):
            load(path)
    assert not (tmp_path / "executed").exists()
    torch.save([1, 2], path)
    with pytest.raises(InputError, match="it lacks state_dict"):
        read(path)


# Going on


class At(Callback):
    """Does something after a number of batches, and remembers the batches."""

    def __init__(self, step=None, action=None):
        self.step, self.action, self.seen = step, action, []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append((trainer.current_epoch, batch_idx, batch["index"].tolist()))
        if trainer.global_step == self.step:
            self.action()


def train(make_trainer, data, folder, *, at=None, resume=False, **options):
    """Two epochs of three steps of a network that drops out; its weights, and what ``at`` saw."""
    seed_everything(0, verbose=False)
    at = at or At()
    network = {"embed_dim": 16, "depth": 2, "num_heads": 2, "drop_rate": 0.2, "drop_path_rate": 0.2}
    task = Classification(network, warmup_epochs=1)
    callbacks = [at, EpochMetrics(), ProcessStates(), RunCheckpoint(dirpath=folder, **options)]
    own = {"callbacks": callbacks, "plugins": [CheckpointFiles()], "enable_checkpointing": True}
    trainer = make_trainer(max_epochs=2, **own)
    trainer.fit(task, data, ckpt_path=folder / "last.ckpt" if resume else None)
    metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
    return task.state_dict(), at.seen, metrics


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
def test_sigterm_saves_and_the_run_resumes_exactly(make_trainer, small_data, tmp_path, step):
    weights, seen, metrics = train(make_trainer, small_data, tmp_path / "whole")
    stop = At(step, terminate)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit):
        train(make_trainer, small_data, tmp_path / "cut", at=stop)
    assert signal.getsignal(signal.SIGTERM) == handler
    assert stop.seen == seen[:step]
    assert read(tmp_path / "cut" / "last.ckpt")["global_step"] == step
    after = At()
    resumed = train(make_trainer, small_data, tmp_path / "cut", at=after, resume=True)
    assert after.seen == seen[step:]
    assert equal(resumed[0], weights)
    # Also those of the epoch that was interrupted.
    assert resumed[2] == metrics


def test_without_its_states_it_would_not_be_exact(make_trainer, small_data, tmp_path, monkeypatch):
    """The test above can fail."""
    weights, _, _ = train(make_trainer, small_data, tmp_path / "whole")
    monkeypatch.setattr(ProcessStates, "on_train_start", lambda *args: None)
    with pytest.raises(SystemExit):
        train(make_trainer, small_data, tmp_path / "cut", at=At(2, terminate))
    assert not equal(train(make_trainer, small_data, tmp_path / "cut", resume=True)[0], weights)


def test_last_is_the_last_even_if_it_is_not_the_best(make_trainer, small_data, tmp_path):
    train(make_trainer, small_data, tmp_path, monitor="val/loss", mode="max")  # which falls: epoch 1 is best
    assert read(tmp_path / "last.ckpt")["global_step"] == 6
    assert read(tmp_path / "best.ckpt")["global_step"] == 3


def test_checkpoints_within_epochs(make_trainer, small_data, tmp_path, monkeypatch):
    saved = []
    save = CheckpointFiles.save_checkpoint

    def noted(self, content, path, storage_options=None):
        if path.endswith("last.ckpt"):
            saved.append(content["global_step"])
        save(self, content, path, storage_options)

    monkeypatch.setattr(CheckpointFiles, "save_checkpoint", noted)
    train(make_trainer, small_data, tmp_path / "a", every_n_train_steps=2)
    assert saved == [2, 3, 4, 6]
    with pytest.raises(InputError, match="every_n_train_steps is 0"):
        RunCheckpoint(every_n_train_steps=0)


def raise_on_purpose():
    raise RuntimeError("on purpose")


def test_two_processes_go_on_within_an_epoch(make_trainer, npz_file, tmp_path):
    """12 images each in batches of 4: the checkpoint of step 2 is from the middle of an epoch."""

    def run(name, **options):
        folder = tmp_path / name
        data = NPZ(path=str(npz_file), batch_size=4)
        spread = {"strategy": "ddp_fork", "devices": 2, "default_root_dir": folder}
        train(lambda **own: make_trainer(**own, **spread), data, folder, every_n_train_steps=1, **options)
        return read(folder / "last.ckpt")["state_dict"], (folder / "metrics.csv").read_text()

    whole = run("whole")
    with pytest.raises(ProcessRaisedException, match="on purpose"):
        run("cut", at=At(3, raise_on_purpose))
    assert read(tmp_path / "cut" / "last.ckpt")["global_step"] == 2
    resumed = run("cut", resume=True)
    assert equal(resumed[0], whole[0])
    assert resumed[1] == whole[1]


class Stop(At):
    """Ends training after a step, as Lightning's Timer does when ``max_time`` is over."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        trainer.should_stop = trainer.should_stop or trainer.global_step == self.step


@pytest.mark.parametrize(("step", "balanced"), [(1, False), (2, True), (3, True), (4, False)])
def test_a_run_that_is_out_of_time_loses_no_step(make_trainer, npz_file, tmp_path, step, balanced):
    data = NPZ(path=str(npz_file), batch_size=8, balanced=balanced)
    weights, seen, metrics = train(make_trainer, data, tmp_path / "whole")
    stop = Stop(step, lambda: None)
    train(make_trainer, data, tmp_path / "cut", at=stop)
    assert stop.seen == seen[:step]
    after = At()
    resumed = train(make_trainer, data, tmp_path / "cut", at=after, resume=True)
    assert after.seen == seen[step:]
    assert equal(resumed[0], weights)
    assert resumed[2] == metrics
