"""The commands that call one function, whose signature and docstring give their keys and their help."""

import inspect
import re
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, get_args, get_origin, get_type_hints

from docstring_parser import parse

from vitlocal.cli.commands import COMMANDS
from vitlocal.cli.parsing import ConfigFile, Sentences, files_first
from vitlocal.errors import InputError

OF_THE_COMMAND_LINE = ("words", "resolve")
"""Arguments of functions that no key sets: the command line, and what reads those of ``fit``."""


def parser_of(name: str) -> Sentences:
    """The parser of a command; a switch, off by default, needs no value, such as ``--small``.

    Args:
        name: of the command.
    """
    command, function = COMMANDS[name], function_of(name)
    documented = parse(function.__doc__ or "")
    about = {each.arg_name: each.description for each in documented.params}
    parser = Sentences(prog=f"vitlocal {name}", description=documented.short_description, allow_abbrev=False)
    if command.config:
        parser.add_argument("-c", "--config", action=ConfigFile, help="YAML file: path or shipped name")
    parameters, types = inspect.signature(function).parameters, get_type_hints(function)
    several = [key for key in command.positional if get_origin(types[key]) is Sequence]
    for key in several:
        (item,) = get_args(types[key])
        parser.add_argument(key, type=item, nargs="+", metavar=key.upper().rstrip("S"), help=about[key])
    switches = [key for key, parameter in parameters.items() if parameter.default is False]
    skip: set[str | int] = {*several, *switches, *command.numbers, *OF_THE_COMMAND_LINE}
    parser.add_function_arguments(function, as_group=False, as_positional=bool(command.positional), skip=skip)
    for key in switches:
        parser.add_argument(f"--{key}", action="store_true", help=about[key])
    for key in command.numbers:
        shown = f"{about[key]} Such as 0 3 or [0,3]."
        parser.add_argument(f"--{key}", type=str, nargs="+", metavar="N", help=shown)
    return parser


def main(name: str, words: list[str]) -> None:
    """Run a command.

    Args:
        name: of the command.
        words: the command line after its name.

    Raises:
        InputError: see the command's function.
    """
    command, function, parser = COMMANDS[name], function_of(name), parser_of(name)
    given = dict(vars(parser.instantiate(parser.parse_args(files_first(words)))))
    given.pop("config", None)
    for key in command.numbers:
        given[key] = _whole_numbers(key, given[key])
    if "resolve" in inspect.signature(function).parameters:
        from vitlocal.cli.resolve import resolve

        given |= {"words": words, "resolve": resolve}
    function(**given)


def function_of(name: str) -> Callable[..., Any]:
    """What a command calls."""
    module, _, function = COMMANDS[name].function.partition(":")
    return getattr(import_module(module), function)


def _whole_numbers(what: str, words: list[str] | None) -> list[int] | None:
    """Numbers beside each other, or in one word with commas and brackets."""
    if words is None:
        return None
    try:
        return [int(number) for number in re.sub(r"[][,]", " ", " ".join(words)).split()]
    except ValueError as error:
        raise InputError(f"{what} is {' '.join(words)}: give whole numbers, such as 0 3") from error
