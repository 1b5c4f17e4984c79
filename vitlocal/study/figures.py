"""Figures of a study, one set a data set."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vitlocal.heads.figures import COLOUR_MAP
from vitlocal.study import pruned_figures
from vitlocal.study.results import LOG_ODDS, early, last_epoch
from vitlocal.study.sequences import are_sequences
from vitlocal.study.statistics import MEASURES, OPTIONAL_MEASURES, effects
from vitlocal.study.style import (
    COLOURS,
    INK,
    Drawn,
    References,
    Style,
    drawn_in_style,
    legend,
    panels,
    reference_lines,
    references,
    styles,
    wrapped,
)

EFFECTS = ("mad_min", "mad_min_early", "entropy_mean_early", "acc1")
AGAINST_MAD = ("inf_norm_max", "kurtosis_mean", "outlier_count", "do_nothing_mean", "update_mean")
LOST = {"acc1_w8a8": "accuracy lost in simulated W8A8", "acc1_int8": "accuracy lost in int8"}


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
    uniform, likely = _uniform(table, "uniform_mad", every), references(dict.fromkeys(look, 1.0), look)
    token = "token" if are_sequences(table) else "patch"
    ends = last_epoch(heads[heads["run"].isin(counted["run"])])
    mad = "MAD" if unit == "grid" else f"MAD ({unit})"
    with drawn_in_style("study"):
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
                f"The same for normalised entropy: 0 looks at one {token}, 1, the dotted line, at all alike.",
                f"Whether a concentrated head is a local one: it may always look at one far {token}.",
                _by_depth(ends, look, "entropy", "normalised entropy", likely),
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
        if are_sequences(table):
            drawn.insert(
                0,
                Drawn(
                    "heads_by_epoch",
                    "Accuracy and heads in training",
                    "Validation accuracy, the mean MAD of all heads, and of the head that has most of it the "
                    "weight on the first token and on the one before; means over seeds. Dotted lines are "
                    "uniform attention to the past, bands reach from the lowest seed to the highest, and "
                    "epoch 0 is the untrained network.",
                    "Which head has most weight somewhere, perhaps another one at each epoch; and whether "
                    "accuracy rises because of what heads do when it does.",
                    _heads_by_epoch(heads, table, every, mad),
                ),
            )
        elif set(LOG_ODDS) <= {*heads}:
            drawn.insert(
                3,
                Drawn(
                    "log_odds_by_epoch",
                    "Log-odds of self mass and of class mass in training",
                    "In nats, the largest of any head, mean over seeds; 0 is uniform attention. MAD hardly "
                    "moves below 3; a head with a MAD of 0.008 has 7 to 8. Bands reach from the lowest seed "
                    "to the highest; epoch 0 is the network before training.",
                    "Which head it is, perhaps another one at each epoch. Bands are ranges, not intervals.",
                    _log_odds_by_epoch(heads, every),
                ),
            )
        if measured := _against_mad(counted):
            drawn.append(
                Drawn(
                    "outliers_by_mad",
                    "Outliers and int8 against MAD",
                    "Each marker is a run: a measure of outliers or of heads that do nothing at its last "
                    "epoch, or the accuracy that its best checkpoint loses in 8 bits, against the mean MAD "
                    "of the early third of its layers at the last epoch.",
                    "Whether one brings about the other. And with few runs, a slope may be chance.",
                    _outliers_by_mad(counted, look, measured, mad),
                )
            )
        drawn += pruned_figures.draw(counted, look)
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


def _uniform(table: pd.DataFrame, name: str, look: dict[str, Style]) -> References:
    """The values of uniform attention; of conditions whose runs have different ones, none."""
    values = table.groupby("condition", sort=False)[name].agg(["mean", "min", "max"])
    values = values[np.isclose(values["min"], values["max"])]
    return references({str(condition): mean for condition, mean in values["mean"].items()}, look)


def _top(uniform: References, values: pd.Series) -> float:
    """Where an axis from 0 ends."""
    return 1.05 * max([values.max(), *(value for value, _ in uniform)]) or 1


def _by_depth(
    ends: pd.DataFrame, look: dict[str, Style], name: str, label: str, uniform: References
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
    reference_lines(axes, uniform)
    axes.set(xlabel="layer", ylabel=label, xticks=range(depth), xlim=(-0.5, depth - 0.5))
    axes.set_ylim(0, _top(uniform, ends[name]))
    axes.tick_params(axis="x", length=0)
    legend(figure, look, uniform)
    return figure


def _by_epoch(heads: pd.DataFrame, look: dict[str, Style], label: str, uniform: References) -> Figure:
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    parts = {"all heads": heads, "heads of the early third": early(heads)}
    for axes, (title, rows) in zip(panels(figure, 2), parts.items(), strict=True):
        least = rows.groupby(["condition", "run", "epoch"])["mad"].min().reset_index(name="value")
        _curves(axes, least, look)
        reference_lines(axes, uniform)
        axes.set_title(title)
        axes.set_ylim(0, _top(uniform, least["value"]))
    figure.axes[0].set_ylabel(label)
    legend(figure, look, uniform)
    return figure


def _heads_by_epoch(heads: pd.DataFrame, table: pd.DataFrame, look: dict[str, Style], label: str) -> Figure:
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    shown = {
        "validation accuracy": ("acc1", "mean", None),
        f"mean {label}": ("mad", "mean", "uniform_mad"),
        "weight on the first token, largest": ("first_mass", "max", "uniform_first_mass"),
        "weight on the token before, largest": ("previous_mass", "max", "uniform_previous_mass"),
    }
    every: list[tuple[float, str]] = []
    for axes, (title, (name, of_heads, reference)) in zip(panels(figure, 4), shown.items(), strict=True):
        values = heads.groupby(["condition", "run", "epoch"])[name].agg(of_heads).reset_index(name="value")
        _curves(axes, values.dropna(), look)
        uniform = _uniform(table, reference, look) if reference else []
        reference_lines(axes, uniform)
        axes.set_title(wrapped(title))
        axes.set_ylim(0, _top(uniform, values["value"]) if name == "mad" else 1.03)
        every = every or uniform
    legend(figure, look, every)
    return figure


def _log_odds_by_epoch(heads: pd.DataFrame, look: dict[str, Style]) -> Figure:
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    titles = ("own patch", "class token")
    uniform = references(dict.fromkeys(look, 0.0), look)
    for axes, title, name in zip(panels(figure, 2), titles, LOG_ODDS, strict=True):
        greatest = heads.groupby(["condition", "run", "epoch"])[name].max().reset_index(name="value")
        _curves(axes, greatest, look)
        reference_lines(axes, uniform)
        axes.set_title(title)
    figure.axes[0].set_ylabel("log-odds over uniform (nats)")
    legend(figure, look, uniform)
    return figure


def _curves(axes: Axes, of_runs: pd.DataFrame, look: dict[str, Style]) -> None:
    """Of each condition the mean over seeds by epoch, and the band of its seeds.

    Args:
        axes: where to draw.
        of_runs: condition, run, epoch and value.
        look: the style of each condition.
    """
    for index, (condition, style) in enumerate(look.items()):
        seeds = of_runs[of_runs["condition"] == condition].groupby("epoch")["value"]
        mean = seeds.mean()
        axes.fill_between(mean.index, seeds.min(), seeds.max(), color=style.colour, alpha=0.16, linewidth=0)
        # A marker now and then, not at the same epochs for all.
        every = max(1, len(mean) // 6)
        axes.plot(mean.index, mean, **style.line(), markevery=(index % every, every))
    axes.set_xlabel("epochs of training")
    axes.locator_params(axis="x", integer=True)


def _entropy_by_mad(ends: pd.DataFrame, look: dict[str, Style], label: str, uniform: References) -> Figure:
    figure = Figure(figsize=(6.6, 4.8), layout="constrained")
    axes = figure.add_subplot()
    for condition, style in look.items():
        rows = ends[ends["condition"] == condition]
        axes.plot(rows["mad"], rows["entropy"], **style.dots(), alpha=0.6)
    for value, colour in uniform:
        axes.axvline(value, color=colour, linestyle=":", linewidth=1.6, zorder=1)
        axes.plot([value], [1.0], "x", color=colour, markersize=9, markeredgewidth=2.5, zorder=5)
    if uniform:
        reference_lines(axes, references(dict.fromkeys(look, 1.0), look))
    axes.set(xlabel=label, ylabel="normalised entropy", ylim=(0, 1.05))
    axes.set_xlim(0, _top(uniform, ends["mad"]))
    legend(figure, look, uniform)
    return figure


def _against_mad(table: pd.DataFrame) -> dict[str, pd.Series]:
    """By title, what some run knows: outliers, heads that do nothing, and accuracy lost in 8 bits."""
    panels = {OPTIONAL_MEASURES[name]: table.get(name) for name in AGAINST_MAD}
    for name, words in LOST.items():
        if name in table and "acc1_fp32" in table:
            panels[words] = table["acc1_fp32"] - table[name]
    return {title: values for title, values in panels.items() if values is not None and values.notna().any()}


def _outliers_by_mad(
    table: pd.DataFrame, look: dict[str, Style], measured: Mapping[str, pd.Series], label: str
) -> Figure:
    """A panel a measure, with a marker a run."""
    columns = min(4, len(measured))
    rows = -(-len(measured) // columns)
    figure = Figure(figsize=(max(4.5, 2.4 * columns), 0.8 + 2.4 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, (title, values) in zip(grid.flat, measured.items(), strict=False):
        for condition, style in look.items():
            chosen = table["condition"] == condition
            axes.plot(table["mad_mean_early"][chosen], values[chosen], **style.dots())
        axes.set_title(wrapped(title))
        axes.locator_params(axis="x", nbins=4)
        axes.margins(0.1)
    for axes in grid.flat[len(measured) :]:
        axes.remove()
    figure.supxlabel(f"mean {label}, early third", fontsize=10)
    legend(figure, look)
    return figure


def _maps(ends: pd.DataFrame, conditions: Sequence[str], label: str, uniform: References) -> Figure:
    depth = int(ends["layer"].max()) + 1
    widest = int(ends.groupby(["condition", "run", "layer"]).size().max())
    columns = min(4, len(conditions))
    rows = -(-len(conditions) // columns)
    figure = Figure(figsize=(max(4.2, 1.1 + 2.2 * columns), 0.5 + 2.3 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    top = _top(uniform, ends["mad"])
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
        axes.set_title(wrapped(str(condition)), fontsize=8 if len(str(condition)) > 18 else 10)
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
    for value, colour in uniform:
        bar.ax.axhline(value, color=colour, linestyle=":", linewidth=2.5)
    return figure


def _effects(table: pd.DataFrame) -> Figure | None:
    """A panel a measure; None where the design has no effects to estimate."""
    results = {measure: effects(table, measure)[0] for measure in EFFECTS}
    results = {measure: result for measure, result in results.items() if len(result)}
    if not results:
        return None
    names = list(dict.fromkeys(name for result in results.values() for name in result["effect"]))
    figure = Figure(figsize=(10, 1.2 + 0.32 * len(names)), layout="constrained")
    axes_of = panels(figure, len(results))
    for axes, (measure, result) in zip(axes_of, results.items(), strict=True):
        places = [names.index(name) for name in result["effect"]]
        axes.axvline(0, color=INK, alpha=0.4, linewidth=1)
        ends = [result["estimate"] - result["low"], result["high"] - result["estimate"]]
        axes.errorbar(
            result["estimate"], places, xerr=ends, fmt="o", color=COLOURS[0], markersize=3.5, capsize=4
        )
        axes.set(title=wrapped(MEASURES[measure]), yticks=range(len(names)), ylim=(len(names) - 0.5, -0.5))
        axes.set_yticklabels(name.replace("_", " ") for name in names)
        axes.locator_params(axis="x", nbins=4)
        axes.tick_params(axis="y", length=0)
        axes.margins(x=0.15)
        axes.spines["left"].set_visible(False)
    for axes in axes_of[1:]:
        axes.tick_params(labelleft=False)
    return figure
