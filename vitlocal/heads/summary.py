"""The names and numbers that are logged and written, from the statistics of every layer."""

import math
from collections.abc import Sequence

from vitlocal.geometry import Geometry

LayerStatistics = dict[str, list[float]]
"""For each name in ``STATISTICS``, and what was measured besides, one value a head."""

HEAD_BY_HEAD = ("mad", "entropy")
"""Statistics that are logged for every head, with the value of uniform attention."""

LOCAL = 0.1
"""A MAD below which a head is counted as local: one step on an 8x8 grid, in shares of its diagonal."""

HEADLINES = (
    "locality/mad_min",
    "locality/self_mass_of_mad_min",
    "locality/class_mass_of_mad_min",
    "locality/mad_min_early",
    "locality/mad_raw_min",
    "locality/class_mass_max",
    "locality/entropy_min",
    "locality/entropy_min_early",
)


def scalars(
    layers: Sequence[LayerStatistics], uniform: dict[str, float], geometry: Geometry
) -> dict[str, float]:
    """Everything that is logged.

    Args:
        layers: statistics of each layer, the first layer first.
        uniform: of every statistic, the value of uniform attention.
        geometry: of the tokens.

    Returns:
        Values by name. Early layers are the first third, rounded up.
    """
    early = layers[: math.ceil(len(layers) / 3)]
    values: dict[str, float] = {}
    for name in HEAD_BY_HEAD:
        values[f"locality/{name}_min"] = min(min(layer[name]) for layer in layers)
        values[f"locality/{name}_min_early"] = min(min(layer[name]) for layer in early)
    # A minimum alone proves nothing: the head may look at its own patch, or at the class token.
    every = [
        {name: values[head] for name, values in layer.items()}
        for layer in layers
        for head in range(len(layer["mad"]))
    ]
    least = min(every, key=lambda head: head["mad"])
    for name in ("self_mass", "class_mass"):
        values[f"locality/{name}_of_mad_min"] = least[name]
    values["locality/mad_raw_min"] = min(head["mad_raw"] for head in every)
    for name in ("class_mass", "self_log_odds", "class_log_odds"):
        values[f"locality/{name}_max"] = max(head[name] for head in every)
    if geometry.unit == "grid":
        values[f"locality/heads_below_{LOCAL}"] = float(sum(head["mad"] < LOCAL for head in every))
    for name in HEAD_BY_HEAD:
        values[f"locality/{name}/uniform"] = uniform[name]
        for index, layer in enumerate(layers):
            prefix, heads = f"locality/{name}/layer_{index}", layer[name]
            values[f"{prefix}/min"] = min(heads)
            values[f"{prefix}/mean"] = _mean(heads)
            values[f"{prefix}/max"] = max(heads)
            values |= {f"{prefix}/head_{head}": value for head, value in enumerate(heads)}
    for name in layers[0]:
        if name not in HEAD_BY_HEAD:
            for index, layer in enumerate(layers):
                values[f"locality/{name}/layer_{index}/mean"] = _mean(layer[name])
    return values


def columns(layers: Sequence[LayerStatistics]) -> tuple[str, ...]:
    """The header of ``heads.csv``."""
    return ("epoch", "step", "layer", "head", *layers[0])


def rows(layers: Sequence[LayerStatistics], step: int) -> list[dict[str, object]]:
    """Rows of ``heads.csv`` without the epoch: one a layer and head, both counted from 0."""
    return [
        {"step": step, "layer": index, "head": head}
        | {name: f"{values[head]:.6g}" for name, values in layer.items()}
        for index, layer in enumerate(layers)
        for head in range(len(layer["mad"]))
    ]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
