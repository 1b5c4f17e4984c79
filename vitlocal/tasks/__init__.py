"""What a network is trained to do: loss, accuracy, optimiser and schedule."""

from vitlocal.tasks.classification import Classification
from vitlocal.tasks.epoch_metrics import EpochMetrics
from vitlocal.tasks.finite import FiniteLoss
from vitlocal.tasks.predictions import PredictionWriter

__all__ = ["Classification", "EpochMetrics", "FiniteLoss", "PredictionWriter"]
