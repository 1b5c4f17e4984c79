"""Several processes: the same numbers as one, the same run twice, and no one left behind."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from lightning.pytorch import Callback, seed_everything

from tests.data.test_image_folder import picture
from tests.tools import processes_table
from vitlocal.data import NPZ, ImageFolder, cache
from vitlocal.protocol import CropFlip
from vitlocal.runs import checkpoints
from vitlocal.tasks import Classification, EpochMetrics, PredictionWriter

TWO = {"strategy": "ddp_fork", "devices": 2}
NETWORK = {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
SMALL = {"network": NETWORK, "warmup_epochs": 1}


class Noted(Callback):
    """Writes each training batch to a file of the process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        with (self.folder / f"rank_{trainer.global_rank}.txt").open("a") as file:
            flat = batch["image"].flatten(1).tolist()
            for index, pixels in zip(batch["index"].tolist(), flat, strict=True):
                file.write(f"{trainer.current_epoch} {index} {hash(tuple(pixels))}\n")


def lines(path):
    return [tuple(map(int, line.split())) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("images", "batch_size"), [(13, 8), (1, 8)])
def test_two_processes_measure_what_one_does(tmp_path, monkeypatch, images, batch_size):
    """13: unequal shares, one of which is padded to a whole second batch; 1: a process without any image."""
    monkeypatch.setattr(processes_table, "SIZES", [(images, batch_size)])
    rows = processes_table.compare(tmp_path)
    assert {"val/loss", "val/acc1", "val/acc5", "locality/mad_min"} <= {row.name for row in rows}
    assert len(rows) > 40
    for row in rows:
        assert row.one == pytest.approx(row.two, abs=1e-6), row.name


def test_two_runs_are_the_same_and_the_processes_differ(make_trainer, npz_file, tmp_path):
    tables = []
    for run in ("first", "second"):
        folder = tmp_path / run
        folder.mkdir()
        seed_everything(0, verbose=False)
        callbacks = [CropFlip(padding=2), Noted(folder), EpochMetrics()]
        trainer = make_trainer(max_epochs=2, callbacks=callbacks, default_root_dir=folder, **TWO)
        trainer.fit(
            Classification({**NETWORK, "drop_rate": 0.1}, warmup_epochs=1),
            NPZ(path=str(npz_file), batch_size=4),
        )
        tables.append((folder / "metrics.csv").read_text())
    assert tables[0] == tables[1]
    ranks = [lines(tmp_path / "first" / f"rank_{rank}.txt") for rank in (0, 1)]
    assert ranks == [lines(tmp_path / "second" / f"rank_{rank}.txt") for rank in (0, 1)]
    # 24 images, 3 batches of 4 in each of 2 processes: each image once an epoch, in another order.
    for epoch in (0, 1):
        seen = [index for rank in ranks for number, index, _ in rank if number == epoch]
        assert sorted(seen) == list(range(24))
    assert [index for number, index, _ in ranks[0] if number == 0] != [
        index for number, index, _ in ranks[0] if number == 1
    ]


def test_processes_augment_differently(make_trainer, tmp_path):
    """Every image alike: then the batches differ by their augmentation alone."""
    one = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    arrays = {}
    for split in ("train", "val"):
        arrays |= {f"{split}_images": one.repeat(16, axis=0), f"{split}_labels": np.arange(16) % 2}
    np.savez(tmp_path / "alike.npz", **arrays)
    trainer = make_trainer(callbacks=[CropFlip(padding=4), Noted(tmp_path)], **TWO)
    trainer.fit(Classification(**SMALL), NPZ(path=str(tmp_path / "alike.npz"), batch_size=8))
    drawn = [[pixels for _, _, pixels in lines(tmp_path / f"rank_{rank}.txt")] for rank in (0, 1)]
    assert len(drawn[0]) == len(drawn[1]) == 8
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize(
    "bar",
    [
        pytest.param([], id="ours"),
        pytest.param(["--trainer.callbacks+=TQDMProgressBar"], id="given", marks=pytest.mark.slow),
    ],
)
def test_no_process_waits_for_a_progress_bar(tmp_path, npz_file, bar):
    """Without validation the bar of the first process asks for values that no one has computed yet."""
    command = [sys.executable, "-m", "vitlocal", "fit", "--config", "npz.yaml", f"--data.path={npz_file}"]
    command += [
        "--model.network.embed_dim=16",
        "--model.network.depth=1",
        "--model.network.num_heads=2",
        "--model.warmup_epochs=0",
    ]
    command += [
        "--trainer.accelerator=cpu",
        "--trainer.devices=2",
        "--trainer.strategy=ddp",
        "--locality=null",
    ]
    command += ["--trainer.max_epochs=1", "--trainer.limit_val_batches=0", "--checkpoint=null"]
    command += ["--trainer.logger=false", "--data.batch_size=4", "--locality=null", *bar]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, start_new_session=True) as process:
        try:
            said = process.communicate(timeout=90)[1]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 0, said.decode()
    assert list(tmp_path.rglob("metrics.csv"))
    assert said.decode().count("batches of 4 on each of 2 devices: 8 together") == 1


def test_predictions_of_two_processes(make_trainer, npz_file, tmp_path):
    """7 images: one process has padding, which is not written."""
    tables = []
    for options in ({}, TWO):
        seed_everything(0, verbose=False)
        trainer = make_trainer(callbacks=[PredictionWriter()], **options)
        data = NPZ(path=str(npz_file), batch_size=8)
        trainer.predict(Classification(**SMALL), data, return_predictions=False)
        with (tmp_path / "predictions.csv").open() as file:
            tables.append(list(csv.reader(file)))
    assert len(tables[0]) == 8
    assert [row[:3] for row in tables[0]] == [row[:3] for row in tables[1]]
    for one, two in zip(tables[0][1:], tables[1][1:], strict=True):
        assert float(one[3]) == pytest.approx(float(two[3]), abs=2e-6)


def test_one_process_builds_the_cache(make_trainer, tmp_path, monkeypatch):
    root, decoded = tmp_path / "pets", tmp_path / "decoded.txt"
    for number in range(6):
        picture(root / "train" / "ab"[number % 2] / f"{number}.png", number)
        picture(root / "val" / "ab"[number % 2] / f"{number}.png", number)
    decode = cache.decode

    def noted(*args):
        with decoded.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return decode(*args)

    monkeypatch.setattr(cache, "decode", noted)
    data = ImageFolder(str(root), image_size=8, batch_size=4)
    make_trainer(**TWO).validate(Classification(**SMALL), data, verbose=False)
    pids = decoded.read_text().split()
    assert len(pids) == 12 and len(set(pids)) == 1


def started(folder, npz_file):
    """A run of two processes that trains until it is ended; its process and the other's id."""
    command = [sys.executable, "-m", "vitlocal", "fit", "--config=npz.yaml", f"--data.path={npz_file}"]
    command += ["--config=modern.yaml"]
    command += [
        "--model.network.embed_dim=16",
        "--model.network.depth=2",
        "--model.network.num_heads=2",
        "--data.batch_size=8",
    ]
    command += ["--trainer.max_epochs=100000", "--trainer.accelerator=cpu", "--trainer.devices=2"]
    command += ["--trainer.strategy=ddp", "--trainer.enable_progress_bar=false"]
    with (folder / "log.txt").open("w") as log:
        first = subprocess.Popen(
            command,
            cwd=folder,
            stdout=log,
            stderr=log,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
    deadline = time.monotonic() + 100
    try:
        while not list(folder.glob("lightning_logs/*/version_*/metrics.csv")):
            assert time.monotonic() < deadline and first.poll() is None, (folder / "log.txt").read_text()
            time.sleep(0.1)
    except AssertionError:
        os.killpg(first.pid, signal.SIGKILL)
        raise
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(first.pid)], capture_output=True, text=True)
    (second,) = map(int, listed.stdout.split())
    return first, second


def alive(pid):
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return found.stdout.strip()[:1] not in ("", "Z")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks ps as on Linux")
@pytest.mark.parametrize(
    ("rank", "sign", "code", "sentence"),
    [
        (0, signal.SIGKILL, -signal.SIGKILL, "another process of this run has ended"),
        # Ours, or Lightning's where its launcher sees the end first and kills this process.
        pytest.param(
            *(1, signal.SIGKILL, None),
            "another process of this run has ended|Forcefully terminating all other",
            marks=pytest.mark.slow,
        ),
        (
            0,
            signal.SIGTERM,
            143,
            "ended by SIGTERM; the same command with --ckpt_path last resumes from here",
        ),
    ],
)
def test_no_process_is_left_behind(tmp_path, npz_file, rank, sign, code, sentence):
    first, second = started(tmp_path, npz_file)
    try:
        os.kill((first.pid, second)[rank], sign)
        deadline = time.monotonic() + 30
        while first.poll() is None or alive(second):
            assert time.monotonic() < deadline, "a process is left"
            time.sleep(0.1)
        said = (tmp_path / "log.txt").read_text()
        assert first.returncode == code if code is not None else first.returncode != 0
        assert re.search(sentence, said) and "Traceback" not in said
        if sign == signal.SIGTERM:
            (last,) = tmp_path.glob("lightning_logs/*/version_0/checkpoints/last.ckpt")
            step = checkpoints.read(last)["global_step"]
            for name in ("metrics", "heads"):
                with (last.parents[1] / f"{name}.csv").open() as file:
                    rows = list(csv.DictReader(file))
                # One step an epoch: 24 images in 2 processes in batches of 8.
                assert [int(row["epoch"]) for row in rows] == [int(row["step"]) for row in rows]
                assert int(rows[-1]["step"]) == step
    finally:
        for pid in (first.pid, second):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        first.wait()
