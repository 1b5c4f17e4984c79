"""The command line. What a command needs is imported when it is given: PyTorch and Lightning take seconds."""

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from vitlocal import __version__

HELP = """usage: vitlocal COMMAND [--config FILE]... [--KEY=VALUE]...

Vision Transformers trained from scratch under named protocols, head by head.

commands:
  fit         train
  validate    measure a checkpoint on the validation images
  test        measure a checkpoint on the test images
  predict     write the class of every image
  compare     put runs side by side: statistics, tables, figures and one HTML page

  vitlocal COMMAND --help           all keys of a command
  vitlocal COMMAND --print_config   the values that they have
  vitlocal --version

for example:
  vitlocal fit --config modern.yaml
  vitlocal fit --config cifar100.yaml --config modern.yaml --protocol.mixing=null
  vitlocal test --config cifar100.yaml --config modern.yaml --ckpt_path=best
  vitlocal compare lightning_logs/digits-baseline/version_0 lightning_logs/digits-modern/version_0
"""


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

    from vitlocal import messages

    try:
        if words[:1] == ["compare"]:
            _compare(words[1:])
        else:
            from vitlocal.training_cli import TrainingCLI

            TrainingCLI(words)
    except SIGTERMException:
        rank_zero_info("vitlocal: ended by SIGTERM; the same command with --ckpt_path last goes on from here")
        # A process that Lightning started says nothing: it would be taken for one that failed.
        sys.exit(0 if os.environ.get("LOCAL_RANK", "0") != "0" else 128 + signal.SIGTERM)
    except Exception as error:
        sentence = messages.of(error)
        if sentence is None or messages.debugging():
            raise
        messages.leave(sentence)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong without the usage before it."""
        from vitlocal import messages

        messages.leave(f"{message}: see {self.prog} --help", code=2)


def _compare(words: list[str]) -> None:
    from vitlocal.study.compare import compare

    parser = _Parser(prog="vitlocal compare", description="Put runs side by side.", allow_abbrev=False)
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="a run's folder, such as lightning_logs/digits-modern/version_0, or a folder that holds runs",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("lightning_logs/compare"),
        help="the folder to write to (default: %(default)s)",
    )
    compare(**vars(parser.parse_args(words)))
