"""Callbacks by which a run that was interrupted resumes as if it had not been."""

import math
import re
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import Metric

from vitlocal import internals
from vitlocal.errors import InputError
from vitlocal.processes import gathered
from vitlocal.runs.checkpoints import LAST


def refuse_folders(what: str, filename: str, inserted: bool) -> None:
    """Refuse a name of checkpoints with a slash, as the values of metrics such as {val/acc1} bring one.

    Args:
        what: is given the name, for the sentence.
        filename: as ``ModelCheckpoint`` takes it.
        inserted: whether {val/acc1} becomes val/acc1=0.9, and not 0.9 alone.

    Raises:
        InputError: it would make folders.
    """
    if "/" in (filename if inserted else re.sub(r"\{.*?\}", "", filename)):
        raise InputError(
            f"{what}.filename is {filename}, whose / makes folders: give a name without, and for the "
            f"value of a metric such as {{val/acc1}} also {what}.auto_insert_metric_name=false"
        )


class RunCheckpoint(ModelCheckpoint):
    """``best.ckpt`` by a monitored value, and ``last.ckpt`` from which an interrupted run resumes.

    ``last.ckpt`` is written after every epoch, whether or not it was the best, every
    ``every_n_train_steps`` within one, where training stops within one, and on SIGTERM, which then ends the
    run.

    Args:
        monitor: the value that chooses the best; null: val/acc1, or where images have several labels
            val/auroc_macro, since almost all of rare labels are right where none is ever predicted.
        mode: whether the ``max`` or the ``min`` of it is the best.
        filename: of the best.
        every_n_train_steps: write ``last.ckpt`` every so many steps too; null: after epochs only.
        enable_version_counter: number the files of one name instead of replacing them.
        kwargs: Lightning's other arguments, about the best.

    Raises:
        InputError: ``every_n_train_steps`` is below 1, or ``filename`` would make folders.
    """

    def __init__(
        self,
        monitor: str | None = None,
        mode: str = "max",
        filename: str = "best",
        every_n_train_steps: int | None = None,
        enable_version_counter: bool = False,
        **kwargs: Any,
    ) -> None:
        if every_n_train_steps is not None and every_n_train_steps < 1:
            raise InputError(
                f"checkpoint.every_n_train_steps is {every_n_train_steps}: give at least 1, or null"
            )
        refuse_folders("checkpoint", filename, kwargs.get("auto_insert_metric_name", True))
        super().__init__(
            monitor=monitor or "val/acc1",
            mode=mode,
            filename=filename,
            enable_version_counter=enable_version_counter,
            **kwargs,
        )
        self._by_data = monitor is None
        self._within_epochs = every_n_train_steps
        self._terminated = False
        self._cut_short = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the monitor by the data, which have been read, where none is given."""
        datamodule = getattr(trainer, "datamodule", None)
        if self._by_data and getattr(datamodule, "multilabel", False):
            self.monitor = "val/auroc_macro"
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take SIGTERM over from Lightning, whose processes may stop at different batches."""
        super().on_train_start(trainer, pl_module)
        self._cut_short = False
        if threading.current_thread() is threading.main_thread():  # elsewhere Python refuses
            signal.signal(signal.SIGTERM, self._terminate)  # Lightning puts the old handler back at the end

    def _terminate(self, signum: int, frame: FrameType | None) -> None:
        self._terminated = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save within an epoch, where it is due; not after its last batch: its end is soon enough.

        From there a run would resume with the next epoch, without this one's validation. So an epoch that
        ``max_time`` or ``max_steps`` cuts short is saved here and not at its end, after which the batches
        that it still had would be lost.
        """
        if trainer.is_last_batch:
            return
        if internals.leaves_epoch(trainer):
            self._cut_short = True
            self._save_last(trainer)
            return
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        every = self._within_epochs
        terminated = self._agreed(trainer)
        if terminated or (every is not None and trainer.global_step % every == 0):
            self._save_last(trainer)
        if terminated:
            raise SIGTERMException

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the best, if it is, then the last."""
        super().on_train_epoch_end(trainer, pl_module)
        if not self._cut_short:
            self._save_last(trainer)
        if self._agreed(trainer):
            raise SIGTERMException

    def _agreed(self, trainer: Trainer) -> bool:
        """Whether any process was told to end; all of them come to the same answer."""
        return trainer.strategy.reduce_boolean_decision(self._terminated, all=False)

    def _save_last(self, trainer: Trainer) -> None:
        if trainer.fast_dev_run or self.dirpath is None:  # type: ignore[attr-defined]
            return
        for logger in trainer.loggers:
            # So that a resumed run's curves have no gap before the checkpoint.
            if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
                logger.experiment.flush()
        self.last_model_path = str(Path(self.dirpath) / LAST)
        trainer.save_checkpoint(self.last_model_path, self.save_weights_only)


class ProcessStates(Callback):
    """Puts into a checkpoint what each process has of its own, and Lightning does not save.

    The state of torch's random numbers, from which dropout and stochastic depth draw, and of the
    module's metrics within an epoch.
    """

    KEY = "vitlocal_processes"

    def __init__(self) -> None:
        self._state: Mapping[str, Any] | None = None

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Gather the states of all processes; Lightning calls this in each of them."""
        within_epoch = internals.within_epoch(trainer)
        checkpoint[self.KEY] = gathered(
            {
                "random": {name: get().cpu() for name, (get, _) in _generators(pl_module.device).items()},
                "metrics": {
                    # Lists grow at validation and test alone, and are empty in between.
                    name: {
                        key: value.cpu()
                        for key, value in metric.metric_state.items()
                        if isinstance(value, Tensor)
                    }
                    for name, metric in _metrics(pl_module).items()
                    if within_epoch
                },
            }
        )

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep this process's own."""
        everyone = checkpoint.get(self.KEY, [])
        self._state = everyone[trainer.global_rank] if trainer.global_rank < len(everyone) else None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set them, now that nothing but training itself will draw or measure."""
        if self._state is None:
            return
        for name, (_, put) in _generators(pl_module.device).items():
            if name in self._state["random"]:
                put(self._state["random"][name])
        metrics = _metrics(pl_module)
        for name, state in self._state["metrics"].items():
            for key, value in state.items():
                setattr(metrics[name], key, value.to(metrics[name].device))
        self._state = None


class ResumedSchedule(Callback):
    """Begins the next epoch where a run resumes at the end of one, and warns if the schedule has changed."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the learning rate of the checkpoint with that of the schedule at the same step."""
        if trainer.ckpt_path is None:
            return
        internals.begin_next_epoch(trainer)
        for config in trainer.lr_scheduler_configs:
            schedule = config.scheduler
            if not isinstance(schedule, LambdaLR):
                continue
            was, now = (
                schedule.get_last_lr()[0],
                schedule.base_lrs[0] * schedule.lr_lambdas[0](schedule.last_epoch),
            )
            if not math.isclose(was, now, rel_tol=1e-6, abs_tol=1e-6 * schedule.base_lrs[0]):
                rank_zero_warn(
                    f"the learning rate was {was:.3g} at the end of the checkpoint, and the schedule now has "
                    f"{now:.3g} there: it depends on trainer.max_epochs or max_steps, which have changed"
                )


def _generators(device: torch.device) -> dict[str, tuple[Callable[[], Any], Callable[[Any], None]]]:
    """How to get and set the state of each generator that layers draw from."""
    found: dict[str, tuple[Callable[[], Any], Callable[[Any], None]]] = {
        "cpu": (torch.get_rng_state, torch.set_rng_state)
    }
    if device.type == "cuda":
        found["cuda"] = (
            lambda: torch.cuda.get_rng_state(device),
            lambda state: torch.cuda.set_rng_state(state, device),
        )
    return found


def _metrics(module: LightningModule) -> dict[str, Metric]:
    return {name: part for name, part in module.named_modules() if isinstance(part, Metric)}
