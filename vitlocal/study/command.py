"""``python -m vitlocal study``."""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NoReturn

import yaml

from vitlocal.errors import InputError
from vitlocal.files import atomic_path
from vitlocal.study import cells, local, plan, ray_cluster, slurm
from vitlocal.study.estimate import seconds_an_epoch
from vitlocal.study.progress import Progress, listing, seconds_left
from vitlocal.study.settings import TRUNK

Engine = Literal["local", "ray", "slurm"]


def study(
    resolve: plan.Resolve,
    name: str,
    conditions: dict[str, str],
    data: dict[str, str],
    seeds: list[int] | None = None,
    fit: str = "",
    then: str = "",
    trunk: str | None = None,
    seeds_of: dict[str, list[int]] | None = None,
    data_of_small: dict[str, str] | None = None,
    small: bool = False,
    output: Path | None = None,
    dry_run: bool = False,
    workers: int = 1,
    engine: Engine = "local",
    address: str | None = None,
    cpus: int = 1,
    gpus: float | None = None,
    cell: int | None = None,
    words: list[str] | None = None,
) -> None:
    """Run every condition with every seed on every data set, then write tables, figures and a page.

    Cells that are done are kept, the others go on from their last checkpoint; one that fails doesn't stop
    the rest.

    Args:
        resolve: Makes all settings of a run of fit's command line.
        name: Of the study.
        conditions: What fit's command line has in each, by label.
        data: What it has for each data set, by label.
        seeds: Of the runs. Left out, 0, 1 and 2; small, 0.
        fit: What it has in all cells.
        then: Another command line for each finished run, such as 'quantize --ckpt_path={run}'.
        trunk: What it has in a run that comes before the others of a seed, and with whose weights and
            optimiser these begin.
        seeds_of: Those of the seeds that some conditions have, by label. The others have all of them.
        data_of_small: What fit's command line has for each data set of small. Left out, the embedded digits
            for a few epochs.
        small: On data_of_small instead of the data sets.
        output: Folder to write to. Left out, lightning_logs/study-NAME, with -small at its end if it is.
        dry_run: Only list the cells, and how long those that are left will take.
        workers: Cells at a time on this machine, among which its GPUs and CPU threads are divided.
        engine: local; ray, on a cluster; slurm prints the script of an array job and runs nothing.
        address: Of the Ray cluster, such as auto or ray://HOST:10001. Left out, a new one on this machine.
        cpus: Cores of each cell, of engines ray and slurm.
        gpus: GPUs of each cell, of engines ray and slurm. Left out, 1; on a cluster of Ray without any, 0.
        cell: Run this one only, by its number from 0, and write no results: for array jobs.
        words: The command line, for the script of engine slurm.

    Raises:
        InputError: What is given doesn't make a study, a folder holds a run with other settings, or cells
            failed.
    """
    for key, given in (("workers", workers), ("cpus", cpus)):
        if given < 1:
            raise InputError(f"{key} is {given}: give at least 1")
    if gpus is not None and (gpus < 0 or (engine == "slurm" and gpus % 1)):
        raise InputError(f"gpus is {gpus:g}: give {'a whole number' if gpus > 0 else 'at least 0'}")
    label = f"{name}-small" if small else name
    if not plan.is_label(label):
        raise InputError(f"name is {name!r}, of which a folder is made: give letters, digits, '-' or '_'")
    folder = output or Path("lightning_logs") / f"study-{label}"
    chosen = seeds if seeds is not None else [0] if small else [0, 1, 2]
    used = data if not small else plan.SMALL if data_of_small is None else data_of_small
    every = plan.cells(folder, resolve, used, conditions, chosen, fit, then, seeds_of, trunk)
    if cell is not None and not 0 <= cell < len(every):
        raise InputError(f"cell is {cell}: the study has cells 0 to {len(every) - 1}")
    if trunk is not None and engine != "local":
        raise InputError(f"engine is {engine} but the study has a trunk, which has to come first: give local")
    states = [cells.state(one) for one in every]
    todo = [number for number, now in enumerate(states) if now.status != "done"]
    if dry_run:
        at_once = workers if engine == "local" else 1
        measured = {}
        if seconds_left(every, states, at_once) is None:
            sys.stderr.write("vitlocal: timing a few steps of each kind of cell\n")
            measured = seconds_an_epoch([every[number] for number in todo], local.environment_of_one(at_once))
        print(f"study {label}: {len(every)} cells in {folder}\n{listing(every, states, at_once, measured)}")
        return
    if engine == "slurm":
        print(slurm.script(label, words or [], todo, cpus, 1 if gpus is None else int(gpus)), end="")
        return
    _write_plan(folder, {"name": label, "data": list(used), "conditions": list(conditions), "seeds": chosen})
    running = [every[cell]] if cell is not None else [every[number] for number in todo]
    with _ended_by_signals(), Progress(running if cell is not None else every) as shown:
        if engine == "ray":
            ray_cluster.run(running, folder, address, cpus, gpus, shown.update)
        else:
            for stage in plan.stages(running):
                local.run(stage, workers, shown.update)
    if cell is None:
        _write_results(every, folder, label)
    _complain(running)


def _write_plan(folder: Path, content: dict[str, Any]) -> None:
    with atomic_path(folder / "study.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def _write_results(every: Sequence[plan.Cell], folder: Path, label: str) -> None:
    from vitlocal.study.compare import write_results
    from vitlocal.study.results import load

    loaded = []
    for cell in every:
        if cell.condition == TRUNK:
            continue
        run = cells.newest_run(cell)
        if run and (run / "metrics.csv").is_file():
            try:
                loaded.append(load(run, condition=cell.condition, data=cell.data))
            except InputError as error:
                sys.stderr.write(f"vitlocal: left out: {error}\n")
    if loaded:
        write_results(loaded, folder / "results", f"Study {label}")
        print(f"vitlocal: the results are in {folder / 'results'}; open {folder / 'results' / 'index.html'}")


def _complain(every: Sequence[plan.Cell]) -> None:
    states = {cell: cells.state(cell) for cell in every}
    failed = {cell: now for cell, now in states.items() if now.status == "failed"}
    if failed:
        cell, now = next(iter(failed.items()))
        raise InputError(
            f"{len(failed)} of {len(every)} cells failed, first {cell.name} ({now.message}): see "
            f"{cell.folder / 'log.txt'}; the same command tries again"
        )
    if ended := [cell.name for cell, now in states.items() if now.status != "done"]:
        raise InputError(f"{', '.join(ended)} ended before the last epoch: the same command resumes them")


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the study as an exception does: each run is told to save, and waited for."""

    def end(signum: int, frame: FrameType | None) -> NoReturn:
        sys.stderr.write("\nvitlocal: the runs save themselves; the same command resumes from here\n")
        sys.exit(128 + signum)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
