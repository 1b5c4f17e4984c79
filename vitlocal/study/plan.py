"""What a study is made of: conditions x seeds x data sets, each a cell, an ordinary run of ``fit``."""

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitlocal.errors import InputError
from vitlocal.study.settings import TRUNK, fingerprint, flat

SMALL = {"digits": "--config=digits.yaml --trainer.max_epochs=20"}
"""What ``--small`` puts in the place of the data sets where a study has no others: minutes on a CPU."""

Resolve = Callable[[list[str]], dict[str, Any]]
"""What makes all settings of a run of the words after ``vitlocal fit``."""

AFTERWARDS = ("validate", "test", "predict", "inspect", "quantize", "prune", "export")
"""Commands that can be done with a run."""


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        data: label of its data set.
        condition: label of its condition.
        seed: of the run.
        folder: where all of it lies: the run, cell.json and log.txt.
        words: the command line after ``vitlocal fit`` that gives this run anywhere.
        then: the command line after ``vitlocal`` of what is done with the run, ``{run}`` being its folder.
        fingerprint: of its resolved configuration, without what has no effect on the result.
        settings: that configuration, by dotted name.
        epochs: how many it is to have.
        downloads: whether its data set may have to be downloaded.
        trunk: the cell with whose weights and optimiser this one begins; None: it begins anew.
    """

    data: str
    condition: str
    seed: int
    folder: Path
    words: tuple[str, ...]
    then: tuple[str, ...]
    fingerprint: str
    settings: Mapping[str, str] = field(repr=False, compare=False)  # the fingerprint tells
    epochs: int
    downloads: bool = False
    trunk: "Cell | None" = None

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.data}/{self.condition}/seed_{self.seed}"


def cells(
    folder: Path,
    resolve: Resolve,
    data: Mapping[str, str],
    conditions: Mapping[str, str],
    seeds: Sequence[int],
    fit: str = "",
    then: str = "",
    seeds_of: Mapping[str, Sequence[int]] | None = None,
    trunk: str | None = None,
) -> list[Cell]:
    """The cells of a study, by data set, seed and condition, each checked as ``fit`` itself would.

    All conditions of a seed come before the next seed, so that an unfinished study can be compared.

    Args:
        folder: of the study.
        resolve: makes all settings of a run of its command line.
        data: words of ``fit``'s command line for each data set, by its label.
        conditions: the same for each condition.
        seeds: of the runs.
        fit: words for all cells.
        then: words of another command for each run, with ``{run}`` for its folder.
        seeds_of: for some conditions, those of the seeds that they have; the others have all.
        trunk: words of a run that comes before all conditions of a seed, and with whose weights and optimiser
            they begin. It is a cell too, the first of its seed, and no condition.

    Raises:
        InputError: nothing is given, a label can't be a folder's name, a seed comes twice, words are no
            command line of ``fit``, or would leave no heads.csv, or ``then`` is no command for a run.
    """
    if then and "{run}" not in then:
        raise InputError(f"then is {then!r}: write {{run}} where the run's folder belongs")
    if then and _words(then)[0] not in AFTERWARDS:
        raise InputError(f"then is {then!r}: begin with one of {', '.join(AFTERWARDS)}")
    for name, given in (("data", data), ("conditions", conditions), ("seeds", seeds)):
        if not given:
            raise InputError(f"{name} is empty: give at least one")
    for label in (*data, *conditions):
        if not is_label(label):
            raise InputError(
                f"the label {label!r} would be a folder: give letters, digits and any of '+-=_., '"
            )
    if len(set(seeds)) < len(seeds):
        raise InputError(f"seeds is {list(seeds)}: give each once")
    fewer = seeds_of or {}
    if unknown := [condition for condition in fewer if condition not in conditions]:
        raise InputError(
            f"seeds_of has {unknown[0]!r}, which is no condition: give one of {', '.join(conditions)}"
        )
    if trunk is not None and TRUNK in conditions:
        raise InputError(
            f"a condition is called {TRUNK}, as the run that comes before all: give another label"
        )
    every = []
    for one in data:
        for seed in seeds:
            first = None
            if trunk is not None:
                first = _cell(folder, resolve, one, TRUNK, seed, _words(f"{data[one]} {trunk} {fit}"), [])
                every.append(first)
            for condition, words in conditions.items():
                if seed in fewer.get(condition, seeds):
                    whole = _words(f"{data[one]} {words} {fit}")
                    every.append(_cell(folder, resolve, one, condition, seed, whole, _words(then), first))
    seen: dict[tuple[str, int, str], Cell] = {}
    for cell in every:
        key = (cell.data, cell.seed, cell.fingerprint)
        if twin := seen.get(key):
            raise InputError(
                f"the conditions {twin.condition} and {cell.condition} are the same run on {cell.data}: "
                "change one, or leave it out"
            )
        seen[key] = cell
    return every


def is_label(text: str) -> bool:
    """Whether a text can be the name of a folder anywhere."""
    return re.fullmatch(r"[\w+=-]([\w+=., -]*[\w+=-])?", text) is not None


def stages(every: Sequence[Cell]) -> list[list[Cell]]:
    """The cells that begin anew, then those that begin where one of the first ended."""
    first, second = ([cell for cell in every if (cell.trunk is None) == anew] for anew in (True, False))
    return [stage for stage in (first, second) if stage]


def _cell(
    folder: Path,
    resolve: Resolve,
    data: str,
    condition: str,
    seed: int,
    words: list[str],
    then: list[str],
    trunk: Cell | None = None,
) -> Cell:
    words = [*words, f"--seed_everything={seed}"]
    where = f"cell {data}/{condition}/seed_{seed}"
    try:
        config = resolve(words)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    epochs = config["trainer"]["max_epochs"]
    if not isinstance(epochs, int) or epochs < 1:
        raise InputError(f"{where}: trainer.max_epochs is {epochs}: give the number of epochs")
    if config["locality"] is None:
        raise InputError(f"{where}: locality is null: a study is about it; leave it on")
    if config["ckpt_path"] is not None:
        raise InputError(f"{where}: ckpt_path is given: a study resumes its cells itself; leave it out")
    settings = flat(config)
    if config["trainer"]["devices"] == "auto":
        # Batches are of a size a device: the same cell anywhere has one, unless it is given more.
        words.append("--trainer.devices=1")
    if trunk is not None:
        settings[TRUNK] = trunk.fingerprint
    return Cell(
        data=data,
        condition=condition,
        seed=seed,
        folder=folder / "cells" / data / condition / f"seed_{seed}",
        words=tuple(words),
        then=tuple(then),
        fingerprint=fingerprint(settings),
        settings=settings,
        epochs=epochs,
        downloads="sources" in (config["data"].get("init_args") or {}),
        trunk=trunk,
    )


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InputError(f"the words {text!r} can't be split ({error}): close each quote") from error
