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
    MeanAttentionDistance,
    MeanAttentionDistanceWithoutSelf,
    NormalizedEntropy,
    RawMeanAttentionDistance,
    SelfMass,
)
from vitlocal.heads.monitor import LocalityMonitor
from vitlocal.observing import ImageMean, find_attention, find_network, observe

__all__ = [
    "ClassTokenMass",
    "HeadStatistics",
    "ImageMean",
    "LocalityMonitor",
    "MeanAttentionDistance",
    "MeanAttentionDistanceWithoutSelf",
    "NormalizedEntropy",
    "RawMeanAttentionDistance",
    "SelfMass",
    "class_token_mass",
    "find_attention",
    "find_network",
    "head_statistics",
    "mean_attention_distance",
    "mean_attention_distance_without_self",
    "normalized_entropy",
    "observe",
    "raw_mean_attention_distance",
    "self_mass",
    "uniform_statistics",
]
