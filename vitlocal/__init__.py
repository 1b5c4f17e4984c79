"""Vision Transformers trained from scratch under named protocols, head by head."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitlocal.runs import Run, open_run

__version__ = "0.1.0"
__all__ = ["Run", "open_run"]

# Imported when they are asked for, so that --help does not wait for PyTorch.
_MODULES = {"Run": "vitlocal.runs", "open_run": "vitlocal.runs"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
