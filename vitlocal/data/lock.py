"""One process at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from lightning.pytorch.utilities.rank_zero import rank_zero_info


@contextmanager
def locked(path: Path, work: str) -> Iterator[None]:
    """Let one process on this machine work on ``path`` while the others wait.

    The lock is the operating system's, on the empty file ``.NAME.lock`` beside ``path``: a process that
    dies lets go of it. The file stays, as removing it could give two processes a lock each.

    Args:
        path: what is made.
        work: what the other processes wait for, for their message: ``download of x.zip``.

    Raises:
        OSError: the lock's file can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        rank_zero_info(f"vitlocal: waiting for another process's {work}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
