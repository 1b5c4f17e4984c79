"""Kinds of self-attention, one file a kind, on one base."""

from vitlocal.models.attention.base import (
    Attention,
    Enough,
    MakeAttention,
    Tap,
    attention_weights,
    explicit_attention,
)
from vitlocal.models.attention.clipped_softmax import ClippedSoftmax
from vitlocal.models.attention.gated import Gated, GateKind
from vitlocal.models.attention.softmax import Softmax

__all__ = [
    "Attention",
    "ClippedSoftmax",
    "Enough",
    "GateKind",
    "Gated",
    "MakeAttention",
    "Softmax",
    "Tap",
    "attention_weights",
    "explicit_attention",
]
