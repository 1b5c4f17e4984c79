"""What TensorBoard shows of the heads besides scalars: the layout of its charts, and figures."""

from collections.abc import Mapping, Sequence

from lightning.pytorch.loggers import TensorBoardLogger

from vitlocal.heads.figures import AttentionMaps, attention_figure, depth_figure, training_figure
from vitlocal.heads.functional import Unit
from vitlocal.heads.summary import LayerStatistics

LABELS: dict[str, str] = {
    "grid": "mean attention distance (1 = corner to corner)",
    "patches": "mean attention distance (patches)",
    "pixels": "mean attention distance (pixels)",
}


def write_layout(logger: TensorBoardLogger, depth: int) -> None:
    """Describe the charts of the custom-scalars page; once a run, on rank 0.

    For MAD and entropy: the minimum and the early minimum in one chart, and for each of ``depth`` layers the
    band from its least to its greatest head about their mean, and a chart with the curves of all its heads.
    """
    logger.experiment.add_custom_scalars(
        {title: _charts(name, depth) for title, name in (("MAD", "mad"), ("entropy", "entropy"))}
    )


def _charts(name: str, depth: int) -> dict[str, list[object]]:
    # The page takes tags for regular expressions, matched from the tag's start.
    uniform = f"locality/{name}/uniform$"
    least = [f"locality/{name}_min(_early)?$", uniform]
    if name == "mad":
        least.append("locality/(self|class)_mass_of_mad_min$")
    charts: dict[str, list[object]] = {f"{name}: minimum": ["Multiline", least]}
    for layer in range(depth):
        place = f"locality/{name}/layer_{layer}"
        charts[f"{name}: layer {layer}"] = ["Multiline", [rf"{place}/head_\d+$", uniform]]
        charts[f"{name}: layer {layer}, band"] = [
            "Margin",
            [f"{place}/{of}" for of in ("mean", "min", "max")],
        ]
    return charts


def write_figures(
    logger: TensorBoardLogger,
    layers: Sequence[LayerStatistics],
    uniform: dict[str, float],
    unit: Unit,
    maps: Sequence[AttentionMaps],
    curves: Mapping[int, Sequence[Sequence[float]]],
    step: int,
) -> None:
    """Every head's MAD and entropy against depth, its MAD over training, and attention maps; on rank 0."""
    if curves:
        figure = training_figure(curves, LABELS[unit], uniform["mad"])
        logger.experiment.add_figure("locality/mad_over_training", figure, step)
    for name, label in (("mad", LABELS[unit]), ("entropy", "normalised entropy")):
        figure = depth_figure([layer[name] for layer in layers], label, uniform[name])
        logger.experiment.add_figure(f"locality/{name}", figure, step)
    for index, image_maps in enumerate(maps):
        logger.experiment.add_figure(f"locality/attention/image_{index}", attention_figure(image_maps), step)
