"""What the parsers of all commands have in common."""

from collections.abc import Sequence
from itertools import islice
from typing import Any, NoReturn

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser

from vitlocal import config_files
from vitlocal.cli import messages, model_words
from vitlocal.errors import UsageError


def files_first(words: Sequence[str]) -> list[str]:
    """The words with configurations before the others, so that what is typed counts wherever it stands.

    >>> files_first(["--lr=0.1", "--config", "a.yaml", "--small", "-c=b.yaml"])
    ['--config', 'a.yaml', '-c=b.yaml', '--lr=0.1', '--small']
    """
    files: list[str] = []
    others: list[str] = []
    rest = iter(words)
    for word in rest:
        if word in ("-c", "--config"):
            files += [word, *islice(rest, 1)]
        elif word.startswith(("-c=", "--config=")):
            files.append(word)
        else:
            others.append(word)
    return files + others


class ConfigFile(ActionConfigFile):
    """``--config``: a path, or the name of a shipped configuration."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Find the file and merge it into what was given before."""
        content = model_words.in_file(config_files.read(config_files.find(values)))
        super().__call__(parser, cfg, yaml.safe_dump(content, sort_keys=False), option_string)


class Sentences(ArgumentParser):
    """Says what is wrong in a sentence, without the pages of usage before it."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise it as a :class:`UsageError`."""
        if not self.exit_on_error:  # a branch that jsonargparse tries
            super().error(message, ex)
        at_fault = getattr(ex, "subcommand_parser", self)
        raise UsageError(messages.condensed(message, at_fault.get_defaults().keys())) from ex
