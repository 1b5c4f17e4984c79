"""Plain networks: the Vision Transformer and its attention. Nothing here knows of Lightning."""

from vitlocal.models.adapters import Timm, Torchvision, Transformers
from vitlocal.models.attention import (
    Attention,
    ClippedSoftmax,
    Gated,
    MakeAttention,
    Softmax,
    Tap,
    attention_weights,
    explicit_attention,
)
from vitlocal.models.factory import MakeNetwork, make_network, network_settings
from vitlocal.models.vit import VisionTransformer

__all__ = [
    "Attention",
    "ClippedSoftmax",
    "Gated",
    "MakeAttention",
    "MakeNetwork",
    "Softmax",
    "Tap",
    "Timm",
    "Torchvision",
    "Transformers",
    "VisionTransformer",
    "attention_weights",
    "explicit_attention",
    "make_network",
    "network_settings",
]
