"""Where runs go: ``lightning_logs/<data>-<protocol>/version_N``."""

from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import torch.distributed as dist
from lightning.pytorch import Trainer

T = TypeVar("T")


def folder(root: str | Path | None, data: str, protocol: str) -> Path:
    """The folder of all runs of a data set under a protocol; ``root`` is the trainer's root folder."""
    return Path(root or ".") / "lightning_logs" / f"{data}-{protocol}"


def versions(runs: Path) -> list[Path]:
    """The run folders in ``runs``, oldest first."""
    found = [path for path in runs.glob("version_*") if path.name.removeprefix("version_").isdecimal()]
    return sorted(found, key=number)


def number(version: Path) -> int:
    """N of a run folder ``version_N``."""
    return int(version.name.removeprefix("version_"))


def next_version(runs: Path) -> int:
    """N of the folder ``version_N`` that the next run in ``runs`` gets."""
    old = versions(runs)
    return number(old[-1]) + 1 if old else 0


def remove_unbegun(version: Path) -> None:
    """Remove the folder of a run that never began, and what TensorBoard's logger has put into it."""
    files = list(version.glob("*"))
    if not files or not all(file.name.startswith(("events.out.tfevents.", "hparams.yaml")) for file in files):
        return
    for file in files:
        file.unlink()
    with suppress(OSError):  # another run is in it
        for folder in (version, version.parent, version.parent.parent):
            folder.rmdir()


def writable_folder(trainer: Trainer) -> Path | None:
    """The run's folder for the process that writes its files, None for the others and in a dry run.

    Every process has to ask, since asking is collective.
    """
    folder = trainer.log_dir or trainer.default_root_dir
    dry_run: int | bool = trainer.fast_dev_run  # type: ignore[attr-defined]
    return Path(folder) if trainer.is_global_zero and not dry_run else None


def gathered(value: T) -> list[T]:
    """What every process passes, in the order of their ranks; call it in all of them."""
    if not dist.is_initialized():
        return [value]
    everyone: list[T] = [value] * dist.get_world_size()
    dist.all_gather_object(everyone, value)
    return everyone
