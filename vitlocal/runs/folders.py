"""Where runs go: ``lightning_logs/<data>-<protocol>[-<model>]/version_N``, each N taken by one run alone."""

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from inspect import signature
from pathlib import Path
from typing import Any

from vitlocal.tasks import Classification
from vitlocal.tasks.classification import DATA_FACTS

BARE = ("attention", "network")
"""Choices that are a run's name without the setting's: clipped_softmax, but pool=mean."""

OF_TRAINING = ("schedule",)
"""Choices among the model's settings by which it is no other model."""


def folder(root: str | Path | None, name: str) -> Path:
    """The folder of all runs of one name; ``root`` is the trainer's root folder."""
    return Path(root or ".") / "lightning_logs" / name


def run_name(data: str, protocol: str, model: Mapping[str, Any]) -> str:
    """The name of a run, from those of its data set and protocol and the settings of its model."""
    return "-".join(part for part in (data, protocol, variant(model)) if part)


def split_name(name: str, model: Mapping[str, Any]) -> tuple[str, str]:
    """The name of the data set, and the rest of a run's name; what :func:`run_name` has put together.

    Args:
        name: of the run.
        model: settings of its model.
    """
    kind = variant(model)
    suffix = f"-{kind}" if kind and name.endswith(f"-{kind}") else ""  # earlier releases did not name it
    data, _, protocol = name.removesuffix(suffix).rpartition("-")
    return data, protocol + suffix


def variant(model: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> str:
    """What makes a model another kind than the default one, for a run's name; empty for the default.

    Those are the choices by a word or a class. Sizes and rates are not: a checkpoint has its own, which is
    checked against those that are given.

    Args:
        model: settings of the model.
        defaults: the same of the default model; None: the defaults of the task.

    >>> default = {"attention": "softmax", "pool": "token", "width": 192}
    >>> variant({"attention": "gated", "pool": "mean", "width": 96}, default)
    'gated-pool=mean'
    """
    if defaults is None:
        defaults = {name: each.default for name, each in signature(Classification).parameters.items()}
    parts = [word if name in BARE else f"{name}={word}" for name, word in _choices(model, defaults)]
    return "-".join(re.sub(r"[^\w.+=]+", "_", part) for part in parts)


def _choices(model: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and word of each setting whose word is not the default one."""
    for name, value in model.items():
        word, default = _word(value), defaults.get(name)
        if word is None or name in OF_TRAINING or name in DATA_FACTS:
            continue
        if word != _word(default):
            yield name, word
        elif isinstance(value, Mapping) and isinstance(default, Mapping):
            yield from _choices(value.get("init_args", {}), default.get("init_args", {}))


def _word(value: Any) -> str | None:
    """What is chosen by a word or a class path; None for other settings."""
    if isinstance(value, Mapping) and "class_path" in value:
        kind = str(value["class_path"]).rpartition(".")[2]
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind).lower()
    return value if isinstance(value, str) else None


def versions(runs: Path) -> list[Path]:
    """The run folders in ``runs``, oldest first."""
    found = [path for path in runs.glob("version_*") if path.name.removeprefix("version_").isdecimal()]
    return sorted(found, key=number)


def number(version: Path) -> int:
    """N of a run folder ``version_N``."""
    return int(version.name.removeprefix("version_"))


def reserve(runs: Path) -> Path:
    """Make the next folder ``version_N`` in ``runs``, which no other run gets.

    Raises:
        OSError: it can't be made.
    """
    old = versions(runs)
    following = number(old[-1]) + 1 if old else 0
    while True:
        version = runs / f"version_{following}"
        runs.mkdir(parents=True, exist_ok=True)
        try:
            version.mkdir()
        except FileExistsError:  # another run, started at the same time
            following += 1
        except FileNotFoundError:  # a refused run has taken the empty folder of runs away
            continue
        else:
            return version


def discard(version: Path) -> None:
    """Remove the folder of a run that never began, and those above that it was alone in."""
    shutil.rmtree(version, ignore_errors=True)
    with suppress(OSError):  # another run is in it
        for above in (version.parent, version.parent.parent):
            above.rmdir()
