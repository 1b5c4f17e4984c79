"""What runs on sequences of tokens have in a study's tables and figures."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, get_args

import pandas as pd

from vitlocal.heads.kinds import SequenceHeadKind, sequence_head_kind
from vitlocal.heads.sequences import IN_SEQUENCES, OF_OFFSETS

_KINDS = {kind: f"share_{kind.split()[0]}" for kind in get_args(SequenceHeadKind)}

MEASURES = {
    "mad_share_mean": "mean MAD, share of the past",
    "first_mass_max": "largest weight on the first token",
    "previous_mass_max": "largest weight on the token before",
    **{column: f"heads: {kind}" for kind, column in _KINDS.items()},
}
"""Columns of ``runs.csv`` that only such runs have; ``share_*`` are shares of all heads, by their kind."""

NOT_THERE = (
    "class_mass_of_min",
    "mad_raw_min",
    "mad_raw_min_early",
    "class_mass_max",
    "class_log_odds_max",
)
"""Columns about class tokens, of which there are none in sequences."""


def are_sequences(table: pd.DataFrame) -> bool:
    """Whether rows of ``runs.csv`` or ``heads.csv`` are of sequences."""
    return any(name in table and bool(table[name].notna().any()) for name in ("first_mass_max", "first_mass"))


def row(last: pd.DataFrame, least: "pd.Series[Any]", uniform: Mapping[str, float]) -> dict[str, Any]:
    """What ``runs.csv`` has of a run on sequences, besides or instead of what others have; else nothing.

    Args:
        last: rows of ``heads.csv`` of the last epoch.
        least: the one with the smallest MAD.
        uniform: of each statistic, the value of uniform attention.
    """
    if not {*IN_SEQUENCES, *OF_OFFSETS} <= {*last}:
        return {}
    counts = Counter(_kind(head) for _, head in last.iterrows())
    found: dict[str, Any] = dict.fromkeys(NOT_THERE, float("nan"))
    found |= {"kind_of_min": _kind(least), "mad_share_mean": last["mad_share"].mean()}
    for name in ("first_mass", "previous_mass"):
        found[f"{name}_max"] = last[name].max()
        found[f"uniform_{name}"] = uniform.get(name, float("nan"))
    return found | {column: counts[kind] / len(last) for kind, column in _KINDS.items()}


def _kind(head: "pd.Series[Any]") -> SequenceHeadKind:
    names = ("first_mass", "self_mass", "previous_mass", "offset_peak_mass")
    return sequence_head_kind(*(float(head[name]) for name in names))
