"""Plain networks: the Vision Transformer and its attention. Nothing here knows of Lightning."""

from vitlocal.models.attention import Attention
from vitlocal.models.clipped_softmax import ClippedSoftmaxAttention
from vitlocal.models.factory import AttentionKind
from vitlocal.models.gated import GatedAttention, GateKind
from vitlocal.models.vit import Init, PosEmbed, VisionTransformer

__all__ = [
    "Attention",
    "AttentionKind",
    "ClippedSoftmaxAttention",
    "GateKind",
    "GatedAttention",
    "Init",
    "PosEmbed",
    "VisionTransformer",
]
