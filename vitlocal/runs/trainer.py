"""Lightning's trainer, in a run's folder."""

from pathlib import Path

from lightning.pytorch import Trainer


class RunTrainer(Trainer):
    """Writes everything but what loggers write themselves into one folder, whatever the loggers.

    Lightning's own trainer takes the folder of the first logger, which may be that of other runs too, or
    none. Callbacks and profilers ask for it by ``log_dir``.
    """

    run_folder: Path | None = None
    """Of the run, in the process of rank 0; None in the others and in a dry run."""

    def begin(self, folder: Path | None) -> None:
        """Take the run's folder, in every process, before anything is written.

        Args:
            folder: of the run; needed in the process of rank 0 alone.
        """
        self.run_folder = folder
        if folder is not None:
            for callback in self.checkpoint_callbacks:
                if getattr(callback, "dirpath", "") is None:
                    callback.dirpath = str(folder / "checkpoints")  # type: ignore[attr-defined]

    @property
    def log_dir(self) -> str | None:
        """The run's folder; asking is collective, as in Lightning."""
        folder = self.strategy.broadcast(None if self.run_folder is None else str(self.run_folder))
        return folder or super().log_dir
