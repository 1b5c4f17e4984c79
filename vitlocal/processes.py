"""What the processes of one run have in common: which of them writes, and what all of them know."""

from pathlib import Path
from typing import TypeVar

import torch.distributed as dist
from lightning.pytorch import Trainer

T = TypeVar("T")


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
