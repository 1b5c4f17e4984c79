"""Where runs go: ``lightning_logs/<data>-<protocol>[-<model>]/version_N``, each N taken by one run alone."""

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

from vitlocal.tasks import Classification
from vitlocal.tasks.classification import DATA_FACTS

OF_TRAINING = ("schedule",)
"""Choices among the model's settings by which it is no other model."""

EARLIER = {"global_pool=avg": "pool=mean"}
"""What is still called as in earlier releases, so that their runs are found."""


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


def variant(model: Mapping[str, Any]) -> str:
    """What makes a model another kind than the default one, for a run's name; empty for the default.

    Those are the choices by a word or a class; of a class, the word alone. Sizes and rates are not: a
    checkpoint has its own, which is checked against those that are given.

    Args:
        model: settings of the model, with or without its class path.

    >>> variant({"network": {"embed_dim": 96, "attention": {"class_path": "Gated"}, "init": "lee"}})
    'gated-init=lee'
    """
    parts = _choices("model", model, Classification)
    return "-".join(re.sub(r"[^\w.+=]+", "_", EARLIER.get(part, part)) for part in parts)


def _choices(name: str, value: Any, default: Any) -> Iterator[str]:
    """The words of a setting, and of those below it, that are not the default ones."""
    if name in OF_TRAINING or name in DATA_FACTS:
        return
    if not isinstance(value, Mapping):
        if isinstance(value, str) and value != default:
            yield f"{name}={value}"
        return
    path = value.get("class_path")
    if path is not None and path.rpartition(".")[2] != getattr(default, "__name__", None):
        yield re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", path.rpartition(".")[2]).lower()
        default = class_of(path)
    arguments = value.get("init_args", {} if path else value)
    defaults = {} if default is None else signature(default).parameters
    for key, below in arguments.items():
        yield from _choices(key, below, defaults[key].default if key in defaults else None)


def class_of(path: str) -> type | None:
    """The class of a path, or of a bare name of ours; None where it can't be imported from here."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module or "vitlocal.models"), name, None)
    except ImportError:
        return None


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
