"""Figures of a study, one set a data set, in one style.

A condition has a colour, a marker and, for CutMix, a filled marker and a solid line; so it can be told
without seeing colours. Text and axes are drawn in ``INK``, which a page may put its own colour for.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
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

from vitlocal.heads.figures import COLOUR_MAP, REFERENCE_COLOUR
from vitlocal.study.results import early, last_epoch
from vitlocal.study.statistics import MEASURES, OPTIONAL_MEASURES, effects

# Okabe and Ito's palette without the reference's vermilion, black and yellow, which a dark or a light page
# swallows; brown, violet and khaki in their place.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#8C5A2B", "#7A3DFF", "#AAAA55")
MARKERS = "os^DvPXph"
INK = "#121314"
EFFECTS = ("mad_min", "mad_min_early", "entropy_mean_early", "acc1")
AGAINST_MAD = ("inf_norm_max", "kurtosis_mean", "outlier_count", "do_nothing_mean", "update_mean")
LOST = {"acc1_w8a8": "accuracy lost in simulated W8A8", "acc1_int8": "accuracy lost in int8"}


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
        with _style(self.name):
            self.figure.savefig(file, format=kind, **options)
        return file.getvalue()


def styles(table: pd.DataFrame) -> dict[str, Style]:
    """The style of every condition in ``runs.csv``, in the order they come."""
    cutmix = table.groupby("condition", sort=False)["cutmix"].any()
    return {
        str(condition): Style(COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)], bool(filled))
        for index, (condition, filled) in enumerate(cutmix.items())
    }


def draw(table: pd.DataFrame, counted: pd.DataFrame, heads: pd.DataFrame, unit: str) -> list[Drawn]:
    """All figures of one data set.

    Args:
        table: its rows of ``runs.csv``, for the curves.
        counted: those of them that the other figures are of.
        heads: its rows of ``heads.csv``.
        unit: of distances.
    """
    every = styles(table)
    look = {name: style for name, style in every.items() if name in set(counted["condition"])}
    known = table["uniform_mad"].dropna().unique()
    # Runs on different grids have different references: then there is none to draw.
    uniform = float(known[0]) if len(known) and np.allclose(known, known[0]) else None
    ends = last_epoch(heads[heads["run"].isin(counted["run"])])
    mad = "MAD" if unit == "grid" else f"MAD ({unit})"
    with _style("study"):
        drawn = [
            Drawn(
                "mad_by_depth",
                "MAD of every head by depth",
                "Each marker is a head of a run at its last epoch; lines join the means of the layers, over "
                "heads and seeds. Below the dotted line a head looks nearer than uniform attention does.",
                "Whether a head that looks near looks at itself or at its neighbours: see self mass.",
                _by_depth(ends, look, "mad", mad, uniform),
            ),
            Drawn(
                "entropy_by_depth",
                "Entropy of every head by depth",
                "The same for normalised entropy: 0 looks at one patch, 1, the dotted line, at all alike.",
                "Whether a concentrated head is a local one: it may always look at one far patch.",
                _by_depth(ends, look, "entropy", "normalised entropy", 1.0),
            ),
            Drawn(
                "mad_min_by_epoch",
                "Minimum MAD in training",
                "The smallest MAD of any head, mean over seeds, over all layers and over the early third. "
                "Bands reach from the lowest seed to the highest; epoch 0 is the untrained network.",
                "Which head it is, perhaps another one at each epoch. Bands are ranges, not intervals. "
                "Where only some seeds got that far, the mean is of those.",
                _by_epoch(heads, every, mad, uniform),
            ),
            Drawn(
                "entropy_by_mad",
                "Entropy against MAD",
                "Each marker is a head at the last epoch; the cross is uniform attention. Low and left is "
                "local and concentrated; high entropy at low MAD can't be.",
                "How deep a head is. Heads of one run are not independent of each other.",
                _entropy_by_mad(ends, look, mad, uniform),
            ),
            Drawn(
                "heads_by_layer",
                "Heads by layers",
                "MAD at the last epoch. In each layer heads are sorted, the most local one on the left, and "
                "of each place the mean over seeds is shown. The line in the colour bar: uniform attention.",
                "Which head is which: a head's number means nothing in another run. And the mean of "
                "sorted values hides how much seeds differ.",
                _maps(ends, list(look), mad, uniform),
            ),
        ]
        if panels := _against_mad(counted):
            drawn.append(
                Drawn(
                    "outliers_by_mad",
                    "Outliers and int8 against MAD",
                    "Each marker is a run: a measure of outliers or of heads that do nothing at its last "
                    "epoch, or the accuracy that its best checkpoint loses in 8 bits, against the mean MAD "
                    "of the early third of its layers at the last epoch.",
                    "Whether one brings about the other. And with few runs, a slope may be chance.",
                    _outliers_by_mad(counted, look, panels, mad),
                )
            )
        figure = _effects(counted)
    if figure is not None:
        shows = (
            "Estimated effects: for a component, the mean with it minus the mean without; for a pair (x), "
            "the effect of one with the other minus its effect without. Lines are 95 % intervals."
        )
        limits = (
            "That there is no effect, where an interval covers zero. Least squares takes one variance for "
            "all conditions, and nothing is corrected for the number of effects. Without a line, there was "
            "one seed a condition."
        )
        drawn.insert(3, Drawn("effects", "Effects of the components", shows, limits, figure))
    return drawn


@contextmanager
def _style(salt: str) -> Iterator[None]:
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


def _legend(figure: Figure, look: dict[str, Style], reference: str | None = "uniform attention") -> None:
    """Below the axes, in as many columns as long names leave room for."""
    handles = [Line2D([], [], label=name, **style.line()) for name, style in look.items()]
    if reference:
        handles.append(Line2D([], [], color=REFERENCE_COLOUR, linestyle=":", linewidth=1.6, label=reference))
    widest = max(len(str(handle.get_label())) for handle in handles) + 7
    columns = max(1, min(5, int(14 * figure.get_figwidth() / widest)))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize="small")
    # Room for its rows, so that the axes keep their size.
    figure.set_figheight(figure.get_figheight() + 0.2 * -(-len(handles) // columns))


def _reference(axes: Axes, value: float | None) -> None:
    if value is not None:
        axes.axhline(value, color=REFERENCE_COLOUR, linestyle=":", linewidth=1.6, zorder=1)


def _by_depth(
    ends: pd.DataFrame, look: dict[str, Style], name: str, label: str, uniform: float | None
) -> Figure:
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.add_subplot()
    depth = int(ends["layer"].max()) + 1
    for index, (condition, style) in enumerate(look.items()):
        rows = ends[ends["condition"] == condition]
        aside = 0.76 * ((index + 0.5) / len(look) - 0.5)  # beside each other, within the layer's place
        axes.plot(rows["layer"] + aside, rows[name], **style.dots(), alpha=0.55)
        means = rows.groupby("layer")[name].mean()
        axes.plot(means.index + aside, means, **style.line() | {"marker": "none"})
    for edge in range(1, depth):
        axes.axvline(edge - 0.5, color=INK, alpha=0.12, linewidth=0.8, zorder=0)
    _reference(axes, uniform)
    axes.set(xlabel="layer", ylabel=label, xticks=range(depth), xlim=(-0.5, depth - 0.5))
    axes.set_ylim(0, 1.05 * max(uniform or 0, ends[name].max()) or 1)
    axes.tick_params(axis="x", length=0)
    _legend(figure, look, "uniform attention" if uniform is not None else None)
    return figure


def _by_epoch(heads: pd.DataFrame, look: dict[str, Style], label: str, uniform: float | None) -> Figure:
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    parts = {"all heads": heads, "heads of the early third": early(heads)}
    for axes, (title, rows) in zip(_row(figure, 2), parts.items(), strict=True):
        least = rows.groupby(["condition", "run", "epoch"])["mad"].min().reset_index()
        for index, (condition, style) in enumerate(look.items()):
            seeds = least[least["condition"] == condition].groupby("epoch")["mad"]
            mean = seeds.mean()
            axes.fill_between(
                mean.index, seeds.min(), seeds.max(), color=style.colour, alpha=0.16, linewidth=0
            )
            # A marker now and then, not at the same epochs for all.
            every = max(1, len(mean) // 6)
            axes.plot(mean.index, mean, **style.line(), markevery=(index % every, every))
        _reference(axes, uniform)
        axes.set(title=title, xlabel="epochs of training")
        axes.locator_params(axis="x", integer=True)
        axes.set_ylim(0, 1.05 * max(uniform or 0, least["mad"].max()) or 1)
    figure.axes[0].set_ylabel(label)
    _legend(figure, look, "uniform attention" if uniform is not None else None)
    return figure


def _entropy_by_mad(ends: pd.DataFrame, look: dict[str, Style], label: str, uniform: float | None) -> Figure:
    figure = Figure(figsize=(6.6, 4.8), layout="constrained")
    axes = figure.add_subplot()
    for condition, style in look.items():
        rows = ends[ends["condition"] == condition]
        axes.plot(rows["mad"], rows["entropy"], **style.dots(), alpha=0.6)
    if uniform is not None:
        _reference(axes, 1.0)
        axes.axvline(uniform, color=REFERENCE_COLOUR, linestyle=":", linewidth=1.6, zorder=1)
        axes.plot([uniform], [1.0], "x", color=REFERENCE_COLOUR, markersize=9, markeredgewidth=2.5, zorder=5)
    axes.set(xlabel=label, ylabel="normalised entropy", ylim=(0, 1.05))
    axes.set_xlim(0, 1.05 * max(uniform or 0, ends["mad"].max()) or 1)
    _legend(figure, look, "uniform attention" if uniform is not None else None)
    return figure


def _against_mad(table: pd.DataFrame) -> dict[str, pd.Series]:
    """By title, what some run knows: outliers, heads that do nothing, and accuracy lost in 8 bits."""
    panels = {OPTIONAL_MEASURES[name]: table.get(name) for name in AGAINST_MAD}
    for name, words in LOST.items():
        if name in table and "acc1_fp32" in table:
            panels[words] = table["acc1_fp32"] - table[name]
    return {title: values for title, values in panels.items() if values is not None and values.notna().any()}


def _outliers_by_mad(
    table: pd.DataFrame, look: dict[str, Style], panels: Mapping[str, pd.Series], label: str
) -> Figure:
    """A panel a measure, with a marker a run."""
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(max(4.5, 2.4 * columns), 0.8 + 2.4 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, (title, values) in zip(grid.flat, panels.items(), strict=False):
        for condition, style in look.items():
            chosen = table["condition"] == condition
            axes.plot(table["mad_mean_early"][chosen], values[chosen], **style.dots())
        axes.set_title(_wrapped(title))
        axes.locator_params(axis="x", nbins=4)
        axes.margins(0.1)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    figure.supxlabel(f"mean {label}, early third", fontsize=10)
    _legend(figure, look, None)
    return figure


def _maps(ends: pd.DataFrame, conditions: Sequence[str], label: str, uniform: float | None) -> Figure:
    depth, widest = int(ends["layer"].max()) + 1, int(ends["head"].max()) + 1
    columns = min(4, len(conditions))
    rows = -(-len(conditions) // columns)
    figure = Figure(figsize=(max(4.2, 1.1 + 2.2 * columns), 0.5 + 2.3 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    top = 1.05 * max(uniform or 0, ends["mad"].max()) or 1
    image: Any = None
    for axes, condition in zip(grid.flat, conditions, strict=False):
        of_condition = ends[ends["condition"] == condition].sort_values("mad")
        place = of_condition.groupby(["run", "layer"]).cumcount()
        mean = of_condition.groupby(["layer", place])["mad"].mean().unstack()
        image = axes.imshow(
            mean.reindex(range(depth)).reindex(columns=range(widest)),
            cmap=COLOUR_MAP,
            vmin=0,
            vmax=top,
            aspect="auto",
        )
        # A long name in two lines, so that it stays above its own map.
        axes.set_title(_wrapped(str(condition)), fontsize=8 if len(str(condition)) > 18 else 10)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.set(xticks=range(0, widest, max(1, widest // 4)), yticks=range(0, depth, max(1, depth // 5)))
    for axes in grid.flat[len(conditions) :]:
        axes.set_visible(False)
    figure.supxlabel("heads of the layer, sorted by MAD", fontsize=10)
    figure.supylabel("layer", fontsize=10)
    bar = figure.colorbar(image, ax=list(grid.flat), shrink=0.9)
    bar.set_label(label)
    bar.outline.set_visible(False)
    if uniform is not None:
        bar.ax.axhline(uniform, color=REFERENCE_COLOUR, linestyle=":", linewidth=2.5)
    return figure


def _effects(table: pd.DataFrame) -> Figure | None:
    """A panel a measure; None where the design has no effects to estimate."""
    results = {measure: effects(table, measure)[0] for measure in EFFECTS}
    results = {measure: result for measure, result in results.items() if len(result)}
    if not results:
        return None
    names = list(dict.fromkeys(name for result in results.values() for name in result["effect"]))
    figure = Figure(figsize=(10, 1.2 + 0.32 * len(names)), layout="constrained")
    panels = _row(figure, len(results))
    for axes, (measure, result) in zip(panels, results.items(), strict=True):
        places = [names.index(name) for name in result["effect"]]
        axes.axvline(0, color=INK, alpha=0.4, linewidth=1)
        ends = [result["estimate"] - result["low"], result["high"] - result["estimate"]]
        axes.errorbar(
            result["estimate"], places, xerr=ends, fmt="o", color=COLOURS[0], markersize=3.5, capsize=4
        )
        axes.set(title=_wrapped(MEASURES[measure]), yticks=range(len(names)), ylim=(len(names) - 0.5, -0.5))
        axes.set_yticklabels(name.replace("_", " ") for name in names)
        axes.locator_params(axis="x", nbins=4)
        axes.tick_params(axis="y", length=0)
        axes.margins(x=0.15)
        axes.spines["left"].set_visible(False)
    for axes in panels[1:]:
        axes.tick_params(labelleft=False)
    return figure


def _row(figure: Figure, count: int) -> list[Axes]:
    return list(figure.subplots(1, count, squeeze=False).flat)


def _wrapped(text: str, width: int = 22) -> str:
    """In lines of about ``width``, cut short after the second."""
    lines = textwrap.wrap(text, width)
    return "\n".join(lines if len(lines) < 3 else [lines[0], f"{lines[1]} ..."])
