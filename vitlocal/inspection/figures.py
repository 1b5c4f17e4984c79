"""Figures of an inspection beside those of :mod:`vitlocal.heads.figures`, in the same style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from vitlocal.heads.figures import COLOUR_MAP, REFERENCE_COLOUR, AttentionMaps, attention_figure
from vitlocal.heads.summary import LayerStatistics
from vitlocal.observing.hooks import Place

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Seen:
    """What a network sees in one image.

    Attributes:
        name: the image's.
        image: uint8 (C, H, W).
        maps: of each chosen layer, (heads, rows, columns): the query's attention to each patch.
        rollout: (rows, columns), how much of each patch reaches the class token or, without one, the mean of
            all patches.
    """

    name: str
    image: Tensor
    maps: list[Tensor]
    rollout: Tensor


def maps_figure(seen: Seen, places: Sequence[Place], of_class: bool) -> Figure:
    """Attention of the centre patch, or of the class token, in chosen layers and heads.

    Args:
        seen: of which the maps are drawn.
        places: what their layers and heads are called.
        of_class: the query is the class token, so no patch is framed.
    """
    figure = attention_figure(AttentionMaps(seen.image, seen.maps), places)
    image, maps, bar = figure.axes
    _title(image, seen.name, 26)
    if of_class:
        for frames in (*image.collections, *maps.collections):
            frames.remove()
        bar.set_ylabel("attention of the class token\n(white line: uniform)")
    return figure


def rollout_figure(seen: Seen, of_class: bool) -> Figure:
    """An image, and beside it its attention rollout.

    Colours begin at 0 and reach to twice an even share at least, so that shares that are almost even look so.

    Args:
        seen: of which the rollout is drawn.
        of_class: the rollout is the class token's, else the mean over all patches.
    """
    from matplotlib.figure import Figure

    pixels = seen.image.permute(1, 2, 0).numpy()
    high, wide = pixels.shape[:2]
    share = (seen.rollout / seen.rollout.mean()).numpy()
    figure = Figure(figsize=(6.8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.imshow(pixels if pixels.shape[2] == 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=255)
    _title(left, seen.name, 34)
    # Not over the image, whose own light and dark would look like shares.
    extent = (-0.5, wide - 0.5, high - 0.5, -0.5)
    drawn = right.imshow(share, cmap=COLOUR_MAP, vmin=0, vmax=max(2.0, share.max()), extent=extent)
    _title(right, f"rollout to the {'class token' if of_class else 'mean of the patches'}", 34)
    for axes in (left, right):
        axes.set(xticks=[], yticks=[])
    bar = figure.colorbar(drawn, ax=right, label="share of a patch\n(white line: an even one)", shrink=0.9)
    bar.ax.axhline(1, color="white", linewidth=2)
    return figure


def _title(axes: Axes, text: str, width: int) -> None:
    """Of a long name the end; whatever a file may be called, it is drawn as it is."""
    text = text.encode("utf-8", "replace").decode()
    axes.set_title(
        text if len(text) <= width else f"…{text[1 - width :]}", fontsize="small", parse_math=False
    )


def entropy_mad_figure(
    layers: Sequence[LayerStatistics], places: Sequence[Place], label: str, uniform: dict[str, float]
) -> Figure:
    """One dot a head: its entropy against its MAD, coloured by the depth of its layer.

    Args:
        layers: statistics of each layer.
        places: what the layers are called.
        label: what MAD is, with its unit.
        uniform: MAD and entropy of uniform attention.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot()
    depths = [place.layer for place in places for _ in place.rows]
    mad, entropy = ([value for layer in layers for value in layer[name]] for name in ("mad", "entropy"))
    drawn = axes.scatter(
        mad, entropy, c=depths, cmap=COLOUR_MAP, s=24, alpha=0.8, vmin=0, vmax=max(1, depths[-1])
    )
    axes.plot(
        uniform["mad"],
        uniform["entropy"],
        "x",
        color=REFERENCE_COLOUR,
        markersize=9,
        markeredgewidth=2.5,
        zorder=5,
        label="uniform attention",
    )
    axes.set(xlabel=label, ylabel="normalised entropy", ylim=(0, 1.05))
    axes.set_xlim(0, 1.05 * max(uniform["mad"], *mad) or 1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right", fontsize="small")
    figure.colorbar(drawn, ax=axes, label="layer", ticks=MaxNLocator(integer=True))
    return figure
