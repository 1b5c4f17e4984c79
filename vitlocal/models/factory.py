"""Which attention a ViT has: its options, checked."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, get_args

from vitlocal.errors import InputError
from vitlocal.models.attention import Attention, ClippedSoftmax, Gated, GateKind, Softmax

AttentionKind = Literal["softmax", "clipped_softmax", "gated"]

OPTIONS: dict[str, tuple[AttentionKind, Any]] = {
    "clip_gamma": ("clipped_softmax", None),
    "clip_alpha": ("clipped_softmax", None),
    "clip_zeta": ("clipped_softmax", 1.0),
    "gate": ("gated", "linear"),
    "gate_pi_init": ("gated", 0.5),
    "gate_hidden": ("gated", 4),
}
"""For each option, the attention that has it and its default."""

CLIP_ALPHA = 0.5
"""Alpha of clipped softmax where neither alpha nor gamma is given.

Where zeta is 1, weights below alpha / (tokens + alpha) are cut. From about 1 that would be uniform attention,
1 / tokens each, as a whole, and with it every gradient of queries, keys and values of an untrained ViT. The
paper's ViT of 197 tokens has gammas of -0.0001 and -0.003, alphas of 0.02 and 0.6; the 2 to 4 that the paper
recommends are for BERT.
"""

LARGEST_HIDDEN = 2**16


def attention_maker(
    attention: AttentionKind,
    width: int,
    heads: int,
    tokens: int,
    dropout: float,
    qkv_bias: bool,
    options: Mapping[str, Any],
) -> Callable[[], Attention]:
    """What makes the attention module of one layer.

    Args:
        attention: which attention.
        width: features of a token; a multiple of ``heads``.
        heads: number of attention heads.
        tokens: length of the sequence, class token included.
        dropout: dropout on the output projection.
        qkv_bias: whether queries, keys and values have a bias.
        options: a value for each name in ``OPTIONS``.

    Raises:
        InputError: a value out of its range, or one for another attention than the chosen one.
    """
    if attention not in get_args(AttentionKind):
        raise InputError(
            f"attention is {attention!r}: it must be one of {', '.join(get_args(AttentionKind))}"
        )
    for name, (kind, default) in OPTIONS.items():
        if kind != attention and options[name] != default:
            raise InputError(
                f"{name} is {options[name]} but attention is {attention}: "
                f"give attention={kind}, or leave {name} out"
            )
    sizes: dict[str, Any] = {"dim": width, "num_heads": heads, "qkv_bias": qkv_bias, "proj_drop": dropout}
    if attention == "clipped_softmax":
        gamma = _gamma(options["clip_gamma"], options["clip_alpha"], tokens)
        zeta = options["clip_zeta"]
        if not 1 <= zeta < math.inf:
            raise InputError(f"clip_zeta is {zeta}: it must be a number of 1 or more")
        return partial(ClippedSoftmax, **sizes, gamma=gamma, zeta=zeta)
    if attention == "gated":
        gates = {name: options[name] for name, (kind, _) in OPTIONS.items() if kind == "gated"}
        _check_gate(**gates)
        return partial(Gated, **sizes, **gates)
    return partial(Softmax, **sizes)


def _gamma(gamma: float | None, alpha: float | None, tokens: int) -> float:
    if gamma is not None and alpha is not None:
        raise InputError(
            f"clip_gamma is {gamma} and clip_alpha is {alpha}: give one of them, "
            "gamma is -alpha over the number of tokens"
        )
    if gamma is None:
        alpha = CLIP_ALPHA if alpha is None else alpha
        if not 0 <= alpha <= tokens:
            raise InputError(f"clip_alpha is {alpha}: it must be from 0 to the number of tokens, {tokens}")
        return -alpha / tokens  # cuts alike at any length: section 4.1 of the paper
    if not -1 <= gamma <= 0:
        raise InputError(f"clip_gamma is {gamma}: it must be from -1 to 0")
    return gamma


def _check_gate(gate: str, gate_pi_init: float, gate_hidden: int) -> None:
    if gate not in get_args(GateKind):
        raise InputError(f"gate is {gate!r}: it must be one of {', '.join(get_args(GateKind))}")
    if not 0 < gate_pi_init < 1:
        raise InputError(f"gate_pi_init is {gate_pi_init}: it must be above 0 and below 1")
    if not 1 <= gate_hidden <= LARGEST_HIDDEN:
        raise InputError(f"gate_hidden is {gate_hidden}: it must be from 1 to {LARGEST_HIDDEN}")
    if gate != "mlp" and gate_hidden != OPTIONS["gate_hidden"][1]:
        raise InputError(
            f"gate_hidden is {gate_hidden} but gate is {gate}: give gate=mlp, or leave gate_hidden out"
        )
