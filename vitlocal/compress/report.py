"""What a quantization found, in files and for people."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from statistics import mean, stdev

from vitlocal.compress.outcome import Outcome, Timed
from vitlocal.files import atomic_path

ABOUT = (
    "Accuracy; the share of images given the same class as by fp32; and the error of the logits, relative to "
    "fp32's, which tells models apart whose classes are the same."
)
ALONE = "alone in 8 bits, all else in fp32"


def write_table(path: Path, rows: Sequence[Outcome] | Sequence[Timed]) -> None:
    """Write rows as CSV, one column a field; what is not known stays empty."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(rows[0])])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def markdown(name: str, how: str, found: Sequence[Outcome], timed: Sequence[Timed]) -> str:
    """The report: accuracies, what loses most, and where there is an int8 model, its size and latency.

    Args:
        name: of the model.
        how: on what and by what it was measured, a sentence.
        found: all rows.
        timed: latencies; may be empty.
    """
    lines = [f"# {name} in 8 bits", "", how, ABOUT, "", *_accuracies(found)]
    for part, heading in (("layer", "layer"), ("tensor", "kind of tensor")):
        rows = [row for row in found if row.part == part]
        if rows:
            lines += ["", f"## Which {heading} loses most", "", *_alone(rows, heading)]
    if timed:
        lines += ["", "## Size and latency in ONNX Runtime on the CPU", "", *_latencies(timed)]
    return "\n".join(lines) + "\n"


def _accuracies(found: Sequence[Outcome]) -> list[str]:
    lines = _head("model", "accuracy", "same class as fp32", "logit error")
    trials = [row for row in found if row.part == "w8a8"]
    for row in found:
        if row.part == "fp32":
            lines.append(_row("fp32", f"{row.acc1:.4f}", "", ""))
        elif row.part == "w8a8":
            lines.append(_row(f"simulated W8A8, calibration seed {row.seed}", *_values(row)))
        if row is trials[-1] and len(trials) > 1:
            columns = [[getattr(t, n) for t in trials] for n in ("acc1", "agreement", "logit_error")]
            shown = [f"{mean(column):.4f} ± {stdev(column):.4f}" for column in columns]
            lines.append(_row(f"simulated W8A8, mean ± sd of {len(trials)} seeds", *shown))
    for row in found:
        if row.part == "int8":
            lines.append(_row(f"int8 by ONNX Runtime, calibration seed {row.seed}", *_values(row)))
            lines += [
                "",
                f"The int8 model and the simulated one give {row.agreement_w8a8:.2%} of the images the same "
                "class.",
            ]
    return lines


def _alone(rows: Sequence[Outcome], heading: str) -> list[str]:
    """The rows, largest loss first."""
    ordered = sorted(rows, key=lambda row: (row.acc1, -row.logit_error))
    count, seed = rows[0].images, rows[0].seed
    lines = [f"Each {heading} {ALONE}; {count} images, calibration seed {seed}.", ""]
    lines += _head(heading, "accuracy", "same class as fp32", "logit error")
    return lines + [_row(row.name, *_values(row)) for row in ordered]


def _latencies(timed: Sequence[Timed]) -> list[str]:
    """A line a batch size: both models, and the ratio."""
    fp32, int8 = ([row for row in timed if row.model == model] for model in ("fp32", "int8"))
    size = int8[0].bytes / fp32[0].bytes
    lines = [
        f"The files have {fp32[0].bytes / 2**20:.2f} MiB in fp32 and {int8[0].bytes / 2**20:.2f} MiB in "
        f"int8, a ratio of {size:.2f}. Milliseconds a call, median [quartiles] of {fp32[0].repeats} calls of "
        f"each in turn; threads: {fp32[0].threads}.",
        "",
        *_head("images a call", "fp32", "int8", "int8 / fp32"),
    ]
    for one, other in zip(fp32, int8, strict=True):
        shown = [f"{row.median_ms:.2f} [{row.low_ms:.2f}, {row.high_ms:.2f}]" for row in (one, other)]
        lines.append(_row(str(one.batch), *shown, f"{other.median_ms / one.median_ms:.2f}"))
    return lines


def _values(row: Outcome) -> list[str]:
    return [f"{value:.4f}" for value in (row.acc1, row.agreement, row.logit_error)]


def _head(*titles: str) -> list[str]:
    return [_row(*titles), "|---|" + "---:|" * (len(titles) - 1)]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
