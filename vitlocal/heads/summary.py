"""The names and numbers that are logged and written, from the statistics of every layer."""

import math
from collections.abc import Sequence

from vitlocal.heads.functional import STATISTICS

LayerStatistics = dict[str, list[float]]
"""For each name in ``STATISTICS``, one value a head."""

COLUMNS = ("epoch", "step", "layer", "head", *STATISTICS)
HEADLINES = (
    "locality/mad_min",
    "locality/mad_min_early",
    "locality/entropy_min",
    "locality/entropy_min_early",
)


def scalars(layers: Sequence[LayerStatistics], uniform: dict[str, float]) -> dict[str, float]:
    """Everything that is logged.

    Args:
        layers: statistics of each layer, the first layer first.
        uniform: of the statistics that are logged head by head, the value of uniform attention.

    Returns:
        Values by name. Early layers are the first third, rounded up.
    """
    early = layers[: math.ceil(len(layers) / 3)]
    values: dict[str, float] = {}
    for name in uniform:
        values[f"locality/{name}_min"] = min(min(layer[name]) for layer in layers)
        values[f"locality/{name}_min_early"] = min(min(layer[name]) for layer in early)
    for name, reference in uniform.items():
        values[f"locality/{name}/uniform"] = reference
        for index, layer in enumerate(layers):
            prefix, heads = f"locality/{name}/layer_{index}", layer[name]
            values[f"{prefix}/min"] = min(heads)
            values[f"{prefix}/mean"] = _mean(heads)
            values[f"{prefix}/max"] = max(heads)
            values |= {f"{prefix}/head_{head}": value for head, value in enumerate(heads)}
    for name in STATISTICS:
        if name not in uniform:
            for index, layer in enumerate(layers):
                values[f"locality/{name}/layer_{index}/mean"] = _mean(layer[name])
    return values


def rows(layers: Sequence[LayerStatistics], step: int) -> list[dict[str, object]]:
    """Rows of ``heads.csv`` without the epoch: one a layer and head, both counted from 0."""
    return [
        {"step": step, "layer": index, "head": head}
        | {name: f"{layer[name][head]:.6g}" for name in STATISTICS}
        for index, layer in enumerate(layers)
        for head in range(len(layer["mad"]))
    ]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
