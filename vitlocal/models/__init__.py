"""Plain networks: the Vision Transformer and its attention. Nothing here knows of Lightning."""

from vitlocal.models.attention import Attention, ClippedSoftmax, Gated, GateKind, Softmax, attention_weights
from vitlocal.models.factory import AttentionKind
from vitlocal.models.vit import Init, PosEmbed, VisionTransformer

__all__ = [
    "Attention",
    "AttentionKind",
    "ClippedSoftmax",
    "GateKind",
    "Gated",
    "Init",
    "PosEmbed",
    "Softmax",
    "VisionTransformer",
    "attention_weights",
]
