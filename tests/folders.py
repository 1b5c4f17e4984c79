"""What ``contextlib.chdir`` is from Python 3.11 on."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def chdir(folder: str | Path) -> Iterator[None]:
    """Within the block, work in ``folder``."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
