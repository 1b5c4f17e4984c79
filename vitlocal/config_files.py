"""The YAML files that come with vitlocal, and how a name on the command line finds one."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from vitlocal import earlier
from vitlocal.errors import InputError

# In a wheel the files are inside the package; in a checkout they are the folder beside it.
FOLDERS = (Path(__file__).parent / "configs", Path(__file__).parent.parent / "configs")


def shipped() -> dict[str, Path]:
    """File names and paths of the shipped configurations."""
    folder = next((folder for folder in FOLDERS if folder.is_dir()), None)
    return {path.name: path for path in sorted(folder.glob("*.yaml"))} if folder else {}


def find(name: str) -> Path:
    """The file that ``name`` means: that path if it is there, else the shipped one of that name.

    Raises:
        InputError: neither is there; the sentence lists the shipped ones.
    """
    if Path(name).is_file():
        return Path(name)
    if Path(name).is_dir():
        raise InputError(f"config {name} is a folder: give a YAML file")
    files = shipped()
    if name not in files:
        raise InputError(
            f"config {name}: there is no such file, nor a shipped one of that name; "
            f"shipped are {', '.join(files) or 'none'}"
        )
    return files[name]


def read(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; settings of earlier releases by today's names.

    Raises:
        InputError: it can't be read, or holds something else.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"config {path} can't be read ({error.strerror}): make it readable") from error
    except UnicodeDecodeError as error:
        raise InputError(f"config {path} is not text: give a YAML file in UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        what = getattr(error, "problem", None) or " ".join(str(error).split())
        raise InputError(f"config {path},{where} {what}; give plain YAML") from error
    # PyYAML's own constructors: a date of month 13, a number of a digit too many, a loop of aliases.
    except (ValueError, RecursionError) as error:
        raise InputError(f"config {path} holds a value that can't be read ({error}): mend it") from error
    if content is None:
        raise InputError(f"config {path} is empty: give a mapping of keys to values")
    if not isinstance(content, dict):
        raise InputError(f"config {path} holds a {type(content).__name__}: give a mapping of keys to values")
    return earlier.config(content)


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted name, without ``init_args``.

    >>> dict(flat({"model": {"class_path": "A", "init_args": {"lr": 0.1}}}))
    {'model.class_path': 'A', 'model.lr': 0.1}
    """
    if isinstance(value, Mapping):
        for key, below in value.items():
            name = prefix if key == "init_args" else f"{prefix}.{key}" if prefix else str(key)
            yield from flat(below, name)
    else:
        yield prefix, value
