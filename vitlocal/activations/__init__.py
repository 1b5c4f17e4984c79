"""Outliers in activations, and heads that do nothing: functions, Metrics and the callback."""

from vitlocal.activations.monitor import OutlierMonitor
from vitlocal.activations.outliers import (
    IdleHeads,
    OutputOutliers,
    infinity_norm,
    kurtosis,
    nothing_share,
    outlier_mask,
    update_norm,
)

__all__ = [
    "IdleHeads",
    "OutlierMonitor",
    "OutputOutliers",
    "infinity_norm",
    "kurtosis",
    "nothing_share",
    "outlier_mask",
    "update_norm",
]
