"""Plain networks: the Vision Transformer, others, and their attention. Nothing here knows of Lightning."""

from vitlocal.models.adapters import Timm, Torchvision, Transformers
from vitlocal.models.attention import (
    Attention,
    Causal,
    ClippedSoftmax,
    Gated,
    MakeAttention,
    RandomWalk,
    Softmax,
    Subtree,
    Tap,
    attention_weights,
    explicit_attention,
)
from vitlocal.models.decoder import Decoder, MakeDecoder
from vitlocal.models.factory import MakeNetwork, make_network, network_settings
from vitlocal.models.generation import generate
from vitlocal.models.nodes import GAT, GCN, STAGNN, MakeNodeNetwork
from vitlocal.models.vit import VisionTransformer

__all__ = [
    "GAT",
    "GCN",
    "STAGNN",
    "Attention",
    "Causal",
    "ClippedSoftmax",
    "Decoder",
    "Gated",
    "MakeAttention",
    "MakeDecoder",
    "MakeNetwork",
    "MakeNodeNetwork",
    "RandomWalk",
    "Softmax",
    "Subtree",
    "Tap",
    "Timm",
    "Torchvision",
    "Transformers",
    "VisionTransformer",
    "attention_weights",
    "explicit_attention",
    "generate",
    "make_network",
    "network_settings",
]
