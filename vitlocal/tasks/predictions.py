"""predictions.csv: what the model says of each image."""

import csv
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from vitlocal.files import atomic_path
from vitlocal.processes import gathered, writable_folder
from vitlocal.tasks.objective import objective_of


def in_order(predictions: Sequence[Any]) -> list[tuple[Any, ...]]:
    """The rows of all processes' batches by their index, without padding; call it in all of them.

    Args:
        predictions: of each batch a dict of tensors (B, ...), the index first, which is -1 for padding.

    Returns:
        A tuple of plain values for each row.
    """
    return sorted(
        row
        for part in gathered([{name: t.cpu() for name, t in batch.items()} for batch in predictions])
        for batch in part
        for row in zip(*(values.tolist() for values in batch.values()), strict=True)
        if row[0] >= 0
    )


class PredictionWriter(BasePredictionWriter):
    """Writes ``predictions.csv`` into the run folder after ``predict``.

    One row an image: its path, or its position where it has none; its label, empty where unknown;
    the predicted class; the probability of that class. Where images have several labels: 0 or 1 of each, as
    ``label/NAME``, if any are known, and the probability of each, as ``probability/NAME``.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="epoch")

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Gather the processes' predictions and write them in the images' order."""
        found = in_order(predictions)
        folder = writable_folder(trainer)
        if folder is None:
            return
        datamodule = getattr(trainer, "datamodule", None)
        facts = pl_module.hparams
        classes = facts["class_names"] or getattr(datamodule, "class_names", range(facts["num_classes"]))
        names = getattr(getattr(trainer.predict_dataloaders, "dataset", None), "names", None)
        path = folder / "predictions.csv"
        with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            header, *rows = objective_of(facts.get("multilabel")).table([row[1:] for row in found], classes)
            writer = csv.writer(file)
            writer.writerow(["image", *header])
            for (index, *_), row in zip(found, rows, strict=True):
                writer.writerow([index if names is None else names[index], *row])
        rank_zero_info(f"vitlocal: predictions for {len(found)} images in {path}")
