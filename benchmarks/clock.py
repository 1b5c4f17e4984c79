"""A callback that times training epochs, for `epoch.py` and `scale.py`."""

import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class Clock(Callback):
    """Writes the seconds of each training epoch, from its first batch's loading to its last step, to a file.

    Args:
        path: gets a line an epoch.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def on_train_epoch_start(self, *args: Any) -> None:
        """Start."""
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop, once the device is done."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if trainer.is_global_zero:
            with self.path.open("a") as file:
                file.write(f"{time.perf_counter() - self.start}\n")


def taken(path: Path) -> float:
    """The seconds of the only epoch in a file that :class:`Clock` wrote, which is removed."""
    (seconds,) = path.read_text().split()
    path.unlink()
    return float(seconds)
