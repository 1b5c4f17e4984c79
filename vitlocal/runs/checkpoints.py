"""Checkpoint files: their names, reading and writing them whole."""

import io
import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from vitlocal import earlier, internals
from vitlocal.errors import InputError
from vitlocal.files import atomic_path
from vitlocal.runs import folders

FOLDER = "checkpoints"
"""Where they are in a run's folder."""

BEST = "best.ckpt"
LAST = "last.ckpt"
BEFORE_LAST = "last.previous.ckpt"
NAMES = (BEST, LAST, BEFORE_LAST)
"""In the order in which a run's folder stands for one of them."""


def read(path: str | Path) -> dict[str, Any]:
    """Read a whole checkpoint into memory; nothing in it is executed. Hyperparameters have today's names.

    Raises:
        InputError: it is not there, cut short, or no checkpoint.
    """
    content = _load(path)
    parts = ("state_dict", "hyper_parameters")
    if not isinstance(content, dict) or not all(isinstance(content.get(part), dict) for part in parts):
        raise InputError(f"{path} is no checkpoint of vitlocal: it lacks {' or '.join(parts)}; give another")
    content["hyper_parameters"] = earlier.model(content["hyper_parameters"])
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
    versions = folders.versions(folder)[::-1]
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
    names = {"best": (BEST,), "last": (LAST, BEFORE_LAST)}[which]
    return [path for name in names if (path := version / FOLDER / name).is_file()]


def stopped_early(run: Path) -> bool:
    """Whether a callback such as EarlyStopping ended a run, as its last checkpoint has it."""
    try:
        content = read(run / FOLDER / LAST)
    except InputError:
        return False
    states = content.get("callbacks", {}).values()
    return any(isinstance(state, dict) and state.get("stopped_epoch", 0) > 0 for state in states)


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
        return _load(path) if internals.is_weights_of_process(path) else read(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove it if it is there."""
        Path(path).unlink(missing_ok=True)
