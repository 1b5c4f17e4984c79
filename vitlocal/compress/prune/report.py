"""What pruning found, in files and for people."""

from collections.abc import Sequence
from dataclasses import dataclass

from vitlocal.compress.prune.heads import Correlation, Head
from vitlocal.compress.prune.latency import Latency
from vitlocal.compress.prune.runtime import RUNTIMES
from vitlocal.compress.report import table_head, table_row

METHODS = {
    "dense": "the network as it is",
    "ziplm": "ZipLM: structured OBS, levels searched",
    "gradual": "the same from speedup to speedup, trained after each",
    "uniform": "structured OBS, the same share of each part",
    "diagonal": "OBS without correlations, no update, levels searched",
    "magnitude": "group magnitude, no update, levels searched",
    "random": "at random, no update, levels searched",
}
NAMES = {"mad": "MAD", "self_mass": "self mass", "class_mass": "class mass", "entropy": "entropy"}


@dataclass(frozen=True)
class Pruned:
    """A network, as one row of prune.csv.

    Attributes:
        method: one of ``METHODS``.
        wanted: speedup that was wanted; 1 for the dense network.
        predicted_ms: milliseconds a call by the table of latencies.
        measured_ms: milliseconds a call, median.
        speedup: measured, over the dense network in the same rounds.
        images: of validation.
        acc1: accuracy on them, 0 to 1; of several labels an image, that of single labels.
        loss: cross entropy on them.
        calibration_loss: the same on the calibration images.
        equal_loss: that, with equal weights of all parts, before the search; None where there was none.
        heads: number of heads.
        hidden: number of hidden features of all MLPs.
        parameters: number of them.
    """

    method: str
    wanted: float
    predicted_ms: float
    measured_ms: float
    speedup: float
    images: int
    acc1: float
    loss: float
    calibration_loss: float
    equal_loss: float | None
    heads: int
    hidden: int
    parameters: int


def markdown(
    name: str,
    how: str,
    table: Latency,
    found: Sequence[Pruned],
    heads: Sequence[Head],
    correlated: Sequence[Correlation],
) -> str:
    """The report.

    Args:
        name: of the network.
        how: on what it was calibrated and measured, a sentence.
        table: of latencies.
        found: all rows of prune.csv.
        heads: all rows of prune_heads.csv.
        correlated: their correlations.
    """
    setting = table.setting
    methods = dict.fromkeys(row.method for row in found)
    lines = [f"# {name} with fewer heads and features", "", how, ""]
    lines += [
        f"Times are of a call with {setting.batch_size} images on {setting.device}, in {setting.precision}, "
        f"with {setting.threads} thread{'s' if setting.threads > 1 else ''}, by {RUNTIMES[setting.runtime]}: "
        f"{table.machine}. All networks "
        "were measured in turn, in the same rounds.",
        "",
        *(f"- {method}: {METHODS[method]}" for method in methods),
        "",
        *table_head(
            *("network", "wanted", "predicted ms", "measured ms", "speedup", "accuracy", "loss"),
            *("calibration loss", "heads", "features", "parameters"),
        ),
    ]
    for row in found:
        lines.append(
            table_row(
                *(row.method, f"{row.wanted:g}", f"{row.predicted_ms:.1f}", f"{row.measured_ms:.1f}"),
                *(f"{row.speedup:.2f}", f"{row.acc1:.4f}", f"{row.loss:.4f}", f"{row.calibration_loss:.4f}"),
                *(str(row.heads), str(row.hidden), str(row.parameters)),
            )
        )
    lines += ["", "## Which heads go", "", *_which(heads)]
    if correlated:
        lines += ["", *_correlations(correlated)]
    return "\n".join(lines) + "\n"


def _which(heads: Sequence[Head]) -> list[str]:
    lines = [
        "The heads of each layer in the order in which they go, with the smallest speedup at which each is "
        "gone.",
        "",
        *table_head("layer", "order of going (speedup at which gone)"),
    ]
    for layer in sorted({row.layer for row in heads}):
        ordered = sorted((row for row in heads if row.layer == layer), key=lambda row: row.order)
        cells = [f"{row.head}" + (f" ({row.gone_at:g}x)" if row.gone_at else "") for row in ordered]
        lines.append(table_row(str(layer), ", ".join(cells)))
    return lines


def _correlations(found: Sequence[Correlation]) -> list[str]:
    lines = [
        "Spearman's correlation of that order with what a head looks at, within a layer, mean over "
        f"{found[0].layers} layers [95 % bootstrap interval over layers]: above 0, heads of small values go "
        "first.",
        "",
        *table_head("statistic", "rho"),
    ]
    for one in found:
        lines.append(table_row(NAMES[one.statistic], f"{one.rho:+.2f} [{one.low:+.2f}, {one.high:+.2f}]"))
    return lines
