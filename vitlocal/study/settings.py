"""What of a run's configuration decides what comes out of it."""

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping
from typing import Any

from vitlocal import ROOMS, config_files, earlier
from vitlocal.runs import folders
from vitlocal.tasks import Classification

TRUNK = "trunk"
"""The label of the run from which the conditions of a study part."""

# Settings that change where, how fast or how safely a run goes, not what its heads do.
_WITHOUT_EFFECT = {
    "seed_everything",
    "ckpt_path",
    "data.path",
    "data.sources",
    "data.num_workers",
    "trainer.default_root_dir",
    "trainer.logger",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
}

# What is kept, and what is measured besides; and the model, whose defaults are left out.
_NOT_OF_RUNS = ("checkpoint", "outliers", "model")

# Settings of fit that came later, and what every run before them had.
_BEFORE = {
    "init_from": "null",
    "init_optimizer": "false",
    "distillation": "null",
    "locality.mixed_images": "0",
    "data.balanced": "false",
    "protocol.mixing.num_classes": "null",
    "protocol.label_smoothing.num_classes": "null",
    "protocol.label_smoothing.multilabel": "false",
}

# Class paths that are shorter than in earlier runs, and what they were: vitlocal.CutMix.
_PATHS = {f"vitlocal.{name}": f"vitlocal.{room}.{name}" for name, room in ROOMS.items()}

# Settings that are null by default now, and what they were before in runs that are the same.
_NOW_NULL = {"locality.unit": '"grid"'}


def flat(config: Mapping[str, Any]) -> dict[str, str]:
    """Settings by dotted name as JSON, without ``init_args``, the seed and what has no effect.

    What of the model is its class's default is left out, so that a run made before there was such a key is
    the same as one made after; so are the few others that came later.
    """
    given = {
        name: json.dumps(_PATHS.get(value, value) if isinstance(value, str) else value, default=str)
        for name, value in config_files.flat({key: config[key] for key in config if key not in _NOT_OF_RUNS})
        if name not in _WITHOUT_EFFECT
    }
    given |= {name: before for name, before in _NOW_NULL.items() if given.get(name) == "null"}
    if given.get("trainer.devices") in ("1", '"1"'):  # a run on more devices has their number
        given["trainer.devices"] = json.dumps("auto")
    given |= _not_default("model", config.get("model", {}), Classification)
    return {name: value for name, value in given.items() if value != _BEFORE.get(name)}


def _not_default(name: str, value: Any, default: Any) -> Iterator[tuple[str, str]]:
    """A setting and those below it as far as they are not the default ones; a class by its path."""
    if not isinstance(value, Mapping):
        if json.dumps(value, default=str) != json.dumps(default, default=str):
            yield name, json.dumps(value, default=str)
        return
    path = value.get("class_path")
    if path is not None and path.rpartition(".")[2] != getattr(default, "__name__", None):
        yield name, json.dumps(_PATHS.get(path, path))
        default = folders.class_of(path)
    defaults = {} if default is None else inspect.signature(default).parameters
    for key, below in value.get("init_args", {} if path else value).items():
        own = defaults[key].default if key in defaults else inspect.Parameter.empty
        yield from _not_default(f"{name}.{key}", below, own)


def fingerprint(settings: Mapping[str, str]) -> str:
    """16 hexadecimal digits that tell settings apart, see :func:`flat`.

    By the names of the first release, so that a study begun with it resumes.
    """
    named = dict(earlier.before(name, value) for name, value in settings.items())
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:16]


def absent(name: str) -> str:
    """What to call a setting that :func:`flat` does not have."""
    return "default" if name.startswith("model.") else "not set"


def section(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A part of a configuration; empty where there is none."""
    value = config.get(name)
    return value if isinstance(value, dict) else {}


def arguments(value: Any) -> dict[str, Any]:
    """The arguments of a component, however it is written."""
    if not isinstance(value, dict):
        return {}
    given = value.get("init_args", value)
    return given if isinstance(given, dict) else {}


def class_name(value: Any) -> str:
    """The class of a component, however it is written; empty where there is none."""
    path = value.get("class_path", "") if isinstance(value, dict) else value
    return str(path or "").rpartition(".")[2]
