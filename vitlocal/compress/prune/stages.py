"""What a command that was stopped had found already."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vitlocal.files import atomic_path


class Stages:
    """Values by name in a JSON file, found anew where what they depend on has changed.

    Args:
        path: of the file.
        settings: what all values depend on, plain values.

    Attributes:
        settings: the same.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._path = path
        self.settings = json.loads(json.dumps(settings))  # as it is read again
        self._found: dict[str, Any] = {}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["settings"] == self.settings:
                self._found = dict(content["found"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # nothing that can be used

    def get(self, name: str, find: Callable[[], Any]) -> Any:
        """The fields of a dataclass by that name, found by ``find`` and written down if not there yet."""
        if name not in self._found:
            self._found[name] = asdict(find())
            with atomic_path(self._path) as temporary:
                content = {"settings": self.settings, "found": self._found}
                temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        return self._found[name]
