"""A command in a process of its own that needn't import everything again, which takes seconds."""

import multiprocessing
import os
from multiprocessing.context import ForkProcess
from pathlib import Path

from vitlocal import cli


def start(words: list[str], folder: Path) -> ForkProcess:
    """Start the command line in ``folder``; threads are as in this process, one a test."""
    process = multiprocessing.get_context("fork").Process(target=_run, args=(words, folder))
    process.start()
    return process


def _run(words: list[str], folder: Path) -> None:
    os.chdir(folder)
    cli.main(words)
