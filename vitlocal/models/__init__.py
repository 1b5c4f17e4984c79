"""Plain networks: the Vision Transformer and its attention. Nothing here knows of Lightning."""

from vitlocal.models.adapters import Timm, Torchvision, Transformers
from vitlocal.models.attention import (
    Attention,
    ClippedSoftmax,
    Gated,
    MakeAttention,
    Softmax,
    attention_weights,
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
    "Timm",
    "Torchvision",
    "Transformers",
    "VisionTransformer",
    "attention_weights",
    "make_network",
    "network_settings",
]
