"""What every component of a training protocol is: a callback that changes the batch in place."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from vitlocal.errors import InputError
from vitlocal.internals import global_seed


class Augmentation(pl.Callback, ABC):
    """A training-time change of a whole batch, in place and on the batch's device.

    Its random numbers are drawn on the CPU from a generator made anew for each batch by
    :func:`generator_for`. So every device gives the same batch, a resumed run draws what an
    uninterrupted one does, the ranks of a run differ, and there is no state to save.

    Attributes:
        place: in a protocol, which its numbers depend on; None among the callbacks of a trainer.
    """

    place: str | None = None

    @abstractmethod
    def apply(self, batch: dict[str, Tensor], generator: torch.Generator) -> None:
        """Change ``batch`` in place.

        Args:
            batch: ``image`` uint8 (B, C, H, W), C 1 or 3; ``target`` float32 (B, K), class probabilities.
            generator: the CPU generator that all random numbers of this batch come from.
        """

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Apply the augmentation with this batch's own random numbers."""
        place = self.place
        if place is None:  # among the callbacks of a trainer: two of one kind draw different numbers
            others = [one for one in trainer.callbacks if isinstance(one, Augmentation)]  # type: ignore[attr-defined]
            place = f"augmentation {others.index(self)}"
        generator = generator_for(global_seed(), place, trainer.global_rank, trainer.current_epoch, batch_idx)
        self.apply(batch, generator)


def generator_for(seed: int, place: str, rank: int, epoch: int, batch_idx: int) -> torch.Generator:
    """Return a CPU generator whose numbers depend on the arguments alone.

    Args:
        seed: the run's seed.
        place: of what draws, so that two components of a protocol are independent.
        rank: the process among those of a distributed run.
        epoch: the epoch, from 0.
        batch_idx: the batch of the epoch, from 0.
    """
    key = repr((seed, place, rank, epoch, batch_idx)).encode()
    digest = hashlib.blake2b(key, digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def check(allowed: bool, component: object, parameter: str, value: object, range_: str) -> None:
    """Refuse a constructor argument.

    Args:
        allowed: whether ``value`` is in range; written so that NaN is not.
        component: what is being constructed.
        parameter: the argument's name.
        value: what was given.
        range_: what may be given, in words.

    Raises:
        InputError: if not ``allowed``.
    """
    if not allowed:
        raise InputError(
            f"{type(component).__name__}: {parameter}={value!r} is given, but it must be {range_}."
        )


def apply_each(
    images: Tensor,
    which: Tensor,
    operations: Sequence[Callable[[Tensor, Tensor], Tensor]],
    parameter: Tensor,
) -> Tensor:
    """Apply to each image an operation of its own, each operation in one call, and return a new batch.

    Args:
        images: uint8 (B, C, H, W).
        which: int64 (B,), the number of the operation, -1 for none; on the CPU, so that the host knows
            how many images each gets and no device has to be waited for.
        operations: take n images and n parameters and give n images.
        parameter: (B,), on the CPU.
    """
    order = which.argsort()
    counts = (which + 1).bincount(minlength=len(operations) + 1).tolist()
    on_device = order.to(images.device, non_blocking=True)
    together = images.index_select(0, on_device)  # those of one operation side by side, the unchanged first
    parts, parameters = together.split(counts)[1:], parameter[order].split(counts)[1:]
    for operation, part, own in zip(operations, parts, parameters, strict=True):
        if len(part) > 0:
            part.copy_(operation(part, own))
    return together.index_select(0, order.argsort().to(images.device, non_blocking=True))
