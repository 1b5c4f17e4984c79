"""What kind of head it is, by where most of its weight is."""

import math
from typing import Literal

HeadKind = Literal["class token", "own patch", "window", "broad"]
"""What most of a head's weight is on; broad: nothing of these."""

SequenceHeadKind = Literal["first token", "own token", "previous token", "fixed distance", "broad"]
"""The same in a causal sequence."""

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


def sequence_head_kind(
    first_mass: float, self_mass: float, previous_mass: float, offset_peak_mass: float
) -> SequenceHeadKind:
    """The kind of a head over causal sequences, see :func:`vitlocal.heads.sequences.sequence_statistics`.

    ``first token``, ``own token`` or ``previous token`` if most of its weight is there, ``fixed distance`` if
    most is as many tokens back everywhere, else ``broad``; the first of these that is so.

    >>> sequence_head_kind(first_mass=0.1, self_mass=0.1, previous_mass=0.2, offset_peak_mass=0.7)
    'fixed distance'
    """
    if first_mass > MOST:
        return "first token"
    if self_mass > MOST:
        return "own token"
    if previous_mass > MOST:
        return "previous token"
    return "fixed distance" if offset_peak_mass > MOST else "broad"
