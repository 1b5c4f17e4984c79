"""metrics.csv: losses and accuracies, one row an epoch."""

from lightning.pytorch import Callback, LightningModule, Trainer

from vitlocal.files import EpochTable
from vitlocal.runs import writable_folder

COLUMNS = (
    "epoch",
    "step",
    "lr",
    "train/loss",
    "train/acc1_augmented",
    "val/loss",
    "val/acc1",
    "val/acc5",
    "locality/mad_min",
    "locality/mad_min_early",
    "locality/entropy_min",
)


class EpochMetrics(Callback):
    """Writes ``metrics.csv`` into the run folder as training goes on.

    One row an epoch, counted from 1 as the number of epochs done; values that were not measured in
    an epoch are left empty.
    """

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's row."""
        # Collective as the folder is: every process asks for them.
        values, folder = trainer.callback_metrics, writable_folder(trainer)
        if folder is None:
            return
        row = {name: f"{float(values[name]):.6g}" for name in COLUMNS if name in values}
        table = EpochTable(folder / "metrics.csv", COLUMNS)
        table.write(trainer.current_epoch + 1, [{**row, "step": trainer.global_step}])
