"""Checkpoints: written whole or not at all, and with all that a run needs to go on exactly."""

import io
import os
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torchmetrics import Metric

from vitlocal import runs
from vitlocal.errors import InputError
from vitlocal.files import atomic_path

LAST = "last.ckpt"
BEFORE_LAST = "last.previous.ckpt"


def read(path: str | Path) -> dict[str, Any]:
    """Read a whole checkpoint into memory; nothing in it is executed.

    Raises:
        InputError: it is not there, cut short, or no checkpoint.
    """
    content = _load(path)
    parts = ("state_dict", "hyper_parameters")
    if not isinstance(content, dict) or not all(isinstance(content.get(part), dict) for part in parts):
        raise InputError(f"{path} is no checkpoint of vitlocal: it lacks {' or '.join(parts)}; give another")
    return content


def _load(path: str | Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"there is no checkpoint {path}: give the path of one") from None
    except (PermissionError, IsADirectoryError) as error:  # others come of a broken file too
        raise InputError(
            f"the checkpoint {path} cannot be read ({error.strerror}): make it readable"
        ) from error
    except Exception as error:  # a broken file raises whatever its bytes lead the readers to
        raise InputError(
            f"{path} is no whole checkpoint of tensors and plain values: it was cut short, or "
            "another program wrote it; give another"
        ) from error


def newest(folder: Path, which: str, resuming: bool) -> tuple[Path, int]:
    """The whole checkpoint ``best`` or ``last`` of the newest run in ``folder`` that has one.

    A ``last`` that is missing or cut short is passed over, with a line that says so, for the one
    that was written before it.

    Args:
        folder: of all runs of a data set under a protocol.
        which: ``best`` or ``last``.
        resuming: a run is to go on, so only the newest will do: an older one may have ended long ago.

    Returns:
        Its path, and the number of steps it was trained.

    Raises:
        InputError: there is none that can be read.
    """
    versions = runs.versions(folder)[::-1]
    found = [version for version in versions if _candidates(version, which)]
    if not found:
        raise InputError(
            f"ckpt_path {which}: no run in {folder} has a {which}.ckpt; "
            "train one with fit, or give a file's path"
        )
    if resuming and found[0] != versions[0]:
        raise InputError(
            f"ckpt_path {which}: {versions[0]} was stopped before its first checkpoint; start it anew "
            f"without --ckpt_path, or give the path of an older run's ({_candidates(found[0], which)[0]})"
        )
    candidates = _candidates(found[0], which)
    for path in candidates:
        try:
            step = int(read(path).get("global_step", 0))
        except InputError:
            continue
        if path.name == BEFORE_LAST:
            rank_zero_info(f"vitlocal: {path.with_name(LAST)} is not whole: {path}, the one before, is used")
        return path, step
    raise InputError(
        f"ckpt_path {which}: none of {', '.join(map(str, candidates))} can be read; start the run anew "
        "without --ckpt_path, or give another checkpoint's path"
    )


def _candidates(version: Path, which: str) -> list[Path]:
    names = [f"{which}.ckpt", *([BEFORE_LAST] if which == "last" else [])]
    return [path for name in names if (path := version / "checkpoints" / name).is_file()]


class CheckpointFiles(CheckpointIO):
    """Files that are whole or not there; of ``last.ckpt`` the one before is kept as well."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write beside ``path``, see it on the disk, then rename.

        Raises:
            InputError: it could not be written; ``path`` is as it was.
        """
        path = Path(path)
        # In memory first: torch's own writer does not always survive a disk that is full.
        content = io.BytesIO()
        torch.save(checkpoint, content)
        try:
            with atomic_path(path) as temporary:
                with temporary.open("wb") as file:
                    file.write(content.getbuffer())
                    file.flush()
                    os.fsync(file.fileno())
                if path.name == LAST and path.exists():
                    path.replace(path.with_name(BEFORE_LAST))
        except OSError as error:
            raise InputError(
                f"the checkpoint {path} could not be written ({error.strerror}): make room or give another "
                "trainer.default_root_dir, then go on from the one before with --ckpt_path last"
            ) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read tensors and plain values, whatever ``weights_only`` says: nothing else is ever saved.

        Raises:
            InputError: there is no such checkpoint.
        """
        # Processes that Lightning forks or spawns hand over bare weights at their end, under this name.
        return _load(path) if Path(path).name == ".temp.ckpt" else read(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove it if it is there."""
        Path(path).unlink(missing_ok=True)


class RunCheckpoint(ModelCheckpoint):
    """``best.ckpt`` by a monitored value, and ``last.ckpt`` from which an interrupted run goes on.

    ``last.ckpt`` is written after every epoch, whether or not it was the best, every
    ``every_n_train_steps`` within one, and on SIGTERM, which then ends the run.

    Args:
        monitor: the value that chooses the best.
        mode: whether the ``max`` or the ``min`` of it is the best.
        filename: of the best.
        every_n_train_steps: write ``last.ckpt`` every so many steps too; null: after epochs only.
        enable_version_counter: number the files of one name instead of replacing them.
        kwargs: Lightning's other arguments, about the best.

    Raises:
        InputError: ``every_n_train_steps`` is below 1.
    """

    def __init__(
        self,
        monitor: str = "val/acc1",
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
        super().__init__(
            monitor=monitor,
            mode=mode,
            filename=filename,
            enable_version_counter=enable_version_counter,
            **kwargs,
        )
        self._within_epochs = every_n_train_steps
        self._terminated = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take SIGTERM over from Lightning, whose processes may stop at different batches."""
        super().on_train_start(trainer, pl_module)
        if threading.current_thread() is threading.main_thread():  # elsewhere Python refuses
            signal.signal(signal.SIGTERM, self._terminate)  # Lightning puts the old handler back at the end

    def _terminate(self, signum: int, frame: FrameType | None) -> None:
        self._terminated = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save within an epoch, where it is due; not after its last batch: its end is soon enough.

        From there a run would go on with the next epoch, without this one's validation.
        """
        if trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches:
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
        progress = trainer.fit_loop.epoch_progress.current
        within_epoch = progress.processed < progress.ready  # type: ignore[attr-defined]
        checkpoint[self.KEY] = runs.gathered(
            {
                "random": {name: get().cpu() for name, (get, _) in _generators(pl_module.device).items()},
                "metrics": {
                    name: {key: torch.as_tensor(value).cpu() for key, value in metric.metric_state.items()}
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
