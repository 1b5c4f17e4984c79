"""Validate one network in one process and in two, and print what each says, side by side.

python tests/tools/processes_table.py

Numbers of images and batch sizes are such that the processes get unequal shares, one of them even
none: padding that counted, or an image that did not, would show.
"""

import argparse
import contextlib
import csv
import io
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Trainer, seed_everything

from vitlocal.data import NPZ
from vitlocal.heads import LocalityMonitor
from vitlocal.tasks import Classification

SIZES = ((13, 8), (257, 128), (1, 8), (17, 8))  # images, batch size
SHOWN = ("val/loss", "val/acc1", "val/acc5", "locality/mad_min", "locality/entropy_min")


@dataclass
class Row:
    """One number of a validation set, from one process and from two."""

    images: int
    batch_size: int
    name: str
    one: float
    two: float


def make_data(folder: Path, images: int) -> Path:
    """A data set of 7 classes with so many validation images of noise."""
    rng, path = np.random.default_rng(images), folder / f"noise_{images}.npz"
    arrays = {}
    for split, count in (("train", 14), ("val", images)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count) % 7
    np.savez(path, **arrays)
    return path


def validate(folder: Path, data: Path, batch_size: int, processes: int) -> dict[str, float]:
    """All that a validation logs, and all of ``heads.csv``."""
    seed_everything(0, verbose=False)
    root = folder / f"{data.stem}_{processes}"
    trainer = Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp_fork" if processes > 1 else "auto",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[LocalityMonitor()],
        default_root_dir=root,
    )
    task = Classification({"embed_dim": 16, "depth": 2, "num_heads": 2})
    trainer.validate(task, NPZ(path=str(data), batch_size=batch_size), verbose=False)
    numbers = {name: value.item() for name, value in trainer.callback_metrics.items()}
    with (root / "heads.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            place = row["layer"], row["head"]
            numbers |= {f"heads.csv {name} of {place}": float(value) for name, value in row.items()}
    return numbers


def compare(folder: Path) -> list[Row]:
    """Every number of every size."""
    rows = []
    for images, batch_size in SIZES:
        data = make_data(folder, images)
        one, two = (validate(folder, data, batch_size, processes) for processes in (1, 2))
        if one.keys() != two.keys():
            raise RuntimeError(f"not the same numbers: {one.keys() ^ two.keys()}")
        rows += [Row(images, batch_size, name, one[name], two[name]) for name in one]
    return rows


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stderr(io.StringIO()):
        found = compare(Path(name))
    print(f"{'images':>6} {'batch':>5} {'':22} {'1 process':>12} {'2 processes':>12} {'difference':>10}")
    for row in found:
        if row.name in SHOWN:
            difference = abs(row.one - row.two)
            numbers = f"{row.one:12.8f} {row.two:12.8f} {difference:10.1e}"
            print(f"{row.images:6} {row.batch_size:5} {row.name:22} {numbers}")
    largest = max(abs(row.one - row.two) for row in found)
    print(f"largest difference of all {len(found)} numbers, those of every head included: {largest:.1e}")
    sys.exit(largest > 1e-6)
