"""What the parsers of all commands have in common."""

from typing import Any, NoReturn

from jsonargparse import ActionConfigFile, ArgumentParser

from vitlocal import config_files
from vitlocal.cli import messages
from vitlocal.errors import InputError


class ConfigFile(ActionConfigFile):
    """``--config``: a path, or the name of a shipped configuration."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Find the file and merge it into what was given before."""
        path = config_files.find(values)
        config_files.read(path)  # refuses what is no mapping, in a sentence
        super().__call__(parser, cfg, str(path), option_string)


class Sentences(ArgumentParser):
    """Says what is wrong in a sentence, without the pages of usage before it."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say it and leave with exit code 2."""
        if not self.exit_on_error:
            super().error(message, ex)
        at_fault = getattr(ex, "subcommand_parser", self)
        sentence = messages.condensed(message, at_fault.get_defaults().keys())
        if messages.debugging():
            raise InputError(sentence) from ex
        messages.leave(sentence, code=2)
