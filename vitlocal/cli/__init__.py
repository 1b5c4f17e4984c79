"""The command line. What a command needs is imported when it is given: PyTorch and Lightning take seconds."""

import os
import signal
import sys

from vitlocal import __version__
from vitlocal.cli.commands import COMMANDS, HELP
from vitlocal.errors import UsageError

__all__ = ["COMMANDS", "main"]


def main(args: list[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: the words after the program's name; those of the process if left out.
    """
    words = list(sys.argv[1:] if args is None else args)
    if words in (["--help"], ["-h"]):
        print(HELP, end="")
        return
    if words == ["--version"]:
        print(f"vitlocal {__version__}")
        return

    from lightning.pytorch.utilities.exceptions import SIGTERMException
    from lightning.pytorch.utilities.rank_zero import rank_zero_info

    from vitlocal.cli import messages

    try:
        _run(words)
    except SIGTERMException:
        rank_zero_info("vitlocal: ended by SIGTERM; the same command with --ckpt_path last resumes from here")
        # A process that Lightning started says nothing: it would be taken for one that failed.
        sys.exit(0 if os.environ.get("LOCAL_RANK", "0") != "0" else 128 + signal.SIGTERM)
    except Exception as error:
        sentence = messages.of(error)
        if sentence is None or messages.debugging():
            raise
        messages.leave(sentence, code=2 if isinstance(error, UsageError) else 1)


def _run(words: list[str]) -> None:
    if not words or not (words[0].startswith("-") or words[0] in COMMANDS):
        given = f"there is no command {words[0]}" if words else "a command is missing"
        raise UsageError(f"{given}: give one of {', '.join(COMMANDS)}")
    if words[0] in COMMANDS and COMMANDS[words[0]].function:
        from vitlocal.cli import tools

        tools.main(words[0], words[1:])
    else:
        from vitlocal.cli.training import TrainingCLI

        TrainingCLI(words)
