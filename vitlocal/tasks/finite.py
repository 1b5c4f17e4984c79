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

    The losses stay on their device, so that no step has to wait for them, and are looked at every
    ``every_n_steps`` steps; before each validation, at each epoch's end and before each checkpoint,
    the weights are looked at too.

    Args:
        every_n_steps: how often the losses are looked at within an epoch.

    Raises:
        InputError: from the hooks, in every process alike, with the first such step and its learning rate.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps
        self._step, self._rate = 0, math.nan
        self._seen: list[tuple[int, float, Tensor]] = []  # step, learning rate and loss

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note which step this is, and with which learning rate it is made."""
        self._step = trainer.global_step + 1
        self._rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the step's loss."""
        self._seen.append((self._step, self._rate, outputs["loss"].detach()))
        if (batch_idx + 1) % self.every_n_steps == 0:
            self._check(trainer)

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
        if not self._step:  # before the first one
            return
        # A finite loss can have a gradient that is not.
        finite = torch.stack([weight.detach().isfinite().all() for weight in pl_module.parameters()]).all()
        self._seen.append((self._step, self._rate, torch.where(finite, 0.0, math.nan)))
        self._check(trainer)

    def _check(self, trainer: Trainer) -> None:
        steps, rates, losses = zip(*self._seen, strict=True)
        self._seen = []
        finite = torch.stack(losses).isfinite()
        first_bad = torch.where(finite, FAR, torch.tensor(steps, device=finite.device)).min()
        # The least of all processes, so that all stop and say the same.
        step = int(trainer.strategy.reduce(first_bad, reduce_op="min"))
        if step < FAR:
            rate = dict(zip(steps, rates, strict=True))[step]
            raise InputError(
                f"training stopped at step {step} with learning rate {rate:.3g}: the loss or the weights are "
                "not finite from there on, so nothing was saved since; give a smaller model.lr, a longer "
                "model.warmup_epochs or trainer.gradient_clip_val, and start again"
            )
