"""What every component of a training protocol is: a callback, and a function, that changes batches."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from vitlocal.errors import InputError
from vitlocal.internals import global_seed
from vitlocal.protocol.batch import check_images, places, probabilities, replaced


class Augmentation(pl.Callback, ABC):
    """A training-time change of a whole batch on its device, with random numbers of its own for each image.

    As a callback of any Lightning project it changes each training batch: a mapping, list or tuple with
    images and labels (see :mod:`vitlocal.protocol.batch`). Its random numbers are drawn on the CPU from a
    generator made anew for each batch by :func:`generator_for`. So every device gives the same batch, a
    resumed run draws what an uninterrupted one does, the ranks of a run differ, and no state is saved.

    Called with images and labels it gives changed ones, with random numbers that depend on torch's global
    generator, as those of torchvision's transforms do:
    ``DataLoader(..., collate_fn=lambda samples: cutmix(*default_collate(samples)))``.

    Attributes:
        place: in a protocol, which its numbers depend on; None among the callbacks of a trainer.
        changes_labels: whether it changes ``target``, so that class numbers have to become probabilities.
        num_classes: K, for that.
    """

    place: str | None = None
    changes_labels: bool = False
    num_classes: int | None = None

    @abstractmethod
    def apply(self, batch: dict[str, Tensor], generator: torch.Generator) -> None:
        """Change ``batch`` in place.

        Args:
            batch: ``image`` (B, C, H, W), uint8 or floats in 0..1, C 1 or 3; ``target`` float32 (B, K), class
                probabilities.
            generator: the CPU generator that all random numbers of this batch come from.
        """

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> Any:
        """Change a batch of images and its labels, which are left as they are.

        Args:
            images: (B, C, H, W), uint8 or floats in 0..1, C 1 or 3.
            labels: class numbers (B,) or probabilities (B, K).

        Returns:
            Changed images of the same type; with ``labels``, a pair of images and labels. What mixes labels
            gives probabilities, float32 (B, K).

        Raises:
            InputError: images or labels are not as above, or there are class numbers to be mixed and no
                ``num_classes``.
        """
        generator = torch.Generator().manual_seed(int(torch.randint(2**63 - 1, ())))
        changed = self._changed(images, labels, generator)
        return changed[0] if labels is None else changed

    def _changed(
        self, images: Tensor, labels: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        check_images(images, self)
        batch = {"image": images}
        if self.changes_labels:
            batch["target"] = probabilities(labels, len(images), self.num_classes, self)
        self.apply(batch, generator)
        return batch["image"], batch.get("target", labels)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Apply the augmentation with this batch's own random numbers."""
        place = self.place
        if place is None:  # among the callbacks of a trainer: two of one kind draw different numbers
            others = [one for one in trainer.callbacks if isinstance(one, Augmentation)]  # type: ignore[attr-defined]
            place = f"augmentation {others.index(self)}"
        generator = generator_for(global_seed(), place, trainer.global_rank, trainer.current_epoch, batch_idx)
        if _is_our_own(batch):
            self.apply(batch, generator)
            return
        step = pl_module.__dict__.get("training_step")
        current = step.batch if isinstance(step, StepWith) else batch
        where, labels = places(current)
        found = self._changed(current[where], None if labels is None else current[labels], generator)
        changed = replaced(current, {where: found[0], labels: found[1]})
        if changed is not batch:  # a tuple can't be changed in place
            StepWith.hand_over(pl_module, changed)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Give the module its own ``training_step`` back."""
        StepWith.take_back(pl_module)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Give the module its own ``training_step`` back."""
        StepWith.take_back(pl_module)


class StepWith:
    """A module's ``training_step`` with another batch in the place of the one that Lightning hands it."""

    def __init__(self, pl_module: pl.LightningModule) -> None:
        self.before = pl_module.__dict__.get("training_step")
        self.__wrapped__ = pl_module.training_step  # where Lightning looks for the names of its arguments
        self.batch: Any = None

    def __call__(self, batch: Any, *others: Any) -> Any:
        """One step."""
        return self.__wrapped__(self.batch, *others)

    @staticmethod
    def hand_over(pl_module: pl.LightningModule, batch: Any) -> None:
        """Let the module's next step have ``batch``."""
        if not isinstance(pl_module.__dict__.get("training_step"), StepWith):
            pl_module.training_step = StepWith(pl_module)  # type: ignore[method-assign]
        pl_module.__dict__["training_step"].batch = batch

    @staticmethod
    def take_back(pl_module: pl.LightningModule) -> None:
        """Undo :meth:`hand_over`, if it was called."""
        step = pl_module.__dict__.get("training_step")
        if isinstance(step, StepWith):
            del pl_module.training_step
            if step.before is not None:
                pl_module.training_step = step.before  # type: ignore[method-assign]


def _is_our_own(batch: Any) -> bool:
    """Whether a batch is one of vitlocal's data modules: a dict with images and class probabilities."""
    target = batch.get("target") if isinstance(batch, dict) else None
    return isinstance(target, Tensor) and target.ndim == 2 and "image" in batch


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
