"""The callback that follows, epoch by epoch, what every head looks at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from torch import Tensor

from vitlocal.errors import InputError
from vitlocal.geometry import ClassToken, Geometry, Graph, Unit
from vitlocal.geometry import Sequence as TokenSequence
from vitlocal.heads import summary, tensorboard
from vitlocal.heads.collector import HeadCollector
from vitlocal.heads.figures import LABELS, attention_figure, depth_figure, training_figure
from vitlocal.heads.nodes import NodeCollector
from vitlocal.heads.sequences import SequenceCollector
from vitlocal.heads.summary import LayerStatistics
from vitlocal.observing.batches import Where
from vitlocal.observing.hooks import find_network
from vitlocal.observing.monitor import NetworkMonitor, Rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Collector: TypeAlias = HeadCollector | NodeCollector | SequenceCollector


class LocalityMonitor(NetworkMonitor):
    """Measures and logs the locality of every attention head during validation and testing.

    Works in ``fit``, ``validate`` and ``test``, with any logger or none. The mean attention distance
    (MAD), the normalised entropy and the rest (see :mod:`vitlocal.heads.functional`) are logged, can
    be monitored by other callbacks as ``locality/...``, and go to ``heads.csv`` in the run's folder, with
    the values of uniform attention beside it in ``geometry.json``.
    Loggers that take pictures also get figures. Epochs are counted as training epochs done: 0 is the
    untrained network.

    Args:
        every_n_epochs: Observe after every n-th epoch of training.
        max_images: Number of images, or of a graph's nodes, to observe, the same ones every time; null for
            all.
        unit: Of distances. On a grid: share of the ``grid``'s largest distance, ``patches`` or ``pixels``;
            in a sequence: ``tokens``, or their ``share`` of the farthest one seen; in a graph: ``hops``. Null
            for the first of these.
        class_token: ``drop`` leaves the class token out and renormalises over patches; ``keep`` counts it
            as a key at distance 0.
        before_training: Observe the untrained network too.
        maps: Number of images whose attention maps are drawn, where a logger takes pictures; 0 for none.
        seed: Which images ``max_images`` chooses, and where the boxes of ``mixed_images`` are.
        mixed_images: Number of images that are also observed with CutMix's boxes pasted into them, to
            measure attention across the boxes' borders; the same in all conditions. 0 for none.
        images: Where a batch has its images: a key, a position or a function of the batch. Null for its keys
            ``image``, ``pixel_values`` or ``images``, its first part, or the batch itself.

    Raises:
        InputError: A value is out of its range, or there are no attention modules to observe.
    """

    key = "locality"
    headlines = summary.HEADLINES
    in_progress_bar = "locality/mad_min"

    def __init__(
        self,
        every_n_epochs: int = 1,
        max_images: int | None = None,
        unit: Unit | None = None,
        class_token: ClassToken = "drop",
        before_training: bool = True,
        maps: int = 2,
        seed: int = 0,
        mixed_images: int = 0,
        images: Where = None,
    ) -> None:
        super().__init__(every_n_epochs, max_images, before_training, seed, images)
        if unit is not None and unit not in get_args(Unit):
            raise InputError(f"locality.unit is {unit!r}: it must be one of {', '.join(get_args(Unit))}")
        if class_token not in get_args(ClassToken):
            raise InputError(f"locality.class_token is {class_token!r}: it must be drop or keep")
        if maps < 0:
            raise InputError(f"locality.maps is {maps}: it must not be negative")
        if mixed_images < 0:
            raise InputError(f"locality.mixed_images is {mixed_images}: it must not be negative")
        self.mixed_images = mixed_images
        self.unit: Unit | None = unit
        self.class_token: ClassToken = class_token
        self.maps = maps
        self._laid_out: list[Logger] = []
        self._curves: dict[int, list[list[float]]] = {}

    def state_dict(self) -> dict[str, Any]:
        """The curves so far, so that a resumed run draws them whole."""
        return {"curves": dict(self._curves)}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fail before the first step if there is nothing to observe, or not in this unit."""
        super().on_fit_start(trainer, pl_module)
        self._geometry(pl_module)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them over."""
        self._curves = dict(state_dict["curves"])

    def _new_collector(
        self, pl_module: LightningModule, chosen: Sequence[Tensor] | None, drawing: bool
    ) -> Collector:
        maps = self.maps if drawing else 0
        processes = pl_module.trainer.world_size
        mixed = -(-self.mixed_images // processes)
        geometry = self._geometry(pl_module)
        if isinstance(geometry, Graph):
            return NodeCollector(pl_module, pl_module.device, geometry, self.max_images, self.seed)
        if isinstance(geometry, TokenSequence) and geometry.causal:
            return SequenceCollector(pl_module, pl_module.device, geometry, chosen)
        return HeadCollector(pl_module, pl_module.device, geometry, chosen, maps, mixed, self.seed)

    def _geometry(self, pl_module: LightningModule) -> Geometry:
        network: Any = find_network(pl_module)
        if self.mixed_images and isinstance(network.geometry, Graph | TokenSequence):
            raise InputError(
                f"locality.mixed_images is {self.mixed_images}, but nodes of a graph are no images, "
                "nor are tokens: leave it out"
            )
        return network.geometry.measured(self.unit, self.class_token)

    def _beside(
        self,
        collector: Collector,
        pl_module: LightningModule,
        images: Tensor,
        place: tuple[int, int],
    ) -> None:
        collector.mixed(images, pl_module, *place)

    def _tables(
        self, layers: list[LayerStatistics], collector: Collector, step: int
    ) -> dict[str, tuple[Sequence[str], Rows]]:
        return {"heads": (summary.columns(layers), summary.rows(layers, collector.places, step))}

    def _facts(self, collector: Collector) -> dict[str, Mapping[str, object]]:
        return {"geometry": {"geometry": collector.geometry.describe(), "uniform": collector.uniform}}

    def _scalars(self, layers: list[LayerStatistics], collector: Collector) -> dict[str, float]:
        return summary.scalars(layers, collector.uniform, collector.geometry, collector.places)

    def _lay_out(self, loggers: Sequence[Logger], collector: Collector) -> None:
        for logger in loggers:
            if isinstance(logger, TensorBoardLogger) and logger not in self._laid_out:
                tensorboard.write_layout(logger, [place.layer for place in collector.places])
                self._laid_out.append(logger)

    def _figures(
        self, layers: list[LayerStatistics], collector: Collector, epoch: int | None
    ) -> Iterator[tuple[str, Figure]]:
        distances, uniform = LABELS[collector.geometry.unit], collector.uniform
        if epoch is not None:
            self._curves[epoch] = [layer["mad"] for layer in layers]
            figure = training_figure(self._curves, collector.places, distances, uniform["mad"])
            yield "locality/mad_over_training", figure
        for name, label in (("mad", distances), ("entropy", "normalised entropy")):
            values = [layer[name] for layer in layers]
            yield f"locality/{name}", depth_figure(values, collector.places, label, uniform[name])
        for index, maps in enumerate(collector.maps):
            yield f"locality/attention/image_{index}", attention_figure(maps, collector.places)
