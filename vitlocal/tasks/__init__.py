"""What a network is trained to do: loss, accuracy, optimiser and schedule."""

from vitlocal.tasks.answers import AnswerWriter
from vitlocal.tasks.classification import Classification
from vitlocal.tasks.epoch_metrics import EpochMetrics
from vitlocal.tasks.finite import FiniteLoss
from vitlocal.tasks.nodes import NodeClassification
from vitlocal.tasks.predictions import PredictionWriter
from vitlocal.tasks.sequences import SequenceModeling

__all__ = [
    "AnswerWriter",
    "Classification",
    "EpochMetrics",
    "FiniteLoss",
    "NodeClassification",
    "PredictionWriter",
    "SequenceModeling",
]
