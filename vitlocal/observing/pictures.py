"""Figures in the loggers that take pictures, each by its own call."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from lightning.pytorch.loggers import CometLogger, Logger, MLFlowLogger, TensorBoardLogger
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def takes_pictures(logger: Logger) -> bool:
    """Whether :func:`show` can show a figure there.

    Those are TensorBoard, MLflow, Comet, and every logger with the ``log_image(key, images, step)`` of
    Lightning's W&B logger.
    """
    return isinstance(logger, TensorBoardLogger | MLFlowLogger | CometLogger) or hasattr(logger, "log_image")


def show(logger: Logger, name: str, figure: Figure, step: int) -> None:
    """Show a figure, on rank 0.

    Args:
        logger: one that takes pictures.
        name: of the figure, with slashes.
        figure: what is shown.
        step: of training.
    """
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_figure(name, figure, step)
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_figure(logger.run_id, figure, f"{name}/step_{step}.png")
    elif isinstance(logger, CometLogger):
        logger.experiment.log_figure(figure_name=name, figure=figure, step=step)
    else:
        content = io.BytesIO()
        figure.savefig(content, format="png")
        logger.log_image(name, [Image.open(content)], step=step)  # type: ignore[attr-defined]
