"""The layout of TensorBoard's charts of heads."""

from collections.abc import Sequence

from lightning.pytorch.loggers import TensorBoardLogger


def write_layout(logger: TensorBoardLogger, layers: Sequence[int]) -> None:
    """Describe the charts of the custom-scalars page; once a run, on rank 0.

    For MAD and entropy: the minimum and the early minimum in one chart, and for each of the layers, by
    their numbers, the band from its least to its greatest head about their mean, and a chart with the curves
    of all its heads.
    """
    logger.experiment.add_custom_scalars(
        {title: _charts(name, layers) for title, name in (("MAD", "mad"), ("entropy", "entropy"))}
    )


def _charts(name: str, layers: Sequence[int]) -> dict[str, list[object]]:
    # The page takes tags for regular expressions, matched from the tag's start.
    uniform = f"locality/{name}/uniform$"
    least = [f"locality/{name}_min(_early)?$", uniform]
    if name == "mad":
        least.append("locality/(self|class)_mass_of_mad_min$")
    charts: dict[str, list[object]] = {f"{name}: minimum": ["Multiline", least]}
    for layer in layers:
        place = f"locality/{name}/layer_{layer}"
        charts[f"{name}: layer {layer}"] = ["Multiline", [rf"{place}/head_\d+(/hop_\d+)?$", uniform]]
        charts[f"{name}: layer {layer}, band"] = [
            "Margin",
            [f"{place}/{of}" for of in ("mean", "min", "max")],
        ]
    return charts
