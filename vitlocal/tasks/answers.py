"""answers.txt: what the model makes of each problem."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from vitlocal.files import atomic_path
from vitlocal.processes import writable_folder
from vitlocal.tasks.predictions import in_order

SHOWN = 20
"""Answers that are printed, too."""


class AnswerWriter(BasePredictionWriter):
    """Writes ``answers.txt`` into the run folder after ``predict``, and prints the first ones.

    One line a problem: the problem, and all that the model puts after it.
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
        """Gather the processes' answers and write them in the problems' order."""
        found = in_order(predictions)
        folder = writable_folder(trainer)
        if folder is None:
            return
        vocabulary: Any = pl_module.vocabulary
        lines = [vocabulary.text(tokens) for _, tokens in found]
        path = folder / "answers.txt"
        with atomic_path(path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        for line in lines[:SHOWN]:
            rank_zero_info(line)
        rank_zero_info(f"vitlocal: {len(lines)} answers in {path}")
