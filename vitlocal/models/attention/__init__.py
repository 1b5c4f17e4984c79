"""Kinds of self-attention, one file a kind, on one base."""

from vitlocal.models.attention.base import (
    Attention,
    Enough,
    MakeAttention,
    Tap,
    attention_weights,
    explicit_attention,
    num_maps,
)
from vitlocal.models.attention.causal import Causal
from vitlocal.models.attention.clipped_softmax import ClippedSoftmax
from vitlocal.models.attention.gated import Gated, GateKind
from vitlocal.models.attention.softmax import Softmax
from vitlocal.models.attention.subtree import Combine, HopGates, Subtree
from vitlocal.models.attention.walk import Neighbours, RandomWalk

__all__ = [
    "Attention",
    "Causal",
    "ClippedSoftmax",
    "Combine",
    "Enough",
    "GateKind",
    "Gated",
    "HopGates",
    "MakeAttention",
    "Neighbours",
    "RandomWalk",
    "Softmax",
    "Subtree",
    "Tap",
    "attention_weights",
    "explicit_attention",
    "num_maps",
]
