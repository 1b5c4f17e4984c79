"""How long a study will take: a few steps of its cells, timed on this machine."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from vitlocal.study.plan import Cell

STEPS, FIRST = 12, 3
"""Training steps that are made, and how many of them are not timed: the first ones are slower."""


class EpochSeconds(Callback):
    """Writes how long an epoch would take, from the steps that are made.

    Args:
        path: the file to write, JSON.
        train_batches: batches of training in an epoch, their number or share; null for all.
    """

    def __init__(self, path: str, train_batches: float | None = None) -> None:
        self.path, self.train_batches = path, train_batches
        self._begun = 0.0
        self._seconds: dict[str, list[float]] = {"train": [], "val": []}

    def on_train_batch_start(self, *args: Any) -> None:
        """Start the clock."""
        self._begun = time.perf_counter()

    def on_train_batch_end(self, *args: Any) -> None:
        """Stop it."""
        self._seconds["train"].append(time.perf_counter() - self._begun)

    def on_validation_batch_start(self, *args: Any) -> None:
        """Start the clock."""
        self._begun = time.perf_counter()

    def on_validation_batch_end(self, *args: Any) -> None:
        """Stop it."""
        self._seconds["val"].append(time.perf_counter() - self._begun)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the seconds of an epoch, validation included."""
        batches = len(trainer.train_dataloader)  # type: ignore[arg-type]
        if isinstance(self.train_batches, float):
            batches = int(batches * self.train_batches)
        elif self.train_batches is not None:
            batches = min(batches, self.train_batches)
        seconds = batches * statistics.median(self._seconds["train"][FIRST:] or self._seconds["train"])
        loaders = trainer.val_dataloaders
        if self._seconds["val"] and loaders is not None:
            seconds += len(loaders) * statistics.median(self._seconds["val"])
        Path(self.path).write_text(json.dumps(seconds))


def seconds_an_epoch(cells: Sequence[Cell], environment: Mapping[str, str]) -> dict[str, float]:
    """Seconds of an epoch of each cell whose data are at hand, by its name; nothing is downloaded or left.

    Cells that differ in their protocol and seed alone take the same time, so one of them is run.

    Args:
        cells: of a study.
        environment: variables of their processes, for threads and GPUs.
    """
    found: dict[str, float | None] = {}
    for cell in cells:
        kind = _kind(cell)
        if kind not in found:
            found[kind] = _timed(cell, environment)
    return {cell.name: seconds for cell in cells if (seconds := found[_kind(cell)]) is not None}


def _kind(cell: Cell) -> str:
    settings = {k: v for k, v in cell.settings.items() if k.startswith(("data.", "model.", "locality."))}
    return json.dumps([cell.data, settings], sort_keys=True)


def _timed(cell: Cell, environment: Mapping[str, str]) -> float | None:
    limit = json.loads(cell.settings.get("trainer.limit_train_batches", "null"))
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "seconds.json"
        words = [
            *cell.words,
            f"--trainer.default_root_dir={folder}",
            f"--trainer.limit_train_batches={STEPS}",
            "--trainer.limit_val_batches=2",
            "--trainer.max_epochs=1",
            "--trainer.num_sanity_val_steps=0",
            "--trainer.logger=false",
            "--trainer.enable_progress_bar=false",
            "--trainer.enable_model_summary=false",
            "--model.warmup_epochs=0",
            "--locality.before_training=false",
            "--checkpoint=null",
            f"--trainer.callbacks+={EpochSeconds.__module__}.{EpochSeconds.__qualname__}",
            f"--trainer.callbacks.path={written}",
            *([f"--trainer.callbacks.train_batches={limit}"] if limit is not None else []),
        ]
        if cell.downloads:  # no estimate is worth a download
            words.append(f"--data.sources=[file://{folder}/nothing]")
        subprocess.run(
            [sys.executable, "-m", "vitlocal", "fit", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **environment},
            check=False,
        )
        return float(json.loads(written.read_text())) if written.is_file() else None
