"""Run folders read back: one run, many runs, and the tables of them."""

import json
import math
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from vitlocal import config_files
from vitlocal.activations.outliers import HEAD_STATISTICS
from vitlocal.errors import InputError
from vitlocal.heads.border import BORDER
from vitlocal.heads.kinds import head_kind
from vitlocal.heads.summary import LOCAL
from vitlocal.runs import checkpoints, folders
from vitlocal.study import pruned, quantized, sequences
from vitlocal.study.measured import Measured, how_measured
from vitlocal.study.settings import TRUNK, absent, arguments, class_name, flat, section

WHICH = ("epoch", "layer", "head")
"""What a row of heads.csv is of, with ``hop`` where there are any."""

MEASURED_FIRST = ("mad", "entropy", "self_mass", "mad_without_self", "class_mass", "mad_raw")
"""What every heads.csv has; a run of an earlier release has no more."""

LOG_ODDS = ("self_log_odds", "class_log_odds")
FACTORS = ("photometric", "cutmix", "label_smoothing")
OUTLIER_STATISTICS = ("block_inf_norm", "block_kurtosis", "block_outliers")
THRESHOLDS = (0.3, 0.2, 0.1, 0.05, 0.024)
"""MADs of which a run's row says when a head first went below; 0.024 and 0.2 enclose the paper's gap."""


@dataclass(frozen=True, eq=False)
class Run:
    """One run, read from its folder.

    Attributes:
        folder: of the run, ``version_N``.
        data: name of the data set.
        condition: what runs that differ by their seeds only have in common.
        seed: of the run; None where it had none.
        config: ``config.yaml``.
        factors: for each of ``FACTORS``, whether the protocol has it.
        metrics: ``metrics.csv``, one row an epoch from 1.
        heads: ``heads.csv``, one row an epoch, layer, head and hop; epoch 0 is the untrained network.
        measured: how its distances were measured.
        command: the command line that gives this run.
        outliers: ``outliers.csv``, one row an epoch and layer; None where they were not observed.
        do_nothing: ``do_nothing.csv``, one row an epoch, layer and head; None where it is not there.
    """

    folder: Path
    data: str
    condition: str
    seed: int | None
    config: dict[str, Any]
    factors: dict[str, bool]
    metrics: pd.DataFrame
    heads: pd.DataFrame
    measured: Measured
    command: str
    outliers: pd.DataFrame | None = None
    do_nothing: pd.DataFrame | None = None

    @property
    def epochs(self) -> int:
        """Epochs of training done."""
        return int(self.metrics["epoch"].max())

    @property
    def finished(self) -> bool:
        """Whether it was trained to its end: to its last epoch or step, or until it was stopped early.

        A run without ``trainer.max_epochs`` always is.
        """
        trainer = section(self.config, "trainer")
        epochs, steps = trainer.get("max_epochs"), trainer.get("max_steps")
        if not isinstance(epochs, int) or self.epochs >= epochs:
            return True
        if isinstance(steps, int) and 0 < steps <= self.metrics["step"].max():
            return True
        return bool(trainer.get("callbacks")) and checkpoints.stopped_early(self.folder)


def load(run_folder: Path, *, condition: str | None = None, data: str | None = None) -> Run:
    """Read a run folder.

    Args:
        run_folder: ``version_N``, with config.yaml, metrics.csv and heads.csv.
        condition: its name; None: that of the study's cell it lies in, else the protocol's.
        data: name of the data set, the same.

    Raises:
        InputError: the folder is no run, or a file in it is missing, damaged or empty.
    """
    folder = Path(run_folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not there: give the folder of a run, such as version_0")
    if not (folder / "config.yaml").is_file():
        raise InputError(f"{folder} is no run: it has no config.yaml")
    config = config_files.read(folder / "config.yaml")
    if not isinstance(config.get("protocol"), dict):
        raise InputError(f"{folder / 'config.yaml'} is not that of a run: it has no protocol")
    metrics = _read(folder / "metrics.csv", ("epoch",))
    heads = _read(folder / "heads.csv", (*WHICH, *MEASURED_FIRST))
    sizes = heads.groupby("epoch").size()
    if sizes.nunique() != 1 or heads.duplicated([*WHICH, *({"hop"} & {*heads})]).any():
        raise InputError(f"{folder / 'heads.csv'} is damaged: not every epoch has each head once")
    if not np.isfinite(heads[[*WHICH, *MEASURED_FIRST]].to_numpy(float)).all():
        raise InputError(f"{folder / 'heads.csv'} is damaged: a value is missing or not finite")
    cell_data, cell_condition, cell_seed = _cell(folder) or (None, None, None)
    own_data, protocol = folders.split_name(folder.parent.name, section(config, "model"))
    given = config.get("seed_everything")
    seed = given if isinstance(given, int) and not isinstance(given, bool) else cell_seed
    return Run(
        folder=folder,
        data=data or cell_data or own_data or class_name(config.get("data")).lower() or "data",
        condition=condition or cell_condition or protocol,
        seed=seed,
        config=config,
        factors=_factors(config["protocol"]),
        metrics=metrics,
        heads=heads,
        measured=how_measured(folder, config),
        command=_command(folder),
        outliers=_read_optional(folder / "outliers.csv", ("epoch", "layer"), OUTLIER_STATISTICS),
        do_nothing=_read_optional(folder / "do_nothing.csv", ("epoch", "layer", "head"), HEAD_STATISTICS),
    )


def find_runs(paths: Iterable[Path]) -> list[Run]:
    """The runs in ``paths``: run folders, or folders that hold runs somewhere below, such as a study's.

    In a cell of a study, and of runs of one condition and seed, the newest counts. Where a folder is
    searched, what is no readable run is left out, and told on standard error; validations are not runs.
    Runs outside a study whose configurations differ by more than their seeds are different conditions.

    Raises:
        InputError: a path is not there or holds no run, or a run that was named itself can't be read.
    """
    loaded: dict[Path, Run] = {}
    for path in map(Path, paths):
        if (path / "config.yaml").is_file():
            runs_there = [load(path)]
        elif path.is_dir():
            runs_there = _search(path)
            if not runs_there:
                raise InputError(f"{path} holds no run with an epoch done: give runs' folders or a study's")
        else:
            raise InputError(f"{path} is not there: give the folder of a run or of a study")
        loaded |= {run.folder.resolve(): run for run in runs_there}
    kept: dict[tuple[str, str, int | str], Run] = {}
    for run in _named(list(loaded.values())):
        key = (run.data, run.condition, str(run.folder) if run.seed is None else run.seed)
        if key in kept:
            _tell(f"left out: {kept[key].folder} has the condition and the seed of {run.folder}")
        kept[key] = run
    return list(kept.values())


def runs_table(loaded: Sequence[Run]) -> pd.DataFrame:
    """One row a run; ``mad_layer_0`` and such are means over the layer's heads at the last epoch."""
    return pd.DataFrame([{"run": number, **_row(run)} for number, run in enumerate(loaded)])


def heads_table(loaded: Sequence[Run]) -> pd.DataFrame:
    """One row a run, epoch, layer and head; ``run`` is the number in :func:`runs_table`.

    ``acc1`` is the validation accuracy after that epoch.
    """
    parts = []
    for number, run in enumerate(loaded):
        front: dict[str, Any] = {
            "run": number,
            "data": run.data,
            "condition": run.condition,
            "seed": run.seed,
        }
        if "val/acc1" in run.metrics:
            front["acc1"] = run.heads["epoch"].map(run.metrics.groupby("epoch")["val/acc1"].last())
        parts.append(pd.concat([pd.DataFrame(front, run.heads.index), run.heads], axis=1))
    return pd.concat(parts, ignore_index=True)


def early(heads: pd.DataFrame) -> pd.DataFrame:
    """The rows of the first third of the layers, rounded up."""
    depth = int(heads["layer"].max()) + 1
    return heads[heads["layer"] < math.ceil(depth / 3)]


def last_epoch(heads: pd.DataFrame) -> pd.DataFrame:
    """The rows of the last epoch observed, of each run its own where there are several."""
    last = heads.groupby("run")["epoch"].transform("max") if "run" in heads else heads["epoch"].max()
    return heads[heads["epoch"] == last]


def _row(run: Run) -> dict[str, Any]:
    last = last_epoch(run.heads)
    first_third = early(last)
    least = last.iloc[int(last["mad"].argmin())]
    accuracies = run.metrics["val/acc1"].dropna() if "val/acc1" in run.metrics else pd.Series(dtype=float)
    row: dict[str, Any] = {
        "data": run.data,
        "condition": run.condition,
        "seed": run.seed,
        **run.factors,
        "folder": str(run.folder),
        "epochs": run.epochs,
        "finished": run.finished,
        "acc1": accuracies.iloc[-1] if len(accuracies) else math.nan,
        "acc1_best": accuracies.max(),
        "uniform_mad": run.measured.uniform_mad,
        "mad_min": least["mad"],
        "mad_min_early": first_third["mad"].min(),
        "mad_min_of_training": run.heads["mad"].min(),
        "mad_mean": last["mad"].mean(),
        "mad_mean_early": first_third["mad"].mean(),
        "entropy_mean": last["entropy"].mean(),
        "entropy_mean_early": first_third["entropy"].mean(),
        "self_mass_mean": last["self_mass"].mean(),
        "self_mass_of_min": least["self_mass"],
        "class_mass_of_min": least["class_mass"],
        "kind_of_min": head_kind(least["self_mass"], least["class_mass"], least.get("window_mass", math.nan)),
        "mad_raw_min": last["mad_raw"].min(),
        "mad_raw_min_early": first_third["mad_raw"].min(),
        "class_mass_max": last["class_mass"].max(),
    }
    if run.measured.unit == "grid":
        row["local_heads"] = int((last["mad"] < LOCAL).sum())
    row |= {f"{name}_max": last[name].max() for name in LOG_ODDS if name in last}
    row |= {f"{name}_early": first_third[name].mean() for name in BORDER if name in last}
    for threshold in THRESHOLDS:
        below = run.heads.loc[run.heads["mad"] < threshold, "epoch"]
        row[f"below_{threshold}"] = below.min() if run.measured.unit == "grid" else math.nan
    means = last.groupby("layer")[["mad", "entropy", "self_mass"]].mean()
    for name in ("mad", "entropy", "self_mass"):
        row |= {f"{name}_layer_{layer}": value for layer, value in means[name].items()}
    if run.outliers is not None:
        blocks = last_epoch(run.outliers)
        row["inf_norm_max"] = blocks["block_inf_norm"].max()
        row["kurtosis_mean"] = blocks["block_kurtosis"].mean()
        row["outlier_count"] = blocks["block_outliers"].sum()
    if run.do_nothing is not None:
        ends = last_epoch(run.do_nothing)
        row |= {"do_nothing_mean": ends["do_nothing"].mean(), "update_mean": ends["update"].mean()}
    row |= sequences.row(last, least, run.measured.uniform)
    return row | quantized.row(run.folder / "quantize") | pruned.row(run.folder / "prune")


def _read(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"{path} is missing: the run has not ended an epoch, or was not observed")
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:  # ValueError: also pandas' own, and of text that is none
        raise InputError(f"{path} can't be read ({' '.join(str(error).split())})") from error
    absent = [name for name in columns if name not in table]
    if absent:
        raise InputError(f"{path} is damaged: it has no column {', '.join(absent)}")
    if table.empty:
        raise InputError(f"{path} is empty: it has a header and no rows")
    for name in table:
        if not pd.api.types.is_numeric_dtype(table[name]):
            raise InputError(f"{path} is damaged: column {name} holds something that is no number")
    if not np.isfinite(table["epoch"].to_numpy(float)).all():
        raise InputError(f"{path} is damaged: a row has no epoch")
    return table


def _read_optional(path: Path, places: Sequence[str], values: Sequence[str]) -> pd.DataFrame | None:
    """A table that a run may lack; in one that is there, each epoch has every place once, with its values."""
    if not path.is_file():
        return None
    table = _read(path, (*places, *values))
    if table.groupby("epoch").size().nunique() != 1 or table.duplicated(list(places)).any():
        raise InputError(f"{path} is damaged: not every epoch has all of its rows once")
    if not np.isfinite(table[[*places, *values]].to_numpy(float)).all():
        raise InputError(f"{path} is damaged: a value is missing or not finite")
    return table


def _search(folder: Path) -> list[Run]:
    """Runs below ``folder``; of each cell of a study, only the newest."""
    newest: dict[Path, Run] = {}
    versions = {path.parent for path in folder.rglob("config.yaml") if (path.parent / "metrics.csv").exists()}
    for version in sorted(versions, key=lambda path: (str(path.parent), _number(path))):
        try:
            run = load(version)
        except InputError as error:
            _tell(f"left out: {error}")
            continue
        if _cell(version) and run.condition == TRUNK:
            continue  # what the conditions begin with, and none itself
        newest[version.parents[2] if _cell(version) else version] = run
    place = {condition: number for number, condition in enumerate(_conditions(folder))}
    return sorted(newest.values(), key=lambda run: place.get(run.condition, len(place)))


def _conditions(study: Path) -> list[str]:
    """The conditions of a study in its own order; none where the folder is not that of one."""
    try:
        given = yaml.safe_load((study / "study.yaml").read_text(encoding="utf-8"))["conditions"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        return []
    return [str(condition) for condition in given] if isinstance(given, list) else []


def _number(version: Path) -> int:
    name = version.name
    return folders.number(version) if name.removeprefix("version_").isdecimal() else -1


def _cell(folder: Path) -> tuple[str, str, int | None] | None:
    """Data, condition and seed of the study's cell that ``folder`` is in, None outside of one."""
    parts = folder.resolve().parts
    for place in range(len(parts) - 4, -1, -1):
        data, condition, seed = parts[place + 1 : place + 4]
        if parts[place] == "cells" and seed.removeprefix("seed_").isdecimal():
            return data, condition, int(seed.removeprefix("seed_"))
    return None


def _command(folder: Path) -> str:
    """What the cell says that it ran; else the command that repeats the run from its configuration."""
    if _cell(folder):
        try:
            words = json.loads((folder.parents[2] / "cell.json").read_text(encoding="utf-8"))["command"]
            return words if isinstance(words, str) else shlex.join(map(str, words))
        except (OSError, ValueError, KeyError, TypeError):
            pass  # the run is what counts
    return shlex.join(["python", "-m", "vitlocal", "fit", "--config", str(folder / "config.yaml")])


def _named(loaded: Sequence[Run]) -> list[Run]:
    """The runs; outside a study, conditions that are not one get the settings that differ in their names."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in loaded:
        groups.setdefault((run.data, run.condition), []).append(run)
    named = []
    for run in loaded:
        group = [flat(other.config) for other in groups[run.data, run.condition]]
        own = flat(run.config)
        differ = sorted(key for key in {*own}.union(*group) if any(g.get(key) != own.get(key) for g in group))
        extra = [f"{key.removeprefix('protocol.')}={own.get(key, absent(key))}" for key in differ]
        inside = _cell(run.folder) is not None
        named.append(run if inside else replace(run, condition=", ".join([run.condition, *extra])))
    return named


def _factors(protocol: dict[str, Any]) -> dict[str, bool]:
    """Which of the paper's three components a protocol has; one that never does anything is none."""
    mixing = protocol.get("mixing")
    return {
        "photometric": protocol.get("photometric") is not None,
        "cutmix": class_name(mixing) == "CutMix" and arguments(mixing).get("probability") != 0,
        "label_smoothing": protocol.get("label_smoothing") is not None
        and arguments(protocol["label_smoothing"]).get("epsilon") != 0,
    }


def _tell(sentence: str) -> None:
    sys.stderr.write(f"vitlocal: {sentence}\n")
