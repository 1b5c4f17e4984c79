"""Figures of a pruning. They import matplotlib when they are drawn, not before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vitlocal.compress.prune.heads import Head
from vitlocal.compress.prune.report import Pruned
from vitlocal.heads.figures import COLOUR_MAP, HEAD_COLOUR, REFERENCE_COLOUR

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOK = {
    "ziplm": (HEAD_COLOUR, "o", "-"),
    "gradual": ("#56B4E9", "P", "-"),
    "uniform": ("#009E73", "s", "--"),
    "diagonal": ("#CC79A7", "^", "--"),
    "magnitude": ("#E69F00", "D", "--"),
    "random": ("#8C5A2B", "v", ":"),
}
"""Colour of Okabe and Ito's palette, marker and line of each method."""


def accuracy_figure(found: Sequence[Pruned]) -> Figure:
    """Accuracy against measured speedup, a line a method from the dense network on."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot()
    dense = next(row for row in found if row.method == "dense")
    for method, (colour, marker, line) in LOOK.items():
        rows = sorted((row for row in found if row.method == method), key=lambda row: row.speedup)
        if rows:
            rows = [dense, *rows]
            axes.plot(
                [row.speedup for row in rows],
                [row.acc1 for row in rows],
                color=colour,
                marker=marker,
                linestyle=line,
                label=method,
                markersize=5,
            )
    axes.plot(dense.speedup, dense.acc1, "x", color=REFERENCE_COLOUR, markersize=9, markeredgewidth=2.5)
    axes.annotate("dense", (dense.speedup, dense.acc1), (6, 6), textcoords="offset points", fontsize="small")
    axes.set(xlabel="measured speedup", ylabel=f"accuracy on {dense.images} validation images")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    return figure


def heads_figure(heads: Sequence[Head], label: str) -> Figure:
    """Heads by layers, coloured by MAD; in each the smallest speedup at which it is gone.

    Args:
        heads: of all layers.
        label: what MAD is, with its unit.
    """
    from matplotlib import colormaps
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    depth, widest = (max(getattr(row, name) for row in heads) + 1 for name in ("layer", "head"))
    values = np.full((depth, widest), np.nan)
    for row in heads:
        values[row.layer, row.head] = row.mad
    figure = Figure(figsize=(2.4 + 0.5 * widest, max(3.8, 1.2 + 0.45 * depth)), layout="constrained")
    axes = figure.add_subplot()
    scale = Normalize(float(np.nanmin(values)), float(np.nanmax(values)))
    drawn = axes.imshow(values, cmap=COLOUR_MAP, norm=scale, aspect="auto")
    for row in heads:
        if row.gone_at is not None:
            red, green, blue, _ = colormaps[COLOUR_MAP](scale(row.mad))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
            axes.text(
                row.head,
                row.layer,
                f"{row.gone_at:g}x",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else "black",
            )
    axes.set(xlabel="head", ylabel="layer", xticks=range(widest), yticks=range(depth))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("the speedup from which a head is gone;\nwithout a number: kept", fontsize="small")
    figure.colorbar(drawn, ax=axes, label=label)
    return figure


def time_figure(found: Sequence[Pruned]) -> Figure:
    """Predicted against measured time of every network."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 4), layout="constrained")
    axes = figure.add_subplot()
    look = {"dense": (REFERENCE_COLOUR, "x", ""), **LOOK}
    for method in dict.fromkeys(row.method for row in found):
        rows = [row for row in found if row.method == method]
        colour, marker, _ = look[method]
        axes.plot(
            [row.measured_ms for row in rows],
            [row.predicted_ms for row in rows],
            linestyle="none",
            color=colour,
            marker=marker,
            label=method,
        )
    most = 1.05 * max(max(row.measured_ms, row.predicted_ms) for row in found)
    axes.plot([0, most], [0, most], color="#888888", linewidth=1, linestyle=":")
    axes.set(xlabel="measured (ms a call)", ylabel="predicted (ms a call)", xlim=(0, most), ylim=(0, most))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    return figure
