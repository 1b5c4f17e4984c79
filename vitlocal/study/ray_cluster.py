"""The cells of a study on a Ray cluster."""

import io
import logging
import os
import socket
import tarfile
import tempfile
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from vitlocal.errors import InputError
from vitlocal.study import cells
from vitlocal.study.plan import Cell

RETRIES = 3
"""Times that a cell is begun again elsewhere, when its node is lost."""
SECONDS_BETWEEN_LOOKS = 1.0


def run(
    todo: Sequence[Cell],
    folder: Path,
    address: str | None,
    cpus: int,
    gpus: float | None,
    show: Callable[[], None],
) -> None:
    """Run cells wherever the cluster has room, and gather what they leave in the study's folder.

    Nodes that see the study's folder write there, so that a cell lost with its node resumes from its last
    checkpoint; on others a cell is in a temporary folder, and comes over when it has ended.

    Args:
        todo: the cells.
        folder: of the study.
        address: of the cluster; None: a new one on this machine.
        cpus: cores of each cell.
        gpus: GPUs of each cell, a part of one to share it; None: 1 if the cluster has any.
        show: called about every second.

    Raises:
        InputError: Ray is not installed, there is no such cluster, or no node that has so much.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError("engine ray needs Ray: pip install 'vitlocal[ray]'") from error
    _reach(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING, include_dashboard=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(f"address {address}: {' '.join(str(error).split())[:200]}") from error
    mark = folder / f".ray-{uuid.uuid4().hex}"
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if gpus is None:
            gpus = 1 if any(node.get("GPU") for node in nodes) else 0
        if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
            raise InputError(f"no node of the cluster has {cpus} cores and {gpus:g} GPUs: give fewer")
        mark.touch()
        task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(_run)
        where = (str(mark.resolve()), str(Path.cwd()), cpus)
        pending = {task.remote(replace(cell, folder=cell.folder.resolve()), *where): cell for cell in todo}
        while pending:
            done, _ = ray.wait(list(pending), timeout=SECONDS_BETWEEN_LOOKS)
            for one in done:
                cell = pending.pop(one)
                try:
                    content = ray.get(one)
                except ray.exceptions.RayError as error:
                    # Its node was lost once too often, or there is a defect, named on the last line.
                    said = str(error).strip().splitlines()
                    cells.write_failure(cell, f"Ray gave it up: {said[-1] if said else type(error).__name__}")
                else:
                    _unpack(content, cell.folder)
            show()
    finally:
        mark.unlink(missing_ok=True)
        ray.shutdown()


def _reach(address: str | None) -> None:
    """Try ``HOST:PORT``, of which Ray itself says only after minutes that nobody is there."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise InputError(f"address {address}: no cluster answers there ({error})") from error


def _run(cell: Cell, mark: str, working_folder: str, cpus: int) -> bytes | None:
    """Run a cell on its node; gives its folder as a tar file, where the study's folder is not seen."""
    if Path(working_folder).is_dir():
        os.chdir(working_folder)  # paths in the cell's words are relative to it
    environment = {"OMP_NUM_THREADS": str(cpus)}
    if Path(mark).exists():
        cells.run(cell, environment, threading.Event())
        return None
    with tempfile.TemporaryDirectory() as scratch:
        cells.run(replace(cell, folder=Path(scratch) / "cell"), environment, threading.Event())
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as archive:
            archive.add(Path(scratch) / "cell", ".")
        return content.getvalue()


def _unpack(content: bytes | None, folder: Path) -> None:
    if content is not None:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            archive.extractall(folder, filter="data")
