"""How far a cell of a study is, and its run: a process of its own that resumes where the last one ended."""

import csv
import ctypes
import fcntl
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from vitlocal import __version__, config_files
from vitlocal.errors import InputError
from vitlocal.files import atomic_path
from vitlocal.runs import Run, checkpoints, folders
from vitlocal.study.plan import Cell
from vitlocal.study.settings import TRUNK, absent, flat

Status = Literal["to do", "running", "interrupted", "failed", "done"]

POLL = 0.2
"""Seconds between looks at a process."""
GRACE = 120.0
"""Seconds that a run has to save itself when it is told to end."""

_SIGTERM = (-signal.SIGTERM, 128 + signal.SIGTERM)
_libc = ctypes.CDLL(None, use_errno=True)  # loaded here: after a fork little is safe


class State(NamedTuple):
    """How far a cell is.

    Attributes:
        status: of the cell.
        epochs: trained.
        seconds: that its processes took, start-up included; those of a killed one are not known.
        message: why it failed.
    """

    status: Status
    epochs: int
    seconds: float
    message: str


def state(cell: Cell) -> State:
    """Look at a cell's folder.

    Raises:
        InputError: the folder holds a run with other settings, or a damaged cell.json.
    """
    found = _state(cell)
    if found.status == "done" or not cell.folder.is_dir():
        return found
    with _lock(cell) as descriptor:
        return found if descriptor is not None else found._replace(status="running")


def _state(cell: Cell) -> State:
    """The state of a cell at which no process is."""
    record = _record(cell)
    newest = newest_run(cell)
    status: Status = record.get("status", "to do")
    if status == "running":  # no longer: it was killed
        status = "interrupted"
    if newest is None and status in ("done", "interrupted"):
        status = "to do"
    epochs = _epochs(newest / "metrics.csv") if newest else 0
    return State(status, epochs, float(record.get("seconds", 0)), str(record.get("message", "")))


def newest_run(cell: Cell) -> Path | None:
    """The newest run folder of a cell; older ones ended before their first checkpoint."""
    found = [version for logs in cell.folder.glob("lightning_logs/*") for version in folders.versions(logs)]
    return max(found, key=folders.number, default=None)


def run(cell: Cell, environment: Mapping[str, str], stop: threading.Event) -> None:
    """Run a cell to its end, from its last checkpoint if there is one, and write down how it ended.

    A process that is at the cell already, or still saves itself, is waited for first.

    Args:
        cell: which.
        environment: variables to set, for threads and GPUs.
        stop: once set, the run is told to save and end.

    Raises:
        InputError: the cell's folder holds a run with other settings, or can't be written.
    """
    while not stop.is_set():
        with _lock(cell) as descriptor:
            if descriptor is not None:
                before = _state(cell)
                if cell.trunk is not None and state(cell.trunk).status != "done":
                    write_failure(cell, f"{cell.trunk.name}, with which it begins, is not done")
                elif before.status != "done":
                    _train(cell, before.seconds, environment, stop, descriptor)
                return
        stop.wait(POLL)


def write_failure(cell: Cell, message: str) -> None:
    """Write down that a cell failed where its own process could not."""
    _write(cell, {"fingerprint": cell.fingerprint, "status": "failed", "message": message})


def _train(
    cell: Cell, seconds: float, environment: Mapping[str, str], stop: threading.Event, descriptor: int
) -> None:
    started = time.monotonic()
    record = {
        "fingerprint": cell.fingerprint,
        "command": shlex.join(["python", "-m", "vitlocal", "fit", *cell.words]),
        "vitlocal": __version__,
        "host": platform.node(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    _write(cell, record | {"status": "running", "seconds": seconds})
    where = [f"--trainer.default_root_dir={cell.folder}", "--trainer.enable_progress_bar=false"]
    if cell.trunk is not None:
        where += [f"--init_from={newest_run(cell.trunk)}", "--init_optimizer=true"]
    resume = ["--ckpt_path=last"] if _has_checkpoint(cell) else []
    log = cell.folder / "log.txt"
    with log.open("ab") as output:
        begin = output.tell()

        def vitlocal(*words: str) -> int:
            process = subprocess.Popen(
                [sys.executable, "-m", "vitlocal", *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                pass_fds=(descriptor,),  # as long as it lives, no other process takes the cell
                start_new_session=True,  # Ctrl-C is the study's, which tells the run to save
                preexec_fn=_end_with_parent,
            )
            return _wait(process, stop)

        code = vitlocal("fit", *cell.words, *where, *resume)
        if code == 0 and cell.then:
            code = vitlocal(*(word.replace("{run}", str(newest_run(cell))) for word in cell.then))
    ended: dict[str, Any] = {"status": "done"}
    if code in _SIGTERM:
        ended = {"status": "interrupted"}
    elif code:
        ended = {"status": "failed", "message": _why(log, begin, code)}
    _write(cell, record | ended | {"seconds": round(seconds + time.monotonic() - started, 3)})


def _wait(process: subprocess.Popen[bytes], stop: threading.Event) -> int:
    """Wait for its exit code; have it save itself and end if ``stop`` is set, or this thread has to end."""
    try:
        while process.poll() is None and not stop.is_set():
            stop.wait(POLL)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
    return process.wait()


def _end_with_parent() -> None:
    """Have Linux send SIGTERM to this process when the one that started it is gone, killed for instance."""
    if sys.platform == "linux":
        _libc.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


@contextmanager
def _lock(cell: Cell) -> Iterator[int | None]:
    """Hold the cell, if nobody does; gives the lock's file descriptor, which a child can hold on to.

    The operating system's, so that a process that dies lets go of it.
    """
    cell.folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(cell.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield descriptor
    finally:
        os.close(descriptor)


def _has_checkpoint(cell: Cell) -> bool:
    newest = newest_run(cell)
    resumable = {checkpoints.LAST, checkpoints.BEFORE_LAST}
    return newest is not None and not resumable.isdisjoint(Run(newest).checkpoints)


def _epochs(table: Path) -> int:
    if not table.is_file():
        return 0
    with table.open(newline="", encoding="utf-8") as file:
        return max((int(row["epoch"]) for row in csv.DictReader(file)), default=0)


def _record(cell: Cell) -> dict[str, Any]:
    path = cell.folder / "cell.json"
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        fingerprint = record["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}): remove {cell.folder} to run the cell anew") from error
    if fingerprint != cell.fingerprint:
        raise InputError(
            f"{cell.folder} holds a run with other settings{_difference(cell)}: "
            "give the study another output, or remove that folder"
        )
    return record


def _difference(cell: Cell) -> str:
    newest = newest_run(cell)
    try:
        assert newest
        theirs = flat(config_files.read(newest / "config.yaml"))
    except (AssertionError, InputError, AttributeError):
        return ""
    ours = {name: value for name, value in cell.settings.items() if name != TRUNK}
    names = sorted(name for name in {*theirs, *ours} if theirs.get(name) != ours.get(name))
    given = [(name, *(each.get(name, absent(name)) for each in (theirs, ours))) for name in names[:2]]
    shown = [f"{name} is {there} there and {here} here" for name, there, here in given]
    return f" ({'; '.join(shown)})" if shown else ""


def _write(cell: Cell, record: Mapping[str, Any]) -> None:
    with atomic_path(cell.folder / "cell.json") as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _why(log: Path, begin: int, code: int) -> str:
    """What a failed run said last: its sentence, or the last line of a traceback."""
    with log.open("rb") as file:
        file.seek(begin)
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    if code < 0:
        return f"killed by signal {-code}"
    said = [line for line in lines if line.startswith("vitlocal: error: ")] or lines or [f"exit code {code}"]
    return said[-1].strip().removeprefix("vitlocal: error: ")
