"""What of Lightning's callbacks can't be had here, and monitors that name what is not logged."""

import re

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    Callback,
    DeviceStatsMonitor,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelPruning,
    SpikeDetection,
    StochasticWeightAveraging,
    ThroughputMonitor,
)

from vitlocal.errors import InputError
from vitlocal.heads import LocalityMonitor
from vitlocal.runs.resuming import refuse_folders
from vitlocal.tasks.epoch_metrics import LOGGED

REFUSED: dict[type[Callback], str] = {
    BackboneFinetuning: "thaws a pretrained backbone, and here all of a network is trained: leave it out",
    BatchSizeFinder: "finds a size after the schedule has counted its steps: give data.batch_size itself",
    ModelPruning: "looks for weights before there are any, and its checkpoints do not resume: leave it out",
    SpikeDetection: (
        "can't restore its own state, so the run could not resume: leave it out; a loss that is not finite "
        "stops every run"
    ),
    StochasticWeightAveraging: (
        "takes the mean after the last checkpoint: give WeightAveraging or EMAWeightAveraging, which "
        "validate and save it"
    ),
}
"""Why, and what would do. As they are in Lightning 2.6, they fail late or train something else silently."""

NEED_A_LOGGER = DeviceStatsMonitor | LearningRateMonitor | ThroughputMonitor
"""What they find goes to loggers alone."""


def check(trainer: Trainer) -> None:
    """Look at all callbacks, before anything is written.

    Raises:
        InputError: one can't be had, lacks a logger, would make folders of its files' names, or monitors a
            slip of a name that is logged; other names may come from anywhere.
    """
    plain = {re.sub(r"[\W_]", "", name): name for name in (*LOGGED, *LocalityMonitor.headlines)}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        name = type(callback).__name__
        if why := REFUSED.get(type(callback)):
            raise InputError(f"{name} {why}")
        if isinstance(callback, NEED_A_LOGGER) and not trainer.loggers:
            raise InputError(
                f"{name} writes to loggers, and there is none: leave it out, or give a trainer.logger; the "
                "learning rate is in metrics.csv without one too"
            )
        if isinstance(callback, ModelCheckpoint) and callback.filename is not None:
            refuse_folders(name, callback.filename, callback.auto_insert_metric_name)
        monitor = getattr(callback, "monitor", None)
        near = plain.get(re.sub(r"[\W_]", "", monitor)) if isinstance(monitor, str) else None
        if near is not None and near != monitor:
            raise InputError(
                f"{name} monitors {monitor}, which is not logged: give {near}; logged "
                f"are {', '.join(LOGGED)}, and those of the monitors of heads"
            )
