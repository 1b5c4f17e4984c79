"""The callback that follows, epoch by epoch, outliers in activations and the heads that do nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from vitlocal.activations.collector import (
    OUTPUTS,
    LayerOutliers,
    OutlierCollector,
    find_blocks,
    shows_values,
)
from vitlocal.activations.figures import outlier_figure
from vitlocal.activations.outliers import DEVIATIONS, HEAD_STATISTICS, SMALL_VALUE, OutputStatistics
from vitlocal.errors import InputError
from vitlocal.observing.batches import Where
from vitlocal.observing.hooks import Place, find_network
from vitlocal.observing.monitor import NetworkMonitor, Rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OUTPUT_STATISTICS = ("inf_norm", "kurtosis", "outliers")
COLUMNS = ("epoch", "step", "layer", *(f"{name}_{kind}" for name in OUTPUTS for kind in OUTPUT_STATISTICS))
HEAD_COLUMNS = ("epoch", "step", "layer", "head", *HEAD_STATISTICS)
HEADLINES = ("outliers/inf_norm_max", "outliers/kurtosis_mean", "outliers/count", "outliers/do_nothing_mean")


class OutlierMonitor(NetworkMonitor):
    """Measures and logs outliers in activations, and what tells that heads do nothing.

    Works in ``fit``, ``validate`` and ``test``, with any logger or none. Of the outputs of every layer's
    attention, MLP and block: infinity norm, kurtosis, and how many values lie far from the mean (see
    :mod:`vitlocal.activations.outliers`), in ``outliers.csv``; of every head, the share of its attention that
    brings nothing and the relative norm of its update, in ``do_nothing.csv``; both in the run's folder.
    All are logged as ``outliers/...``. Loggers that take pictures also get figures. Epochs are counted as
    training epochs done: 0 is the untrained network.

    Args:
        every_n_epochs: Observe after every n-th epoch of training.
        max_images: Number of images to observe, the same ones every time; null for all.
        before_training: Observe the untrained network too.
        deviations: Standard deviations from an image's mean beyond which a value is an outlier.
        small_value: A key's value vector is small below this share of the mean norm of the head's keys.
        seed: Which images ``max_images`` chooses.
        images: See :class:`~vitlocal.heads.LocalityMonitor`.

    Raises:
        InputError: A value is out of its range, or there are no blocks to observe.
    """

    key = "outliers"
    headlines = HEADLINES

    def __init__(
        self,
        every_n_epochs: int = 1,
        max_images: int | None = None,
        before_training: bool = True,
        deviations: float = DEVIATIONS,
        small_value: float = SMALL_VALUE,
        seed: int = 0,
        images: Where = None,
    ) -> None:
        super().__init__(every_n_epochs, max_images, before_training, seed, images)
        for name, value in (("deviations", deviations), ("small_value", small_value)):
            if not 0 < value < math.inf:
                raise InputError(f"outliers.{name} is {value}: it must be a number above 0")
        self.deviations = deviations
        self.small_value = small_value

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fail before the first step if there is nothing to observe; say what can't be."""
        super().on_fit_start(trainer, pl_module)
        if hidden := [
            type(attention).__name__
            for _, attention in find_blocks(find_network(pl_module))
            if not shows_values(attention)
        ]:
            rank_zero_info(
                f"vitlocal: {hidden[0]} has no layers qkv and proj, so what its heads' values are is not "
                "known: without it in do_nothing.csv and outliers/do_nothing"
            )

    def _new_collector(
        self, pl_module: LightningModule, chosen: Sequence[Tensor] | None, drawing: bool
    ) -> OutlierCollector:
        return OutlierCollector(pl_module, pl_module.device, self.deviations, self.small_value, chosen)

    def _tables(
        self, layers: list[LayerOutliers], collector: OutlierCollector, step: int
    ) -> dict[str, tuple[Sequence[str], Rows]]:
        places = collector.places
        tables: dict[str, tuple[Sequence[str], Rows]] = {"outliers": (COLUMNS, rows(layers, places, step))}
        if any(layer.heads for layer in layers):
            tables["do_nothing"] = (HEAD_COLUMNS, head_rows(layers, places, step))
        return tables

    def _scalars(self, layers: list[LayerOutliers], collector: OutlierCollector) -> dict[str, float]:
        return scalars(layers, collector.places)

    def _figures(
        self, layers: list[LayerOutliers], collector: OutlierCollector, epoch: int | None
    ) -> Iterator[tuple[str, Figure]]:
        for name in OUTPUTS:
            found = {
                place.layer: (layer.outputs[name].by_dimension, layer.outputs[name].by_position)
                for layer, place in zip(layers, collector.places, strict=True)
                if name in layer.outputs
            }
            if found:
                yield f"outliers/{name}", outlier_figure(found, collector.geometry)


def scalars(layers: Sequence[LayerOutliers], places: Sequence[Place]) -> dict[str, float]:
    """Everything that is logged, by name.

    The headlines are of the blocks' outputs: the largest layer's infinity norm, the mean over layers of
    the kurtosis, and the number of outliers an image in all layers; and, over all heads, the mean share of
    attention that brings nothing.
    """
    blocks = [_numbers(layer.outputs["block"]) for layer in layers]
    values = {
        "outliers/inf_norm_max": max(block["inf_norm"] for block in blocks),
        "outliers/kurtosis_mean": _mean([block["kurtosis"] for block in blocks]),
        "outliers/count": math.fsum(block["outliers"] for block in blocks),
    }
    if shares := [share for layer in layers for share in layer.heads.get("do_nothing", ())]:
        values["outliers/do_nothing_mean"] = _mean(shares)
    for layer, (index, numbers, _) in zip(layers, places, strict=True):
        for name, output in layer.outputs.items():
            for kind, value in _numbers(output).items():
                values[f"outliers/{kind}/layer_{index}/{name}"] = value
        for kind, heads in layer.heads.items():
            values[f"outliers/{kind}/layer_{index}/mean"] = _mean(heads)
            values |= {
                f"outliers/{kind}/layer_{index}/head_{head}": value
                for head, value in zip(numbers, heads, strict=True)
            }
    return values


def rows(layers: Sequence[LayerOutliers], places: Sequence[Place], step: int) -> list[dict[str, object]]:
    """Rows of ``outliers.csv`` without the epoch: one a layer, by its number; outliers are those an image.

    A branch that a layer does not have is left out of its row.
    """
    return [
        {"step": step, "layer": place.layer}
        | {
            f"{name}_{kind}": f"{value:.6g}"
            for name, output in layer.outputs.items()
            for kind, value in _numbers(output).items()
        }
        for layer, place in zip(layers, places, strict=True)
    ]


def head_rows(layers: Sequence[LayerOutliers], places: Sequence[Place], step: int) -> list[dict[str, object]]:
    """Rows of ``do_nothing.csv`` without the epoch: one a layer and head whose values are known."""
    return [
        {"step": step, "layer": place.layer, "head": head}
        | {kind: f"{value:.6g}" for kind, value in zip(HEAD_STATISTICS, values, strict=True)}
        for layer, place in zip(layers, places, strict=True)
        if layer.heads
        for head, values in zip(place.heads, zip(*layer.heads.values(), strict=True), strict=True)
    ]


def _numbers(output: OutputStatistics) -> dict[str, float]:
    """One output's numbers, in the order of ``OUTPUT_STATISTICS``."""
    found = (output.inf_norm, output.kurtosis, output.by_dimension.sum())
    return {name: value.item() for name, value in zip(OUTPUT_STATISTICS, found, strict=True)}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
