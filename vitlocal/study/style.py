"""How a study's figures look: one style for all.

A condition has a colour, a marker and, for CutMix, a filled marker and a solid line; so it can be told
without seeing colours. Text and axes are drawn in ``INK``, which a page may put its own colour for.
"""

import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vitlocal.heads.figures import REFERENCE_COLOUR

# Okabe and Ito's palette without the reference's vermilion, black and yellow, which a dark or a light page
# swallows; brown, violet and khaki in their place.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#8C5A2B", "#7A3DFF", "#AAAA55")
MARKERS = "os^DvPXph"
INK = "#121314"


@dataclass(frozen=True)
class Style:
    """How a condition is drawn."""

    colour: str
    marker: str
    filled: bool

    def line(self) -> dict[str, Any]:
        """Of a line with markers."""
        return self.dots() | {"linestyle": "-" if self.filled else (0, (4, 2)), "linewidth": 1.6}

    def dots(self) -> dict[str, Any]:
        """Of markers alone."""
        face = self.colour if self.filled else "none"
        return {
            "color": self.colour,
            "marker": self.marker,
            "linestyle": "none",
            "markersize": 4.5,
            "markerfacecolor": face,
            "markeredgewidth": 0.9,
        }


@dataclass(frozen=True)
class Drawn:
    """A figure with its words.

    Attributes:
        name: of its files.
        title: what it is.
        shows: what can be read from it.
        limits: what can't.
        figure: the drawing.
    """

    name: str
    title: str
    shows: str
    limits: str
    figure: Figure

    def png(self) -> bytes:
        """As a PNG file on white."""
        return self._saved("png", dpi=150, facecolor="white")

    def svg(self, transparent: bool = False) -> bytes:
        """As an SVG file, always the same one from the same numbers; text stays text."""
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        return self._saved("svg", metadata=metadata, transparent=transparent)

    def _saved(self, kind: str, **options: Any) -> bytes:
        file = BytesIO()
        with drawn_in_style(self.name):
            self.figure.savefig(file, format=kind, **options)
        return file.getvalue()


def styles(table: pd.DataFrame) -> dict[str, Style]:
    """The style of every condition in ``runs.csv``, in the order they come."""
    cutmix = table.groupby("condition", sort=False)["cutmix"].any()
    return {
        str(condition): Style(COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)], bool(filled))
        for index, (condition, filled) in enumerate(cutmix.items())
    }


@contextmanager
def drawn_in_style(salt: str) -> Iterator[None]:
    """Within the block, figures are drawn and saved in this style; the salt makes their ids."""
    ink = (
        "text.color",
        "axes.edgecolor",
        "axes.labelcolor",
        "xtick.color",
        "ytick.color",
        "legend.labelcolor",
    )
    settings: Any = dict.fromkeys(ink, INK) | {
        "svg.hashsalt": salt,
        "svg.fonttype": "none",
        "text.parse_math": False,  # a name with dollar signs is no formula
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "legend.frameon": False,
    }
    with matplotlib.rc_context(settings):
        yield


References = list[tuple[float, str]]
"""Values of uniform attention, each with the colour of its line."""


def references(values: Mapping[str, float], look: Mapping[str, Style]) -> References:
    """One of all conditions where theirs are the same, else each one's in its own colour.

    Args:
        values: of each condition; NaN where it is not known.
        look: the style of each condition.
    """
    known = {condition: value for condition, value in values.items() if not np.isnan(value)}
    if known and np.allclose(list(known.values()), next(iter(known.values()))):
        return [(next(iter(known.values())), REFERENCE_COLOUR)]
    return [(value, look[condition].colour) for condition, value in known.items() if condition in look]


def legend(figure: Figure, look: dict[str, Style], uniform: References | None = None) -> None:
    """Below the axes, in as many columns as long names leave room for."""
    handles = [Line2D([], [], label=name, **style.line()) for name, style in look.items()]
    if uniform:
        label = "uniform attention" + (", in each one's colour" if len(uniform) > 1 else "")
        colour = INK if len(uniform) > 1 else uniform[0][1]
        handles.append(Line2D([], [], color=colour, linestyle=":", linewidth=1.6, label=label))
    widest = max(len(str(handle.get_label())) for handle in handles) + 7
    columns = max(1, min(5, int(14 * figure.get_figwidth() / widest)))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize="small")
    # Room for its rows, so that the axes keep their size.
    figure.set_figheight(figure.get_figheight() + 0.2 * -(-len(handles) // columns))


def reference_lines(axes: Axes, uniform: References) -> None:
    """Draw the values of uniform attention that are known."""
    for value, colour in uniform:
        axes.axhline(value, color=colour, linestyle=":", linewidth=1.6, zorder=1)


def panels(figure: Figure, count: int) -> list[Axes]:
    """So many axes in a row."""
    return list(figure.subplots(1, count, squeeze=False).flat)


def wrapped(text: str, width: int = 22) -> str:
    """In lines of about ``width``, cut short after the second."""
    lines = textwrap.wrap(text, width)
    return "\n".join(lines if len(lines) < 3 else [lines[0], f"{lines[1]} ..."])
