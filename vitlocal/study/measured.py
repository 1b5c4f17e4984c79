"""How a run's distances were measured, and what uniform attention has there."""

import json
import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vitlocal.errors import InputError
from vitlocal.geometry import Grid
from vitlocal.heads.functional import uniform_statistics
from vitlocal.study.settings import arguments, class_name


class Measured(NamedTuple):
    """How distances were measured.

    Attributes:
        unit: of distances.
        class_token: what was done with the class token as a key.
        uniform: of each statistic, the value of uniform attention, as far as it is known.
    """

    unit: str
    class_token: str
    uniform: Mapping[str, float]

    @property
    def uniform_mad(self) -> float:
        """MAD of uniform attention; NaN where it can't be known."""
        return self.uniform.get("mad", math.nan)


def how_measured(folder: Path, config: dict[str, Any]) -> Measured:
    """Read it from a run's ``geometry.json``; for a run of an earlier release, which has none, work it out.

    Args:
        folder: of the run.
        config: its ``config.yaml``.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / "geometry.json"
    if not path.is_file():
        return _worked_out(folder, config)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        geometry, uniform = content["geometry"], content["uniform"]
        values = {str(name): float(value) for name, value in uniform.items()}
        values["mad"]  # which every run has
        return Measured(str(geometry["unit"]), str(geometry["class_token"]), values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({error!r}): remove it to have it worked out") from error


def _worked_out(folder: Path, config: dict[str, Any]) -> Measured:
    given = arguments(config.get("locality"))
    network = arguments(arguments(config.get("model")).get("network"))
    unit: Any = given.get("unit") or "grid"
    class_token: Any = given.get("class_token") or "drop"
    size, patch = _image_size(folder, config), network.get("patch_size")
    if size is None or not isinstance(patch, int) or patch < 1 or min(size) < patch:
        return Measured(unit, class_token, {})
    grid = Grid(
        size[0] // patch,
        size[1] // patch,
        (patch, patch),
        num_prefix_tokens=1 if network.get("global_pool", "token") == "token" else 0,
        unit=unit,
        class_token=class_token,
    )
    return Measured(unit, class_token, {"mad": uniform_statistics(grid)["mad"]})


def _image_size(folder: Path, config: dict[str, Any]) -> tuple[int, int] | None:
    """From the checkpoint, which has what the data set told the model, or from the configuration."""
    for name in ("last.ckpt", "best.ckpt"):
        try:
            # mmap: only what is looked at is read, not the weights.
            path = folder / "checkpoints" / name
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            height, width = checkpoint["hyper_parameters"]["image_size"]
            return int(height), int(width)
        except (OSError, RuntimeError, pickle.UnpicklingError, KeyError, TypeError, ValueError, EOFError):
            continue  # none kept, or damaged: it is no checkpoint that is asked for here
    sides = {"Digits": 32, "CIFAR10": 32, "CIFAR100": 32, "TinyImageNet": 64}
    given = arguments(config.get("model")).get("image_size") or arguments(config.get("data")).get(
        "image_size"
    )
    side = given or sides.get(class_name(config.get("data")))
    pair = [side, side] if isinstance(side, int) else side
    return (int(pair[0]), int(pair[1])) if isinstance(pair, list | tuple) and len(pair) == 2 else None
