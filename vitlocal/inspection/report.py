"""What an inspection writes and prints of any geometry: the table of heads, and figures of all of them."""

import csv
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from vitlocal.files import atomic_path
from vitlocal.geometry import Geometry
from vitlocal.heads.figures import LABELS, depth_figure
from vitlocal.heads.kinds import head_kind
from vitlocal.heads.summary import LayerStatistics, rows
from vitlocal.inspection.figures import entropy_mad_figure
from vitlocal.observing.hooks import Place


def summary(layers: Sequence[LayerStatistics], places: Sequence[Place], uniform: dict[str, float]) -> str:
    """A line a layer: the head of the smallest MAD and what it looks at; means, and other minima."""
    lines = [
        "layer   MAD min   its self mass   class mass   kind          head   MAD mean   raw MAD min   "
        "entropy min   entropy mean"
    ]
    for layer, place in zip(layers, places, strict=True):
        head = layer["mad"].index(min(layer["mad"]))
        own, parked, near = (layer[name][head] for name in ("self_mass", "class_mass", "window_mass"))
        means = {name: sum(layer[name]) / len(layer[name]) for name in ("mad", "entropy")}
        lines.append(
            f"{place.layer:5}{layer['mad'][head]:10.4f}{own:16.4f}{parked:13.4f}   "
            f"{head_kind(own, parked, near):<11}{place.rows[head]['head']:7}{means['mad']:11.4f}"
            f"{min(layer['mad_raw']):14.4f}{min(layer['entropy']):14.4f}{means['entropy']:15.4f}"
        )
    lines.append(f"uniform{uniform['mad']:8.4f}{'':47}{uniform['mad']:11.4f}{'':14}{1:14.4f}{1:15.4f}")
    return "\n".join(lines)


def write(
    output: Path,
    statistics: Sequence[LayerStatistics],
    places: Sequence[Place],
    geometry: Geometry,
    uniform: dict[str, float],
    facts: dict[str, Any],
) -> None:
    """Write ``heads.csv``, figures of all heads, and ``inspect.yaml``.

    Args:
        output: folder, which is made.
        statistics: of each layer.
        places: what the layers and heads are called.
        geometry: of the tokens.
        uniform: of every statistic, the value of uniform attention.
        facts: what else was measured on what.
    """
    output.mkdir(parents=True, exist_ok=True)
    path = output / "heads.csv"
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ("layer", "head", *statistics[0]), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows(statistics, places, step=0))
    distances = LABELS[geometry.unit]
    for name, label in (("mad", distances), ("entropy", "normalised entropy")):
        save(
            depth_figure([layer[name] for layer in statistics], places, label, uniform[name]),
            output / f"{name}.png",
        )
    save(entropy_mad_figure(statistics, places, distances, uniform), output / "entropy_mad.png")
    with atomic_path(output / "inspect.yaml") as path:
        every = facts | {"geometry": geometry.describe(), "uniform": uniform}
        path.write_text(yaml.safe_dump(every, sort_keys=False), encoding="utf-8")


def save(figure: Any, path: Path) -> None:
    """Write a figure as a whole or not at all."""
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # in a file's name; a box is drawn for it
        figure.savefig(temporary, dpi=150)
