"""One run, opened by its folder or by a checkpoint."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningModule

from vitlocal import config_files
from vitlocal.data import DataModule
from vitlocal.errors import InputError
from vitlocal.runs import checkpoints, folders
from vitlocal.runs.datasets import make_data
from vitlocal.tasks import Classification

if TYPE_CHECKING:
    import pandas as pd


class Run:
    """What a run has left; made by :func:`open_run`. Nothing is read before it is asked for.

    Args:
        folder: of the run, or where a checkpoint lies that is apart from its run.
        checkpoint: the file that the run was opened by; None: the folder's best.
    """

    def __init__(self, folder: Path, checkpoint: Path | None = None) -> None:
        self.folder = folder
        self._checkpoint = checkpoint

    def __repr__(self) -> str:
        """With what it was opened by."""
        return f"Run({str(self._checkpoint or self.folder)!r})"

    @property
    def checkpoints(self) -> dict[str, Path]:
        """The checkpoints that the folder has, by file name: the best, the last, the one before the last."""
        paths = {name: self.folder / checkpoints.FOLDER / name for name in checkpoints.NAMES}
        return {name: path for name, path in paths.items() if path.is_file()}

    @property
    def checkpoint(self) -> Path:
        """The one that the run was opened by, else the first of :attr:`checkpoints`.

        Raises:
            InputError: there is none.
        """
        if self._checkpoint is not None:
            return self._checkpoint
        if not self.checkpoints:
            where = self.folder / checkpoints.FOLDER
            raise InputError(f"there is no checkpoint in {where}: give the folder of a run")
        return next(iter(self.checkpoints.values()))

    @property
    def config_file(self) -> Path:
        """``config.yaml``, from which ``fit`` gives the same run again."""
        return self.folder / "config.yaml"

    @cached_property
    def config(self) -> dict[str, Any]:
        """All settings of the run; empty where there is no :attr:`config_file`.

        Raises:
            InputError: the file can't be read.
        """
        return config_files.read(self.config_file) if self.config_file.is_file() else {}

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The model's arguments as :attr:`checkpoint` has them, with the facts of the data set.

        Raises:
            InputError: there is no checkpoint, or it can't be read.
        """
        return _hyperparameters(checkpoints.read(self.checkpoint))

    def load_module(self) -> LightningModule:
        """The LightningModule with the weights of :attr:`checkpoint`; its ``network`` is the network alone.

        Raises:
            InputError: there is no checkpoint, it can't be read, or is of another program.
        """
        content = checkpoints.read(self.checkpoint)
        try:
            module = self._task(content)(**_hyperparameters(content))
            module.configure_model()
            module.load_state_dict(content["state_dict"])
        except InputError:
            raise
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            said = str(error).splitlines()[0]
            raise InputError(
                f"{self.checkpoint} can't be restored ({said}): give one that vitlocal wrote"
            ) from error
        return module

    def _task(self, content: dict[str, Any]) -> type[LightningModule]:
        """The class that the checkpoint is of, by what it or the configuration says; else our own."""
        model = self.config.get("model")
        known = model.get("class_path") if isinstance(model, dict) else None
        path = content["hyper_parameters"].get("_class_path", known)
        kind = Classification if path is None else folders.class_of(path)
        if kind is None or not issubclass(kind, LightningModule):
            raise ValueError(f"there is no LightningModule {path} here")
        return kind

    def load_data(self) -> Any:
        """The data set that the run was trained on, not read yet: an ``ImageDataModule``, or of another kind.

        Raises:
            InputError: it isn't known, or its class can't be made.
        """
        given = self.config.get("data")
        if given is None:
            raise InputError(
                f"it isn't known on which images {self.checkpoint} was trained: give a data set, "
                "such as --data=digits.yaml"
            )
        return make_data(given, DataModule)

    def table(self, name: str) -> pd.DataFrame:
        """A table of the run, such as ``metrics`` or ``heads``.

        Raises:
            InputError: there is none of that name, or it can't be read.
        """
        import pandas as pd  # takes a second

        path = self.folder / f"{name}.csv"
        if not path.is_file():
            raise InputError(f"{path} is missing: the run has not ended an epoch, or was not observed")
        try:
            return pd.read_csv(path)
        except (OSError, ValueError) as error:  # ValueError: also pandas' own, and of text that is none
            raise InputError(f"{path} can't be read ({' '.join(str(error).split())})") from error


def _hyperparameters(content: dict[str, Any]) -> dict[str, Any]:
    # LightningCLI adds names of its own, with an underscore.
    found = {name: value for name, value in content["hyper_parameters"].items() if not name.startswith("_")}
    match found.get("network"):
        case {"init_args": {"pretrained": True, **others}, **rest}:  # the checkpoint's weights come in place
            found["network"] = rest | {"init_args": others}
    return found


def open_run(path: str | Path) -> Run:
    """Open a run.

    Args:
        path: its folder, ``version_N``, or one of its checkpoints.

    Raises:
        InputError: there is nothing of that name.
    """
    path = Path(path)
    if path.is_dir():
        return Run(path)
    if not path.exists():
        raise InputError(f"there is no run or checkpoint {path}: give the folder of a run, or a checkpoint")
    return Run(path.parent.parent if path.parent.name == checkpoints.FOLDER else path.parent, path)
