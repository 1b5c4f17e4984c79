"""Where outliers are: a figure, which imports matplotlib when it is drawn, not before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from vitlocal.geometry import Geometry, Grid
from vitlocal.heads.figures import COLOUR_MAP

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEWEST = 0.01
"""Outliers an image below which nothing is drawn."""


def outlier_figure(counts: Mapping[int, tuple[Tensor, Tensor]], geometry: Geometry) -> Figure:
    """Outliers by hidden dimension and by position, as in the paper's figures (arXiv 2306.12929).

    A row a layer: on the left each hidden dimension, on the right the grid of patches, or a line of other
    tokens, between them the prefix tokens. Colours are on one logarithmic scale; blank is none, or fewer
    than one in a hundred images.

    Args:
        counts: for each layer, by its number, the outliers an image in each hidden dimension, (D,), and
            token, (N,).
        geometry: of the N tokens.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    depth, num_prefix_tokens = len(counts), geometry.num_prefix_tokens
    rows, columns = geometry.size if isinstance(geometry, Grid) else (1, geometry.num_places)
    dimensions = np.stack([by_dimension.numpy() for by_dimension, _ in counts.values()])
    positions = np.stack([by_position.numpy() for _, by_position in counts.values()])
    # Layers one below the other, with a blank line between them.
    grids = np.full((depth, rows + 1, columns), np.nan)
    grids[:, :rows] = positions[:, num_prefix_tokens:].reshape(depth, rows, columns)
    montage = grids.reshape(-1, columns)[:-1]

    # In inches, places given: a layout engine would draw everything twice, at each epoch.
    high = max(2.4, 0.55 * depth)
    wide = high * montage.shape[1] / montage.shape[0]
    beside = 0.2 * num_prefix_tokens
    places = {"dimensions": (0.6, 5.0), "prefix": (5.8, beside), "patches": (6.0 + beside, wide)}
    places["bar"] = (6.15 + beside + wide, 0.15)
    size = (places["bar"][0] + 1.0, high + 1.0)
    figure = Figure(figsize=size)
    axes = {
        name: figure.add_axes((x / size[0], 0.55 / size[1], width / size[0], high / size[1]))
        for name, (x, width) in places.items()
        if width
    }
    largest = max(dimensions.max(), positions.max(), 10 * FEWEST)
    look: Any = {"norm": LogNorm(FEWEST, largest), "cmap": COLOUR_MAP, "interpolation": "nearest"}
    shown = {"dimensions": dimensions, "prefix": positions[:, :num_prefix_tokens], "patches": montage}
    for name, values in shown.items():
        if name in axes:
            drawn = axes[name].imshow(np.ma.masked_less(values, FEWEST), aspect="auto", **look)
            axes[name].set(xticks=[], yticks=[])
    axes["dimensions"].set(
        xlabel="hidden dimension",
        ylabel="layer",
        xticks=range(0, dimensions.shape[1], max(1, dimensions.shape[1] // 8)),
        yticks=range(depth),
        yticklabels=list(counts),
    )
    if num_prefix_tokens:
        axes["prefix"].set_title("class\ntoken", fontsize="small")
    axes["patches"].set_title("patches", fontsize="small")
    axes["patches"].spines[:].set_visible(False)
    bar = figure.colorbar(drawn, cax=axes["bar"], format="%g")
    bar.minorticks_off()
    bar.set_label("outliers an image")
    return figure
