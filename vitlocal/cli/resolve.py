"""From words to settings: what a command line of ``fit`` means, without a run."""

import logging
import shlex
from typing import Any

import yaml
from lightning.pytorch.cli import LightningArgumentParser

from vitlocal.cli import messages
from vitlocal.cli.training import TrainingCLI
from vitlocal.errors import InputError


def resolve(words: list[str]) -> dict[str, Any]:
    """All settings of a run, as ``fit`` makes them of its command line.

    Args:
        words: the command line after ``vitlocal fit``.

    Raises:
        InputError: ``fit`` would refuse them, or they ask for something else than a run, such as ``--help``.
    """
    logging.disable(logging.INFO)  # each parse may say that it is on the digits
    try:
        _Parsing(["fit", *words])
    except _Resolved as found:
        return found.config
    except SystemExit:
        pass
    except Exception as error:
        if (sentence := messages.of(error)) is None:
            raise
        raise InputError(sentence) from error
    finally:
        logging.disable(logging.NOTSET)
    raise InputError(f"the words {shlex.join(words)} start no run: give settings")


class _Resolved(BaseException):
    """Carries the settings out of LightningCLI's constructor, which would build the run."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = config


class _Parsing(TrainingCLI):
    """The command line up to its settings."""

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and go no further."""
        super().parse_arguments(parser, args)
        every = parser.dump(self.config, "yaml", False)  # with null; the argument's name has changed
        raise _Resolved(yaml.safe_load(every)["fit"])
