"""A data set, from what says which."""

from collections.abc import Iterator
from inspect import isabstract
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from vitlocal import config_files
from vitlocal.data import DataModule, ImageDataModule
from vitlocal.errors import InputError, root_cause


def make_data(given: str | dict[str, Any], kind: type[DataModule] = ImageDataModule) -> Any:
    """A data set from what says which.

    Args:
        given: a YAML file with the key ``data``, shipped or not; a class, such as ``Digits``; or a mapping
            with ``class_path`` and ``init_args``.
        kind: what it has to be.

    Returns:
        A ``kind``.

    Raises:
        InputError: it is none of these.
    """
    if isinstance(given, str) and given.endswith((".yaml", ".yml")):
        config = config_files.read(config_files.find(given))
        if not config.get("data"):
            raise InputError(
                f"config {given} has no key data: give the file of a data set, such as digits.yaml"
            )
        given = config["data"]
    known = sorted(each.__name__ for each in _below(kind) if not isabstract(each))
    if isinstance(given, str) and "." not in given and given not in known:
        raise InputError(
            f"data is {given!r}: it must be {', '.join(known)}, a class path, or a file such as digits.yaml"
        )
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--data", type=kind, required=True)
    try:
        return parser.instantiate(parser.parse_object({"data": given})).data
    except ArgumentError as error:
        said = " ".join(str(root_cause(error)).split())
        raise InputError(f"data {given}: {said}; give what the class takes") from error


def _below(kind: type) -> Iterator[type]:
    yield kind
    each: type
    for each in kind.__subclasses__():
        yield from _below(each)
