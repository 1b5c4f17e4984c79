"""What attention heads look at: functions, Metrics, and the callback that follows them in training."""

from vitlocal.heads.functional import (
    class_token_mass,
    head_statistics,
    mean_attention_distance,
    mean_attention_distance_without_self,
    normalized_entropy,
    raw_mean_attention_distance,
    self_mass,
    uniform_statistics,
)
from vitlocal.heads.metrics import (
    ClassTokenMass,
    HeadStatistics,
    ImageMean,
    MeanAttentionDistance,
    MeanAttentionDistanceWithoutSelf,
    NormalizedEntropy,
    RawMeanAttentionDistance,
    SelfMass,
)
from vitlocal.heads.monitor import LocalityMonitor
from vitlocal.heads.observe import find_attention, find_network, observe
from vitlocal.heads.outlier_monitor import OutlierMonitor
from vitlocal.heads.outliers import (
    IdleHeads,
    OutputOutliers,
    infinity_norm,
    kurtosis,
    nothing_share,
    outlier_mask,
    update_norm,
)

__all__ = [
    "ClassTokenMass",
    "HeadStatistics",
    "IdleHeads",
    "ImageMean",
    "LocalityMonitor",
    "MeanAttentionDistance",
    "MeanAttentionDistanceWithoutSelf",
    "NormalizedEntropy",
    "OutlierMonitor",
    "OutputOutliers",
    "RawMeanAttentionDistance",
    "SelfMass",
    "class_token_mass",
    "find_attention",
    "find_network",
    "head_statistics",
    "infinity_norm",
    "kurtosis",
    "mean_attention_distance",
    "mean_attention_distance_without_self",
    "normalized_entropy",
    "nothing_share",
    "observe",
    "outlier_mask",
    "raw_mean_attention_distance",
    "self_mass",
    "uniform_statistics",
    "update_norm",
]
