"""A run whose loss is no number any more is stopped."""

import math
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from vitlocal.errors import InputError

FAR = torch.iinfo(torch.int64).max


class FiniteLoss(Callback):
    """Stops training when the loss turns NaN or infinite, before that state can be saved.

    The loss is looked at on its device, so that no step has to wait for it; the answer is fetched
    every ``every_n_steps`` steps, before each validation, at each epoch's end, and before each
    checkpoint, together with whether the weights are finite.

    Args:
        every_n_steps: how often the answer is fetched within an epoch.

    Raises:
        InputError: from the hooks, in every process alike, with the first such step and its learning rate.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps
        self._step = 0
        self._rates: dict[int, float] = {}
        self._first_bad: Tensor | None = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note which step this is, and with which learning rate it is made."""
        self._step = trainer.global_step + 1
        self._rates[self._step] = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the step's loss."""
        bad = torch.where(outputs["loss"].detach().isfinite(), FAR, self._step)
        self._first_bad = bad if self._first_bad is None else torch.minimum(self._first_bad, bad)
        if (batch_idx + 1) % self.every_n_steps == 0:
            self._check(trainer, self._first_bad)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do not validate what is no network any more."""
        self._check_weights(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write no row of such an epoch."""
        self._check_weights(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Leave the checkpoint before as it is; every checkpoint of Lightning's comes by here."""
        self._check_weights(trainer, pl_module)

    def _check_weights(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._first_bad is None:  # before the first step
            return
        # A finite loss can have a gradient that is not.
        finite = torch.stack([weight.detach().isfinite().all() for weight in pl_module.parameters()]).all()
        self._check(trainer, torch.minimum(self._first_bad, torch.where(finite, FAR, self._step)))

    def _check(self, trainer: Trainer, first_bad: Tensor) -> None:
        # The least of all processes, so that all stop and say the same.
        step = int(trainer.strategy.reduce(first_bad.clone(), reduce_op="min"))
        if step < FAR:
            rate = self._rates.get(step, math.nan)
            raise InputError(
                f"training stopped at step {step} with learning rate {rate:.3g}: the loss or the weights are "
                "not finite from there on, so nothing was saved since; give a smaller model.lr, a longer "
                "model.warmup_epochs or trainer.gradient_clip_val, and start again"
            )
        self._rates = {self._step: self._rates[self._step]}
