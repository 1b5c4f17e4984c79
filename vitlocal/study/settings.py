"""What of a run's configuration decides what comes out of it."""

import inspect
import json
from collections.abc import Iterable, Mapping
from typing import Any

from vitlocal import ROOMS
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


# Settings of fit that came later, and what every run before them had.
_BEFORE = {
    "init_from": "null",
    "init_optimizer": "false",
    "locality.mixed_images": "0",
    "data.balanced": "false",
    "protocol.mixing.num_classes": "null",
    "protocol.label_smoothing.num_classes": "null",
}

# Class paths that are shorter than in earlier runs, and what they were: vitlocal.CutMix.
_PATHS = {f"vitlocal.{name}": f"vitlocal.{room}.{name}" for name, room in ROOMS.items()}

# Settings that are null by default now, and what they were before in runs that are the same.
_NOW_NULL = {"locality.unit": '"grid"'}


def flat(config: Mapping[str, Any]) -> dict[str, str]:
    """Settings by dotted name as JSON, without ``init_args``, the seed and what has no effect.

    A key of the model that has its default value is left out, so that a run made before there was such a
    key is the same as one made after; so are the few others that came later.
    """
    defaults = _BEFORE | {
        f"model.{name}": json.dumps(parameter.default)
        for name, parameter in inspect.signature(Classification).parameters.items()
    }
    given = {name: value for name, value in _flat(config, "") if name not in _WITHOUT_EFFECT}
    given |= {name: before for name, before in _NOW_NULL.items() if given.get(name) == "null"}
    if given.get("trainer.devices") in ("1", '"1"'):  # a run on more devices has their number
        given["trainer.devices"] = json.dumps("auto")
    return {name: value for name, value in given.items() if value != defaults.get(name)}


def _flat(value: Any, prefix: str) -> Iterable[tuple[str, str]]:
    if prefix in ("checkpoint", "outliers"):  # what is kept and what is measured besides
        return
    if isinstance(value, Mapping):
        for key, below in value.items():
            name = prefix if key == "init_args" else f"{prefix}.{key}" if prefix else str(key)
            yield from _flat(below, name)
    else:
        yield prefix, json.dumps(_PATHS.get(value, value) if isinstance(value, str) else value, default=str)


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
