"""metrics.csv: losses and accuracies, one row an epoch."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from vitlocal.files import EpochTable
from vitlocal.processes import writable_folder
from vitlocal.tasks.objective import Objective, OneLabel, SeveralLabels, objective_of

MACRO = ("val/f1_macro", "val/auroc_macro")
LOCALITY = (
    "locality/mad_min",
    "locality/self_mass_of_mad_min",
    "locality/class_mass_of_mad_min",
    "locality/mad_min_early",
    "locality/mad_raw_min",
    "locality/class_mass_max",
    "locality/entropy_min",
)


def of_training(objective: Objective) -> tuple[str, ...]:
    """What is measured of training under an objective."""
    return ("train/loss", f"train/{objective.accuracies[0]}_augmented")


def of_validation(objective: Objective) -> tuple[str, ...]:
    """What the task measures at validation under an objective."""
    return ("val/loss", *(f"val/{name}" for name in objective.accuracies), *MACRO)


def columns(objective: Objective) -> tuple[str, ...]:
    """Of metrics.csv under an objective."""
    return ("epoch", "step", "lr", *of_training(objective), *of_validation(objective), *LOCALITY)


LOGGED = tuple(
    dict.fromkeys(
        name
        for objective in (OneLabel(), SeveralLabels())
        for name in ("loss", "lr", *of_training(objective), *of_validation(objective))
    )
)
"""What the task may log, apart from what monitors of heads do."""


class EpochMetrics(Callback):
    """Writes ``metrics.csv`` into the run folder as training goes on, and logs what is of training.

    One row an epoch, counted from 1 as the number of epochs done; values that were not measured in
    an epoch are left empty. The losses and accuracies of training and the learning rate go to the
    loggers from here: what Lightning logs of a step or an epoch comes after its checkpoint, and would
    be missing from a run that is killed in between and resumed.
    """

    def __init__(self) -> None:
        self._seen: dict[str, Tensor] = {}

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Log the learning rate, every ``log_every_n_steps`` steps."""
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        first_of_step = batch_idx % trainer.accumulate_grad_batches == 0
        if every and first_of_step and (trainer.global_step + 1) % every == 0:
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            for logger in trainer.loggers:
                logger.log_metrics({"lr": rate}, step=trainer.global_step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's row, and log it."""
        objective = objective_of(pl_module.hparams.get("multilabel"))
        # Collective as the folder is: every process asks for them.
        values, folder = trainer.callback_metrics, writable_folder(trainer)
        training = {name: float(values[name]) for name in of_training(objective) if name in values}
        for logger in trainer.loggers:
            # Steps are counted from 0 in loggers, so this is the last one.
            logger.log_metrics({**training, "epoch": trainer.current_epoch}, step=trainer.global_step - 1)
        # The trainer keeps what was measured in earlier epochs: only what is new is of this one.
        new = {name: value for name, value in values.items() if value is not self._seen.get(name)}
        self._seen = dict(values)
        if folder is None:
            return
        names = columns(objective)
        row = {name: f"{float(new[name]):.6g}" for name in names if name in new}
        table = EpochTable(folder / "metrics.csv", names)
        table.write(trainer.current_epoch + 1, [{**row, "step": trainer.global_step}])
