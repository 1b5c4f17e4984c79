"""A run on disk: where it is, what it holds, and how it resumes."""

from vitlocal.runs.distillation import Distillation
from vitlocal.runs.initial_weights import InitialWeights
from vitlocal.runs.resuming import ProcessStates, ResumedSchedule, RunCheckpoint
from vitlocal.runs.run import Run, open_run

__all__ = [
    "Distillation",
    "InitialWeights",
    "ProcessStates",
    "ResumedSchedule",
    "Run",
    "RunCheckpoint",
    "open_run",
]
