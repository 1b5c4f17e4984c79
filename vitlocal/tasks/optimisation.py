"""AdamW with warm-up and a schedule, the same for every task."""

import math

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from vitlocal.errors import InputError
from vitlocal.internals import steps_an_epoch
from vitlocal.tasks.schedule import Schedule, by_epochs, decay_groups, warmup_then


def optimiser_with_schedule(
    module: LightningModule,
    network: nn.Module,
    lr: float,
    weight_decay: float,
    schedule: Schedule,
    warmup_epochs: float,
    by_epoch: bool = False,
) -> OptimizerLRScheduler:
    """What ``configure_optimizers`` gives.

    Args:
        module: that is trained, with its trainer.
        network: whose parameters are.
        lr: peak learning rate.
        weight_decay: on matrices.
        schedule: after warm-up.
        warmup_epochs: of linear warm-up.
        by_epoch: change the learning rate after each epoch, see :func:`by_epochs`; else after each step.

    Raises:
        InputError: the schedule has an end, and the trainer none.
    """
    trainer = module.trainer
    groups = decay_groups(network, weight_decay)
    # Lightning refuses to clip the gradients of a fused optimiser in mixed precision.
    fused = not trainer.gradient_clip_val
    optimizer = torch.optim.AdamW(groups, lr=lr, fused=fused)
    total = trainer.estimated_stepping_batches
    if total == math.inf and schedule != "constant":
        raise InputError(
            f"trainer.max_epochs is not set, nor max_steps: the {schedule} schedule needs to know where it "
            "ends; give one of them, or model.schedule=constant"
        )
    steps = steps_an_epoch(trainer)
    warmup = round(warmup_epochs * steps)
    if warmup > total:
        rank_zero_warn(f"the {warmup_epochs} warm-up epochs do not end within the {total} training steps")
    if by_epoch:
        epochs = math.ceil(total / steps)
        change = LambdaLR(optimizer, lambda epoch: by_epochs(schedule, epoch, round(warmup_epochs), epochs))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": change, "interval": "epoch"}}
    change = LambdaLR(optimizer, lambda step: warmup_then(schedule, step, warmup, total))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": change, "interval": "step"}}
