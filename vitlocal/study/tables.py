"""The tables of a study, as they are shown: summary.md and the page are made of the same ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vitlocal.study import pairs, sequences, statistics
from vitlocal.study.figures import EFFECTS
from vitlocal.study.results import THRESHOLDS, Run
from vitlocal.study.sequences import are_sequences
from vitlocal.study.statistics import MEASURES

NOTHING = "\N{EN DASH}"
MEASURES_SHOWN = (
    "Mean ± standard deviation over seeds [95 % t interval of the mean, of shares that of their logits]."
)
OF_PATCHES = "Raw MAD is not renormalised over patches: weight on the class token shrinks it."
OF_SEQUENCES = (
    "An answer is right as the task has it. The last columns are shares of all heads, by where most of their "
    "weight is; broad: nowhere."
)
OF_OUTLIERS = ("inf_norm_max", "kurtosis_mean", "outlier_count", "do_nothing_mean", "update_mean")

OUTLIERS_SHOWN = (
    "Infinity norm, kurtosis and outliers are of the blocks' outputs; a head's update is relative to the "
    "norm of the tokens that it is added to."
)


@dataclass(frozen=True)
class Table:
    """A table of text: every cell as it is shown."""

    title: str
    note: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Report:
    """What is said of one data set: its conclusions and its tables."""

    data: str
    notes: list[str]
    gaps: list[statistics.Gap]
    tables: list[Table]


def report(
    table: pd.DataFrame,
    counted: pd.DataFrame,
    heads: pd.DataFrame,
    compared: Sequence[tuple[str, str, str]],
) -> Report:
    """Conclusions and tables of one data set.

    Args:
        table: its rows of ``runs.csv``.
        counted: those of them that statistics are of.
        heads: its rows of ``heads.csv``.
        compared: pairs of conditions, see :func:`vitlocal.study.pairs.pairs`.
    """
    notes = []
    left_out = table[~table["run"].isin(counted["run"])]
    if len(left_out):
        pairs = zip(left_out["condition"], left_out["seed"], strict=True)
        names = ", ".join(f"{condition} (seed {_seed(seed)})" for condition, seed in pairs)
        notes.append(f"Not finished, so shown in the curves and the table of runs only: {names}.")
    elif not counted["finished"].all():
        notes.append("No run has all of its epochs yet: all numbers are of the last epoch that each has.")
    if counted.groupby("condition").size().min() < 2:
        notes.append("A condition has a single run: it has no interval, and a difference may be chance.")
    gaps = [found for name in statistics.GAPS if (found := statistics.gap(counted, name))]
    if sentence := _kinds(counted):
        notes.append(sentence)
    of_components = _effects(counted)
    if not of_components.rows and not are_sequences(counted):
        notes.append(of_components.note)
    tables = [
        _conditions(counted),
        _differences(counted, compared),
        of_components,
        _below(counted),
        _layers(heads[heads["run"].isin(counted["run"])]),
        _runs(table),
    ]
    return Report(str(table["data"].iloc[0]), notes, gaps, [each for each in tables if each.rows])


def commands(loaded: Sequence[Run]) -> Table:
    """The command of every run."""
    rows = [[run.data, run.condition, _seed(run.seed), run.command] for run in loaded]
    return Table("Commands", "What made each run.", ["data", "condition", "seed", "command"], rows)


def verdict(found: statistics.Gap) -> str:
    """The gap test in words."""
    reason = f"{found.reason[0].upper()}{found.reason[1:]}"
    return f"Gap in {statistics.GAPS[found.measure]}: {found.verdict}. {reason}"


def markdown(title: str, reports: Sequence[Report], last: Table) -> str:
    """All of it as a Markdown page."""
    lines = [f"# {_escaped(title)}", ""]
    for each in reports:
        lines += [f"## {_escaped(each.data)}", ""]
        for sentence in [*each.notes, *map(verdict, each.gaps)]:
            lines += [_escaped(sentence), ""]
        for table in each.tables:
            lines += _markdown_table(table, "###")
    return "\n".join([*lines, *_markdown_table(last, "##")])


def number(value: float, digits: int = 3) -> str:
    """In fixed digits; a dash for what is not known."""
    return NOTHING if math.isnan(value) else f"{value:.{digits}f}"


def _summary(row: Any) -> str:
    if math.isnan(row["sd"]):
        return number(row["mean"])
    return f"{number(row['mean'])} ± {number(row['sd'])} [{number(row['low'])}, {number(row['high'])}]"


def _conditions(counted: pd.DataFrame) -> Table:
    rows, shown = [], statistics.measures(counted)
    for condition, group in statistics.conditions_table(counted).groupby("condition", sort=False):
        by_name = group.set_index("measure")
        seeds = str(int(by_name["count"].max()))
        rows.append([str(condition), seeds, *(_summary(by_name.loc[name]) for name in shown)])
    note = f"{MEASURES_SHOWN} {OF_SEQUENCES if are_sequences(counted) else OF_PATCHES}"
    note += f" {OUTLIERS_SHOWN}" if {*OF_OUTLIERS} & {*shown} else ""
    return Table("Conditions", note, ["condition", "seeds", *shown.values()], rows)


def _kinds(counted: pd.DataFrame) -> str:
    """Which kind of head the minimum is, in one sentence."""
    parts = []
    for kind, group in counted.groupby("kind_of_min", sort=False):
        of = ", ".join(
            f"{condition} ({len(seeds)})" if len(seeds) > 1 else str(condition)
            for condition, seeds in group.groupby("condition", sort=False)
        )
        parts.append(f"{kind} in {len(group)} of {len(counted)} runs: {of}")
    return f"The head with the smallest MAD is {'; '.join(parts)}." if parts else ""


def _differences(counted: pd.DataFrame, compared: Sequence[tuple[str, str, str]]) -> Table:
    found = pairs.differences(counted, compared)
    shown = [name for name in pairs.PAIRED if name in set(found["measure"])]
    rows = []
    for (first, second, differ), group in found.groupby(["first", "second", "differ"], sort=False):
        by_name = group.set_index("measure")
        seeds = str(int(by_name["count"].max()))
        cells = [_difference(by_name.loc[name]) if name in by_name.index else NOTHING for name in shown]
        rows.append([f"{second} - {first}", str(differ), seeds, *cells])
    note = (
        "The one minus the other, seed by seed: mean [95 % t interval]. The conditions of one seed begin "
        "with the same weights, if their sizes allow, and see their data in the same order."
    )
    columns = ["difference", "they differ in", "seeds", *(pairs.PAIRED[name] for name in shown)]
    return Table("Paired differences", note, columns, rows)


def _difference(row: Any) -> str:
    interval = "" if math.isnan(row["low"]) else f" [{row['low']:+.3f}, {row['high']:+.3f}]"
    return f"{row['mean']:+.3f}{interval}"


def _effects(counted: pd.DataFrame) -> Table:
    results = {measure: statistics.effects(counted, measure) for measure in EFFECTS}
    cells: dict[str, dict[str, str]] = {}
    for measure, (result, _) in results.items():
        for effect, estimate, low, high in result.itertuples(index=False):
            interval = "" if math.isnan(low) else f" [{low:+.3f}, {high:+.3f}]"
            cells.setdefault(effect, {})[measure] = f"{estimate:+.3f}{interval}"
    note = " ".join(dict.fromkeys(note for _, note in results.values()))
    rows = [[_words(effect), *(of.get(name, NOTHING) for name in EFFECTS)] for effect, of in cells.items()]
    if rows:
        note = f"Estimate [95 % interval]. {note}"
    return Table("Effects", note, ["effect", *(MEASURES[name] for name in EFFECTS)], rows)


def _below(counted: pd.DataFrame) -> Table:
    rows = []
    of_images = counted[:0] if are_sequences(counted) else counted  # the values are shares of a grid
    for condition, group in of_images.groupby("condition", sort=False):
        columns = [group[f"below_{threshold}"].astype(float) for threshold in THRESHOLDS]
        cells = [", ".join(number(epoch, 0) for epoch in column) for column in columns]
        rows.append([str(condition), *cells])
    note = f"First epoch at which a head's MAD is below the value, one number a seed; {NOTHING}: never."
    return Table("First epoch below a MAD", note, ["condition", *map(str, THRESHOLDS)], rows)


def _layers(heads: pd.DataFrame) -> Table:
    rows = []
    layers = statistics.layers_table(heads)
    for (condition, layer), group in layers.groupby(["condition", "layer"], sort=False):
        by_name = group.set_index("statistic")
        rows.append([str(condition), str(layer), *(_summary(by_name.loc[name]) for name in by_name.index)])
    note = "Mean ± standard deviation over the heads of all seeds [95 % bootstrap interval of the mean]."
    shown = [statistics.IN_LAYERS[name] for name in dict.fromkeys(layers["statistic"])]
    return Table("Layers", note, ["condition", "layer", *shown], rows)


def _runs(table: pd.DataFrame) -> Table:
    shown = {
        "acc1": "accuracy",
        "acc1_best": "best accuracy",
        "mad_min": "minimum MAD",
        "mad_min_early": "early minimum",
        "mad_min_of_training": "minimum in training",
        "self_mass_of_min": "self mass of the minimum",
        "class_mass_of_min": "class mass of the minimum",
        "mad_raw_min": "minimum raw MAD",
        "class_mass_max": "largest class mass",
        **sequences.MEASURES,
    }
    shown = {name: words for name, words in shown.items() if name in table and table[name].notna().any()}
    rows = [
        [
            str(row["condition"]),
            _seed(row["seed"]),
            str(row["epochs"]),
            *(number(row[name]) for name in shown),
            str(row["kind_of_min"] or NOTHING),
        ]
        for _, row in table.iterrows()
    ]
    note = "Values at the last epoch; the kind is that of the head with the smallest MAD."
    return Table("Runs", note, ["condition", "seed", "epochs", *shown.values(), "kind"], rows)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _seed(seed: float | None) -> str:
    return NOTHING if seed is None or math.isnan(seed) else str(int(seed))


def _markdown_table(table: Table, heading: str) -> list[str]:
    lines = [f"{heading} {table.title}", "", _escaped(table.note), ""]
    lines += [_markdown_row(table.columns), _markdown_row(["---"] * len(table.columns))]
    return [*lines, *map(_markdown_row, ([*map(_escaped, row)] for row in table.rows)), ""]


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """Without what Markdown would take for its own: a cell's end, HTML, emphasis, links."""
    for sign in "\\|<*_`[":
        text = text.replace(sign, f"\\{sign}" if sign != "<" else "&lt;")
    return " ".join(text.split())
