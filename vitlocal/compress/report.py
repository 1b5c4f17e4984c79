"""What a quantization found, in files and for people."""

import csv
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from vitlocal.compress.outcome import Outcome, Timed
from vitlocal.files import atomic_path


class Words(NamedTuple):
    """What accuracy and agreement are called.

    Attributes:
        column: of the accuracy in quantize.csv.
        accuracy: in words.
        what: is decided alike or not.
        same: how.
    """

    column: str
    accuracy: str
    what: str
    same: str


ONE_LABEL = Words("acc1", "accuracy", "images", "class")
SEVERAL_LABELS = Words("label_accuracy", "label accuracy", "pairs of an image and a label", "answer")
ALONE = "alone in 8 bits, all else in fp32"


def write_table(path: Path, rows: Sequence[Any], words: Words = ONE_LABEL) -> None:
    """Write instances of a dataclass as CSV, one column a field; what is not known stays empty."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names = [field.name for field in fields(rows[0])]
        writer.writerow([words.column if name == "acc1" else name for name in names])
        writer.writerows(astuple(row) for row in rows)


def markdown(
    name: str, how: str, found: Sequence[Outcome], timed: Sequence[Timed], words: Words = ONE_LABEL
) -> str:
    """The report: accuracies, what loses most, and where there is an int8 model, its size and latency.

    Args:
        name: of the model.
        how: on what and by what it was measured, a sentence.
        found: all rows.
        timed: latencies; may be empty.
        words: for the accuracy, by how many labels an image has.
    """
    about = (
        f"{words.accuracy.capitalize()}; the share of {words.what} given the same {words.same} as by fp32; "
        "and the error of the logits, relative to fp32's, which tells models apart that give the same."
    )
    lines = [f"# {name} in 8 bits", "", how, about, "", *_accuracies(found, words)]
    for part, heading in (("layer", "layer"), ("tensor", "kind of tensor")):
        rows = [row for row in found if row.part == part]
        if rows:
            lines += ["", f"## Which {heading} loses most", "", *_alone(rows, heading, words)]
    if timed:
        lines += ["", "## Size and latency in ONNX Runtime on the CPU", "", *_latencies(timed)]
    return "\n".join(lines) + "\n"


def _accuracies(found: Sequence[Outcome], words: Words) -> list[str]:
    lines = table_head("model", words.accuracy, f"same {words.same} as fp32", "logit error")
    trials = [row for row in found if row.part == "w8a8"]
    for row in found:
        if row.part == "fp32":
            lines.append(table_row("fp32", f"{row.acc1:.4f}", "", ""))
        elif row.part == "w8a8":
            lines.append(table_row(f"simulated W8A8, calibration seed {row.seed}", *_values(row)))
        if row is trials[-1] and len(trials) > 1:
            columns = [[getattr(t, n) for t in trials] for n in ("acc1", "agreement", "logit_error")]
            shown = [f"{mean(column):.4f} ± {stdev(column):.4f}" for column in columns]
            lines.append(table_row(f"simulated W8A8, mean ± sd of {len(trials)} seeds", *shown))
    for row in found:
        if row.part == "int8":
            lines.append(table_row(f"int8 by ONNX Runtime, calibration seed {row.seed}", *_values(row)))
            lines += [
                "",
                f"The int8 model and the simulated one give {row.agreement_w8a8:.2%} of the {words.what} the "
                f"same {words.same}.",
            ]
    return lines


def _alone(rows: Sequence[Outcome], heading: str, words: Words) -> list[str]:
    """The rows, largest loss first."""
    ordered = sorted(rows, key=lambda row: (row.acc1, -row.logit_error))
    count, seed = rows[0].images, rows[0].seed
    lines = [f"Each {heading} {ALONE}; {count} images, calibration seed {seed}.", ""]
    lines += table_head(heading, words.accuracy, f"same {words.same} as fp32", "logit error")
    return lines + [table_row(row.name, *_values(row)) for row in ordered]


def _latencies(timed: Sequence[Timed]) -> list[str]:
    """A line a batch size: both models, and the ratio."""
    fp32, int8 = ([row for row in timed if row.model == model] for model in ("fp32", "int8"))
    size = int8[0].bytes / fp32[0].bytes
    lines = [
        f"The files have {fp32[0].bytes / 2**20:.2f} MiB in fp32 and {int8[0].bytes / 2**20:.2f} MiB in "
        f"int8, a ratio of {size:.2f}. Milliseconds a call, median [quartiles] of {fp32[0].repeats} calls of "
        f"each in turn; threads: {fp32[0].threads}.",
        "",
        *table_head("images a call", "fp32", "int8", "int8 / fp32"),
    ]
    for one, other in zip(fp32, int8, strict=True):
        shown = [f"{row.median_ms:.2f} [{row.low_ms:.2f}, {row.high_ms:.2f}]" for row in (one, other)]
        lines.append(table_row(str(one.batch), *shown, f"{other.median_ms / one.median_ms:.2f}"))
    return lines


def _values(row: Outcome) -> list[str]:
    return [f"{value:.4f}" for value in (row.acc1, row.agreement, row.logit_error)]


def table_head(*titles: str) -> list[str]:
    """The first two lines of a Markdown table: the first column is text, the others are numbers."""
    return [table_row(*titles), "|---|" + "---:|" * (len(titles) - 1)]


def table_row(*cells: str) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"
