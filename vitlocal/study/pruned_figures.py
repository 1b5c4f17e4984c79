"""Figures of runs that were pruned."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from vitlocal.study.pruned import STATISTICS
from vitlocal.study.style import INK, Drawn, Style, legend, panels

TITLES = {"acc1_pruned_": "one-shot, without training", "acc1_gradual_": "gradually, trained after each step"}


def draw(table: pd.DataFrame, look: Mapping[str, Style]) -> list[Drawn]:
    """The figures of pruned runs; none where no run was pruned.

    Args:
        table: rows of ``runs.csv`` of one data set.
        look: the style of each condition.
    """
    drawn = []
    if kept := {
        title: of for start, title in TITLES.items() if (of := _by_speedup(table, start)) is not None
    }:
        drawn.append(
            Drawn(
                "pruned_accuracy",
                "Accuracy of pruned networks",
                "Against how many times as fast as the dense network was wanted, which is at 1. Lines join "
                "the means over seeds, bands reach from the lowest seed to the highest.",
                "How fast they are elsewhere than where they were measured. Measured times are in each run's "
                "prune.md.",
                _accuracy(kept, table["condition"], look),
            )
        )
    orders = table[[f"prune_order_{name}" for name in STATISTICS if f"prune_order_{name}" in table]]
    if orders.notna().any(axis=None):
        drawn.append(
            Drawn(
                "pruned_order",
                "Which heads go first",
                "Spearman's correlation of the order in which a layer's heads go with what they look at, "
                "mean over layers; each marker is a run. Above 0, heads of small values go first: by MAD, "
                "those that look near.",
                "Whether heads go because of what they look at. Of few layers with few heads, a correlation "
                "may be chance.",
                _order(orders, table["condition"], look),
            )
        )
    return drawn


def _by_speedup(table: pd.DataFrame, start: str) -> pd.DataFrame | None:
    """Accuracies of the columns that begin so, by speedup, with those of the dense networks."""
    names = {float(str(name).removeprefix(start)): name for name in table if str(name).startswith(start)}
    if not any(speedup > 1 for speedup in names):
        return None
    if "acc1_pruned_1" in table:
        names[1.0] = "acc1_pruned_1"
    return table[[names[speedup] for speedup in sorted(names)]].set_axis(sorted(names), axis=1)


def _accuracy(kept: Mapping[str, pd.DataFrame], conditions: pd.Series, look: Mapping[str, Style]) -> Figure:
    figure = Figure(figsize=(max(5.0, 4.5 * len(kept)), 3.8), layout="constrained")
    all_axes = panels(figure, len(kept))
    for axes, (title, accuracies) in zip(all_axes, kept.items(), strict=True):
        for condition, style in look.items():
            of = accuracies[conditions == condition].dropna(axis=1, how="all")
            axes.fill_between(of.columns, of.min(), of.max(), color=style.colour, alpha=0.16, linewidth=0)
            axes.plot(of.columns, of.mean(), **style.line())
        axes.set(xlabel="speedup wanted", title=title)
    all_axes[0].set_ylabel("validation accuracy")
    legend(figure, dict(look))
    return figure


def _order(orders: pd.DataFrame, conditions: pd.Series, look: Mapping[str, Style]) -> Figure:
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(0, color=INK, alpha=0.4, linewidth=1)
    for index, (condition, style) in enumerate(look.items()):
        aside = 0.6 * ((index + 0.5) / len(look) - 0.5)
        for place, name in enumerate(orders):
            values = orders[name][conditions == condition]
            axes.plot([place + aside] * len(values), values, **style.dots())
    names = [STATISTICS[str(name).removeprefix("prune_order_")] for name in orders]
    axes.set(xticks=range(len(names)), ylim=(-1.05, 1.05), ylabel="rank correlation with the order")
    axes.set_xticklabels(names)
    axes.tick_params(axis="x", length=0)
    legend(figure, dict(look))
    return figure
