"""What vitlocal uses of other libraries beyond what they promise, in one place: a release may change it.

``tests/test_internals.py`` has a canary for each, which says what has changed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:  # networks use this module too, and know nothing of Lightning
    from lightning.pytorch import Trainer

MANY = 100_000


def epochs_begun(trainer: Trainer) -> int:
    """Epochs of training begun: during validation, the epoch that it ends counts."""
    return int(trainer.fit_loop.epoch_progress.current.ready)


def within_epoch(trainer: Trainer) -> bool:
    """Whether an epoch of training has begun and not ended."""
    progress = trainer.fit_loop.epoch_progress.current
    return bool(progress.processed < progress.ready)  # type: ignore[attr-defined]


def begin_next_epoch(trainer: Trainer) -> None:
    """Have a run that resumes at an epoch's end begin the next one, also where ``max_steps`` is given.

    There Lightning takes every checkpoint for one within an epoch, and would end the epoch a second time.
    """
    loop = trainer.fit_loop
    if loop.restarting and not within_epoch(trainer):
        loop.epoch_progress.increment_completed()
        for part in (loop, loop.epoch_loop):
            part._restarting = False  # the property's setter brings it back
            if hasattr(part, "reset_restart_stage"):  # not in the oldest releases
                part.reset_restart_stage()


def leaves_epoch(trainer: Trainer) -> bool:
    """Whether no batch of the epoch follows the one that ends: it was the last, or training stops."""
    return bool(trainer.fit_loop.epoch_loop.done)


def epochs_of_checkpoint(checkpoint: dict[str, Any]) -> int:
    """Epochs of training begun when a checkpoint was written.

    Raises:
        KeyError, TypeError, ValueError: the checkpoint is damaged.
    """
    return int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["ready"])


def accumulated_short(trainer: Trainer) -> float:
    """By what the loss of this training batch has to be multiplied, for its step's gradient to be a mean.

    Lightning divides by ``accumulate_grad_batches`` also at the end of an epoch, where a step may have fewer.
    """
    every, batches = trainer.accumulate_grad_batches, trainer.num_training_batches
    if not isinstance(batches, int):  # of a stream it is not known
        return 1.0
    fewer = batches % every
    return every / fewer if trainer.fit_loop.epoch_loop.batch_idx >= batches - fewer else 1.0


def steps_an_epoch(trainer: Trainer) -> int:
    """Optimiser steps of an epoch of ``fit``, whose loaders are made for it if they are not yet."""
    trainer.fit_loop.setup_data()
    return math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)


def set_up_validation(trainer: Trainer) -> None:
    """Make the validation loaders of ``fit`` before its first validation."""
    if trainer.val_dataloaders is None:
        trainer.fit_loop.epoch_loop.val_loop.setup_data()


def is_weights_of_process(path: str | Path) -> bool:
    """Whether a file holds the bare weights that a process started by Lightning hands over at its end."""
    return Path(path).name == ".temp.ckpt"


def global_seed() -> int:
    """The seed of ``seed_everything``, which Lightning leaves for the processes that it starts.

    torch's own initial seed, which differs from process to process, where there was none.
    """
    seed = os.environ.get("PL_GLOBAL_SEED")
    return torch.initial_seed() if seed is None else int(seed)


def cpu_has_amx() -> bool:
    """Whether the CPU multiplies matrices in bfloat16; ``get_capabilities`` is in newer releases only."""
    return bool(torch.cpu._is_amx_tile_supported())


@contextmanager
def float32_products(device: torch.device) -> Iterator[None]:
    """Within the block, matrix products of float32 are made in float32, not in TF32 or bfloat16.

    PyTorch has a setting a device since 2.9, and refuses to mix it with the one of before.
    """
    if hasattr(torch.backends, "fp32_precision"):
        setting: Any = torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn
        before = setting.matmul.fp32_precision
        if before in ("none", "ieee"):
            yield
            return
        setting.matmul.fp32_precision = "ieee"
        try:
            yield
        finally:
            setting.matmul.fp32_precision = before
    else:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)


@contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """Within the block, matrix products of float32 are in float32: no autocast, TF32 or bfloat16."""
    with float32_products(device), torch.autocast(device.type, enabled=False):
        yield


def softmax_backward(gradient: Tensor, output: Tensor) -> Tensor:
    """The gradient of softmax's input over the last dimension, from those of its output and the output."""
    return torch.ops.aten._softmax_backward_data(gradient, output, -1, output.dtype)


def clamp_backward(gradient: Tensor, output: Tensor, least: float, most: float) -> Tensor:
    """The gradient of ``clamp``'s input, 0 where the output is at an end."""
    return torch.ops.aten.hardtanh_backward(gradient, output, least, most)


@contextmanager
def compiling_many() -> Iterator[None]:
    """Within the block, ``torch.compile`` compiles any number of modules of one class, of whatever sizes.

    Else it leaves the ninth and all later ones as they are.
    """
    import torch._dynamo  # takes a second

    limits = {"cache_size_limit": MANY, "accumulated_cache_size_limit": MANY}
    with torch._dynamo.config.patch(limits):
        yield
