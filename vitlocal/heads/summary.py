"""The names and numbers that are logged and written, from the statistics of every layer."""

import math
from collections.abc import Sequence
from typing import Any

from vitlocal.geometry import Geometry
from vitlocal.observing.hooks import Place

LayerStatistics = dict[str, list[float]]
"""For each name in ``STATISTICS``, and what was measured besides, one value a head.

Where heads look at several hops, one value a head and hop, all of a head after those of the head before; then
what :func:`of_hops` gives comes first.
"""

OF_HOPS = ("hop", "gate", "own_gate")
"""What :func:`of_hops` gives."""

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


def of_hops(attention: Any) -> LayerStatistics:
    """What an attention module with hops is at each head and hop; empty for others.

    Returns:
        ``hop``, 1 to K; ``gate``, what the hop of that head is multiplied by; ``own_gate``, the same of hop
        0, the token's own value.
    """
    if not getattr(attention, "num_hops", 0):
        return {}
    gates = attention.gates().detach().cpu()
    heads, hops = gates.shape[0], gates.shape[1] - 1
    return {
        "hop": list(range(1, hops + 1)) * heads,
        "gate": gates[:, 1:].flatten().tolist(),
        "own_gate": gates[:, 0].repeat_interleave(hops).tolist(),
    }


def scalars(
    layers: Sequence[LayerStatistics],
    uniform: dict[str, float],
    geometry: Geometry,
    places: Sequence[Place],
) -> dict[str, float]:
    """Everything that is logged.

    Args:
        layers: statistics of each layer, the first layer first.
        uniform: of every statistic, the value of uniform attention.
        geometry: of the tokens.
        places: what the layers and their heads are called.

    Returns:
        Values by name. Early layers are the first third, rounded up; there may be none of them left.
    """
    first = math.ceil((places[-1].layer + 1) / 3)
    early = [layer for layer, place in zip(layers, places, strict=True) if place.layer < first]
    values: dict[str, float] = {}
    for name in HEAD_BY_HEAD:
        values[f"locality/{name}_min"] = min(min(layer[name]) for layer in layers)
        if early:
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
        for layer, place in zip(layers, places, strict=True):
            prefix, heads = f"locality/{name}/layer_{place.layer}", layer[name]
            values[f"{prefix}/min"] = min(heads)
            values[f"{prefix}/mean"] = _mean(heads)
            values[f"{prefix}/max"] = max(heads)
            values |= {f"{prefix}/{head}": of for head, of in zip(place.names, heads, strict=True)}
    for name in layers[0]:
        if name not in (*HEAD_BY_HEAD, *OF_HOPS):
            for layer, (index, *_) in zip(layers, places, strict=True):
                values[f"locality/{name}/layer_{index}/mean"] = _mean(layer[name])
    for layer, place in zip(layers, places, strict=True):
        if place.num_hops:
            values |= _gates(f"locality/gate/layer_{place.layer}", layer, place)
    return values


def _gates(prefix: str, layer: LayerStatistics, place: Place) -> dict[str, float]:
    """A layer's gates of hops, each the sum of its heads', and those of each head."""
    found = {f"{prefix}/{head}": gate for head, gate in zip(place.names, layer["gate"], strict=True)}
    for hop in range(place.num_hops):
        found[f"{prefix}/hop_{hop + 1}"] = math.fsum(layer["gate"][hop :: place.num_hops])
    return found | {f"{prefix}/hop_0": layer["own_gate"][0]}


def columns(layers: Sequence[LayerStatistics]) -> tuple[str, ...]:
    """The header of ``heads.csv``."""
    return ("epoch", "step", "layer", "head", *layers[0])


def rows(layers: Sequence[LayerStatistics], places: Sequence[Place], step: int) -> list[dict[str, object]]:
    """Rows of ``heads.csv`` without the epoch: one a layer, head and hop, each by its number."""
    return [
        {"step": step, "layer": place.layer, **{name: f"{of[row]:.6g}" for name, of in layer.items()}, **head}
        for layer, place in zip(layers, places, strict=True)
        for row, head in enumerate(place.rows)
    ]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
