"""What is said of a mistake: one sentence, whoever noticed it."""

import difflib
import errno
import inspect
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import NoReturn

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from vitlocal.cli import model_words
from vitlocal.errors import InputError

GRACE = 10.0
"""Seconds that a process other than the first keeps silent, so as not to repeat what the first says."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ALL_NAMED = 20
WIDTH = 100  # of what is quoted

_OF_VALUE = ("Does not validate", "Parser key")
_FRAME = re.compile(
    "Parser key|Problem with|Does not validate|Subtypes:|Errors:|Given value|Expected a path but"
)


def debugging() -> bool:
    """Whether mistakes are shown with their traceback: ``VITLOCAL_DEBUG=1``."""
    return os.environ.get("VITLOCAL_DEBUG") == "1"


def leave(sentence: str, code: int = 1) -> NoReturn:
    """Say it once, whatever the number of processes, and end this one."""
    if not getattr(rank_zero_only, "rank", 0) or _alone():  # set by Lightning, as soon as it knows
        sys.stderr.write(f"vitlocal: error: {sentence}\n")
    sys.exit(code)


def _alone() -> bool:
    """Whether the mistake is this process's alone: the first one, which started it, still runs."""
    parent, until = os.getppid(), time.monotonic() + GRACE
    while time.monotonic() < until:
        if os.getppid() != parent:
            return False
        time.sleep(0.1)
    return True


def of(error: BaseException) -> str | None:
    """The sentence for what a person can put right; None for a defect of the program."""
    for cause in _causes(error):
        if isinstance(cause, InputError):
            return str(cause)
    for cause in _causes(error):
        if (found := _sentence(cause)) is not None:
            return found
    if isinstance(error, ValueError | RuntimeError | TypeError) and _of_lightning(error.__traceback__):
        return _quoted(str(error), 600)
    if _restoring(error.__traceback__):
        return (
            f"the checkpoint can't be restored ({_quoted(f'{type(error).__name__}: {error}')}): "
            "it is of another shape or another program; give one that this model wrote"
        )
    return None


def _sentence(error: BaseException) -> str | None:
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename}: " if error.filename else ""
        if error.errno in FULL:
            return f"{where}there is no room ({error.strerror}): make some, or give another folder"
        return f"{where}{error.strerror}: mend that, or give another path"
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
        return "the memory is full: give a smaller data.batch_size or model"
    if isinstance(error, RuntimeError) and re.search(r"by peer|remote process exited|socketPoll", str(error)):
        return (
            "another process of this run has ended or can't be reached: see what it said, mend that, "
            "and resume with --ckpt_path last"
        )
    if isinstance(error, MisconfigurationException):
        return _quoted(str(error), 300)
    if isinstance(error, ValueError) and str(error).startswith(_OF_VALUE):
        return condensed(str(error), ())
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _of_lightning(trace: TracebackType | None) -> bool:
    """Whether Lightning itself refused something: the error was raised by its own code."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    name = "" if trace is None else trace.tb_frame.f_globals.get("__name__", "")
    return name.startswith(("lightning.", "pytorch_lightning."))


def _restoring(trace: TracebackType | None) -> bool:
    """Whether the error came up while Lightning put back what a checkpoint holds.

    Whatever such a file lacks shows there, in whichever part asks for it first.
    """
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename.endswith("checkpoint_connector.py") and "restore" in code.co_name:
            return True
        trace = trace.tb_next
    return False


def condensed(message: str, known: Iterable[str]) -> str:
    """jsonargparse's message, of many lines where a value may be of several types, as one sentence.

    Args:
        message: as jsonargparse gives it.
        known: the keys that there are, for the nearest to one that isn't.
    """
    if found := re.match(r"unrecognized arguments: (\S+)", message):
        word = found[1]
        if not word.startswith("-"):
            return f"{word} is not understood here: give settings as --KEY=VALUE"
        return _unknown(word.lstrip("-").partition("=")[0], known)
    if found := re.match(r"(?:(?:Subcommand|Group) '.*' does not accept o|O)ption '(.*?)'", message):
        return _unknown(found[1], known)
    if found := re.match(r"the following arguments are required: (.*)", message):
        several = "are missing: give each, or a --config with them"
        return f"{found[1]} {several if ',' in found[1] else 'is missing: give it'}"
    if (sentence := model_words.no_class(message)) is not None:
        return sentence
    message = model_words.of_classes(message)
    return _of_value(message) if message.startswith(_OF_VALUE) else _quoted(message, 300)


def _of_value(message: str) -> str:
    """The key that a value is of, and what jsonargparse says of the value."""
    key = ".".join(re.findall(r'Parser key "(.*)":', message))
    lines = [line.strip().removeprefix("- ") for line in message.splitlines()]
    leaves = [line for line in lines if line and not _FRAME.match(line)]
    said = " or ".join(leaf for leaf in leaves if "NoneType" not in leaf) or message
    kinds = re.findall(r"Problem with given class_path '(.*)'", message)
    if kinds and (found := re.match(r"Option '(.*)' is not accepted", said)):
        return _unknown(f"{key}.{found[1]}", [f"{key}.{name}" for name in _parameters(kinds[-1])])
    given = re.search(r"^  Given value: ([^\s(]*)$", message, re.MULTILINE)
    base = re.search(r"Subtypes: \[<class '([\w.]+)'>", message)
    shown = f"; given is {given[1]}" if given and given[1] not in said else ""
    classes = f"; give {_classes(base[1])}" if base and not kinds and _classes(base[1]) else ""
    where = f"{key}: " if key else ""  # none where a class that is built says so itself
    return f"{where}{_quoted(said, 600)}{shown}{classes}"


def _classes(base: str) -> str:
    """The classes below one that come with vitlocal, in words; empty where there are none."""
    module, _, name = base.rpartition(".")
    kind: type = getattr(sys.modules.get(module), name, int)
    shipped = [each for each in _below(kind) if each.__module__.startswith("vitlocal.")]
    names = sorted({each.__name__ for each in shipped if not inspect.isabstract(each)})
    return f"{', '.join(names)}, or the class path of another {name}" if names else ""


def _below(kind: type) -> Iterator[type]:
    yield kind
    each: type
    for each in kind.__subclasses__():
        yield from _below(each)


def _parameters(class_path: str) -> set[str]:
    module, _, name = class_path.rpartition(".")
    kind: type = getattr(sys.modules.get(module), name, object)
    constructors = [vars(base)["__init__"] for base in kind.__mro__ if "__init__" in vars(base)]
    every = {name for constructor in constructors for name in inspect.signature(constructor).parameters}
    return every - {"self", "args", "kwargs"}


def _unknown(key: str, known: Iterable[str]) -> str:
    known, (group, _, last) = sorted(known), key.rpartition(".")
    beside = {name.rpartition(".")[2]: name for name in known if name.rpartition(".")[0] == group}
    alike = [name for name in beside if name.startswith(last)] or difflib.get_close_matches(last, beside)
    near = [beside[name] for name in alike]
    near = near or difflib.get_close_matches(key, known, n=1)
    said = f"there is no key {_quoted(key)}"
    few = 0 < len(beside) <= ALL_NAMED
    if near and (len(near) == 1 or not few):
        return f"{said}; perhaps {' or '.join(near)} is meant"
    return f"{said}; known are {', '.join(beside.values())}" if few else f"{said}; --help lists them"


def _quoted(text: str, width: int = WIDTH) -> str:
    """On one line, and not a long one."""
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 1]}…"
