"""Figures of what heads look at. They import matplotlib when they are drawn, not before."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vitlocal.observing.hooks import Place

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Two hues of Okabe and Ito's palette, which colour-blind readers can tell apart.
HEAD_COLOUR, REFERENCE_COLOUR = "#0072B2", "#D55E00"
COLOUR_MAP = "viridis"
LABELS = {
    "grid": "mean attention distance (1 = corner to corner)",
    "patches": "mean attention distance (patches)",
    "pixels": "mean attention distance (pixels)",
    "tokens": "mean attention distance (tokens)",
    "share": "mean attention distance (share of the farthest)",
    "hops": "mean attention distance (hops)",
}
"""What MAD is called in each unit."""
LABELLED = 4
"""Heads that are named in the figure of all curves: those that end lowest."""


@dataclass(frozen=True)
class AttentionMaps:
    """What every head sees from the centre patch of one image.

    Attributes:
        image: uint8 (C, H, W).
        layers: one tensor a layer, (heads, rows, columns): the centre patch's attention to each patch.
    """

    image: Tensor
    layers: list[Tensor]


def centre_patch(grid_size: tuple[int, int]) -> tuple[int, int]:
    """Row and column of the patch in the middle; of an even number, the one after the middle."""
    return grid_size[0] // 2, grid_size[1] // 2


def depth_figure(
    layers: Sequence[Sequence[float]], places: Sequence[Place], label: str, uniform: float
) -> Figure:
    """One dot a head against the depth of its layer, with the value of uniform attention.

    Args:
        layers: the values of each layer's heads.
        places: what the layers and heads are called.
        label: what the values are, with their unit.
        uniform: the value of uniform attention.
    """
    from matplotlib.figure import Figure

    # Places are given: a layout engine would draw everything twice, at each epoch.
    figure = Figure(figsize=(6.4, 4))
    axes = figure.add_axes((0.12, 0.12, 0.86, 0.79))
    numbers = [place.layer for place in places]
    depths = [depth for depth, values in zip(numbers, layers, strict=True) for _ in values]
    every = [value for values in layers for value in values]
    axes.plot(depths, every, "o", color=HEAD_COLOUR, alpha=0.6, markersize=5, label="a head")
    means = [sum(values) / len(values) for values in layers]
    axes.plot(numbers, means, color=HEAD_COLOUR, linewidth=1, label="mean of the layer")
    axes.axhline(uniform, color=REFERENCE_COLOUR, linestyle="--", linewidth=1.2, label="uniform attention")
    axes.set(xlabel="layer", ylabel=label, xticks=range(numbers[-1] + 1))
    axes.set_ylim(0, 1.05 * max(uniform, *every) or 1)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, loc="upper center", ncols=3, fontsize="small")
    return figure


def training_figure(
    curves: Mapping[int, Sequence[Sequence[float]]], places: Sequence[Place], label: str, uniform: float
) -> Figure:
    """A curve a head over training, coloured by its layer; the heads that end lowest are named.

    Args:
        curves: for each epoch, the values of each layer's heads.
        places: what the layers and heads are called.
        label: what the values are, with their unit.
        uniform: the value of uniform attention.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, ListedColormap
    from matplotlib.figure import Figure

    epochs = sorted(curves)
    last = curves[epochs[-1]]
    figure = Figure(figsize=(7.6, 4.2))
    axes = figure.add_axes((0.1, 0.12, 0.62, 0.82))
    beside = figure.add_axes((0.9, 0.12, 0.025, 0.82))
    # Without the palest end, which can't be seen on white.
    colours = colormaps[COLOUR_MAP].resampled(len(last) + max(1, len(last) // 6))
    ends = []
    for layer, heads in enumerate(last):
        for head, end in enumerate(heads):
            values = [curves[epoch][layer][head] for epoch in epochs]
            axes.plot(epochs, values, color=colours(layer), linewidth=0.9, alpha=0.85)
            name = f"layer {places[layer].layer} {places[layer].names[head]}"
            ends.append((end, re.sub("[_/]", " ", name), colours(layer)))
    axes.axhline(uniform, color=REFERENCE_COLOUR, linestyle="--", linewidth=1.2)
    axes.text(
        epochs[0], uniform, " uniform attention", color=REFERENCE_COLOUR, fontsize=8, va="bottom"
    ).set_bbox({"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0})
    top = 1.08 * max(uniform, *(value for of in curves.values() for heads in of for value in heads)) or 1
    axes.set(xlabel="epochs of training", ylabel=label, ylim=(0, top))
    axes.set_xlim(epochs[0], epochs[-1] if len(epochs) > 1 else epochs[0] + 1)
    axes.locator_params(axis="x", integer=True)
    axes.spines[["top", "right"]].set_visible(False)
    place = -top
    for end, name, colour in sorted(ends)[:LABELLED]:
        place = max(end, place + 0.045 * top)  # names do not lie over each other
        axes.annotate(
            name,
            (1.0, end),
            (1.02, place),
            xycoords=("axes fraction", "data"),
            textcoords=("axes fraction", "data"),
            color=colour,
            fontsize=8,
            va="center",
        )
    of_layers = ListedColormap([colours(layer) for layer in range(len(last))])
    edges = BoundaryNorm([layer - 0.5 for layer in range(len(last) + 1)], max(len(last), 1))
    bar = figure.colorbar(ScalarMappable(edges, of_layers), cax=beside, ticks=range(len(last)))
    bar.set_ticklabels([str(place.layer) for place in places])
    bar.ax.tick_params(length=0)
    bar.set_label("layer")
    return figure


def attention_figure(maps: AttentionMaps, places: Sequence[Place]) -> Figure:
    """An image, and beside it the centre patch's attention in every layer and head.

    Colours are on one logarithmic scale, the same for all heads, images and epochs: from a tenth of
    uniform attention to all attention on one patch. The centre patch is framed.

    Args:
        maps: of one image.
        places: what its layers and heads are called: heads of one number, and their hops where there are
            any, are below each other.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    rows, columns = maps.layers[0].shape[1:]
    columns_of_heads = sorted({tuple(row.values()) for place in places for row in place.rows})
    heads = len(columns_of_heads)
    of_layers = [[columns_of_heads.index(tuple(row.values())) for row in place.rows] for place in places]
    montage = _montage(maps.layers, of_layers, heads)
    # In inches: the image, the maps and the colour bar beside each other, as high as the maps.
    high = max(2.0, 0.5 * len(maps.layers))
    wide = high * montage.shape[1] / montage.shape[0]
    below, size = 0.55, (2.75 + wide + 1.25, high + 0.95)
    figure = Figure(figsize=size)
    left, right, beside = (
        figure.add_axes((x / size[0], below / size[1], width / size[0], high / size[1]))
        for x, width in ((0.1, 2.0), (2.75, wide), (2.75 + wide + 0.1, 0.15))
    )
    _draw_image(left, maps.image, (rows, columns))

    lowest = 0.1 / (rows * columns)
    drawn = right.imshow(montage.clip(min=lowest), norm=LogNorm(lowest, 1), cmap=COLOUR_MAP)
    origins = [
        (layer * (rows + 1), head * (columns + 1))
        for layer, numbers in enumerate(of_layers)
        for head in numbers
    ]
    _frame(right, origins, (rows, columns), (1, 1))
    right.set(
        xlabel="head, hop" if any(place.num_hops for place in places) else "head",
        ylabel="layer",
        xticks=[head * (columns + 1) + columns / 2 - 0.5 for head in range(heads)],
        yticks=[layer * (rows + 1) + rows / 2 - 0.5 for layer in range(len(maps.layers))],
        xticklabels=[", ".join(map(str, column)) for column in columns_of_heads],
        yticklabels=[place.layer for place in places],
    )
    right.tick_params(length=0)
    right.spines[:].set_visible(False)
    bar = figure.colorbar(drawn, cax=beside, format="%g")
    bar.minorticks_off()
    bar.set_label("attention of the framed patch\n(white line: uniform)")
    bar.ax.axhline(1 / (rows * columns), color="white", linewidth=2)
    return figure


def _montage(layers: Sequence[Tensor], places: Sequence[Sequence[int]], heads: int) -> np.ndarray:
    """Maps in their columns, a row a layer, with a line of NaN, which is drawn blank, between them."""
    rows, columns = layers[0].shape[1:]
    montage = torch.full((len(layers), rows + 1, heads, columns + 1), torch.nan)
    for layer, weights in enumerate(layers):
        montage[layer, :rows, places[layer], :columns] = weights.transpose(0, 1)
    return montage.reshape(len(layers) * (rows + 1), heads * (columns + 1))[:-1, :-1].numpy()


def _draw_image(axes: Axes, image: Tensor, grid_size: tuple[int, int]) -> None:
    if image.is_floating_point():  # of another project, normalised in some way
        low, high = image.aminmax()
        image = (image - low) / (high - low).clamp(min=1e-12) * 255
    pixels = image.byte().permute(1, 2, 0).numpy()
    axes.imshow(pixels if pixels.shape[2] == 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=255)
    patch = (pixels.shape[0] / grid_size[0], pixels.shape[1] / grid_size[1])
    _frame(axes, [(0, 0)], grid_size, patch, linewidth=2.5)
    axes.set(xticks=[], yticks=[], title="image")


def _frame(
    axes: Axes,
    origins: Sequence[tuple[int, int]],
    grid_size: tuple[int, int],
    patch: tuple[float, float],
    linewidth: float = 0.8,
) -> None:
    """Frame the centre patch of grids whose first pixels, (row, column), are at ``origins``."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    row, column = centre_patch(grid_size)
    frames = [
        Rectangle((x + column * patch[1] - 0.5, y + row * patch[0] - 0.5), patch[1], patch[0])
        for y, x in origins
    ]
    axes.add_collection(
        PatchCollection(frames, facecolor="none", edgecolor=REFERENCE_COLOUR, linewidth=linewidth)
    )
