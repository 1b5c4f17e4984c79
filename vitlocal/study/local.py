"""The cells of a study on this machine, one after another or several at once."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from queue import SimpleQueue

from vitlocal.study import cells
from vitlocal.study.plan import Cell

SECONDS_BETWEEN_LOOKS = 1.0


def environments(workers: int, cpus: int, gpus: Sequence[str]) -> list[dict[str, str]]:
    """What each of ``workers`` processes at a time may use.

    Args:
        workers: how many.
        cpus: cores to divide into threads.
        gpus: to divide; where there are fewer than workers, several share one.

    Returns:
        Environment variables of each.
    """
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cpus // workers)))}
    share = len(gpus) // workers
    mine = [
        gpus[one * share : (one + 1) * share] if share else gpus[one % len(gpus) :][:1] if gpus else []
        for one in range(workers)
    ]
    return [threads | ({"CUDA_VISIBLE_DEVICES": ",".join(of_one)} if of_one else {}) for of_one in mine]


def environment_of_one(workers: int) -> dict[str, str]:
    """What one of so many cells at a time may use on this machine."""
    return environments(workers, _cpus(), _gpus())[0]


def run(todo: Sequence[Cell], workers: int, show: Callable[[], None]) -> None:
    """Run cells, ``workers`` at a time; whatever ends this, ends them too, each with a checkpoint.

    Args:
        todo: the cells.
        workers: how many at a time.
        show: called about every second.

    Raises:
        InputError: see :func:`vitlocal.study.cells.run`.
    """
    free: SimpleQueue[dict[str, str]] = SimpleQueue()
    for environment in environments(workers, _cpus(), _gpus()):
        free.put(environment)
    stop = threading.Event()

    def work(cell: Cell) -> None:
        environment = free.get()
        try:
            cells.run(cell, environment, stop)
        finally:
            free.put(environment)

    with ThreadPoolExecutor(workers) as pool:
        pending: set[Future[None]] = {pool.submit(work, cell) for cell in todo}
        try:
            while pending:
                done, pending = wait(pending, timeout=SECONDS_BETWEEN_LOOKS)
                for future in done:
                    future.result()
                show()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip() not in ("", "-1")]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]
