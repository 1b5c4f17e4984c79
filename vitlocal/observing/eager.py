"""Compiled networks run eager while they are observed: hooks of their modules would not be called."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

_stance = ExitStack()
_observers = 0


@contextmanager
def running_eager() -> Iterator[None]:
    """Within the block compiled networks run eager.

    Blocks may end in any order. Those of two callbacks end in the order in which they began, after which
    ``torch.compiler.set_stance`` by itself would stay eager: each block of it restores what it found.
    """
    global _observers
    if not _observers:
        _stance.enter_context(torch.compiler.set_stance("force_eager"))
    _observers += 1
    try:
        yield
    finally:
        _observers -= 1
        if not _observers:
            _stance.close()
