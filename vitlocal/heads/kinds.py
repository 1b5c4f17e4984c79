"""What kind of head it is, by where most of its weight is."""

import math
from typing import Literal

HeadKind = Literal["class token", "own patch", "window", "broad"]
"""What most of a head's weight is on; broad: nothing of these."""

MOST = 0.5
"""The share of the weight above which a head is called by what it looks at."""


def head_kind(self_mass: float, class_mass: float, window_mass: float) -> HeadKind | None:
    """The kind of a head.

    - ``class token``: most of its weight is on the class token, and its distances are those of the rest;
    - ``own patch``: else, of its weight on patches, most is on the query's own;
    - ``window``: else, most is within one step of it, diagonal steps included;
    - ``broad``: none of these.

    Args:
        self_mass: see :func:`vitlocal.heads.self_mass`.
        class_mass: see :func:`vitlocal.heads.class_token_mass`.
        window_mass: see :func:`vitlocal.heads.window_mass`; NaN where it was not measured.

    Returns:
        The kind; None where only the window's weight could tell and it is not known.

    >>> head_kind(self_mass=0.02, class_mass=0.98, window_mass=0.1)
    'class token'
    """
    if class_mass > MOST:
        return "class token"
    if self_mass > MOST:
        return "own patch"
    if math.isnan(window_mass):
        return None
    return "window" if window_mass > MOST else "broad"
