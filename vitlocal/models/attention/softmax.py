"""Softmax self-attention."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlocal.models.attention.base import Attention, Tap, explicit_attention, softmax, tapped

SHORT = 128
"""Tokens up to which plain matrix products are the fastest way to train in bfloat16 on a CPU."""


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Mix the values by softmax attention, in the fastest way for the device: all (B, H, N, D)."""
    if query.device.type != "cpu" or query.dtype != torch.bfloat16 or not query.requires_grad:
        return F.scaled_dot_product_attention(query, key, value)
    # PyTorch's fused attention takes far longer for its backward pass in bfloat16 than in float32.
    with torch.autocast("cpu", enabled=False):
        if query.shape[-2] > SHORT:
            mixed = F.scaled_dot_product_attention(query.float(), key.float(), value.float())
            return mixed.to(value.dtype)
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        return scores.softmax(dim=-1) @ value


class Softmax(Attention):
    """Softmax self-attention (Vaswani et al. 2017), with timm's parameter names.

    Args:
        dim: features C of a token.
        num_heads: number H of attention heads.
        head_dim: features D of a head; None: ``dim`` over ``num_heads``.
        qkv_bias: whether queries, keys and values have a bias.
        proj_drop: dropout on the output projection. There is none on the weights, so that those of
            :meth:`explicit` are the ones that :meth:`forward` applies, in training too.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        head_dim: int | None = None,
        qkv_bias: bool = True,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = dim // num_heads if head_dim is None else head_dim
        inner = self.num_heads * self.head_dim
        self.qkv = nn.Linear(dim, 3 * inner, bias=qkv_bias)
        self.proj = nn.Linear(inner, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, N, C) to tokens (B, N, C)."""
        return self.proj_drop(self.proj(self._mix(x).flatten(2)))

    def _mix(self, x: Tensor) -> Tensor:
        """What each head hands to the output projection: (B, N, C) to (B, N, H, D)."""
        return attend(*self.split(self.qkv(x))).transpose(1, 2)

    def explicit(
        self, x: Tensor, tap: Tap, queries: Tensor | None = None, qkv: Tensor | None = None
    ) -> Tensor:
        """See :meth:`Attention.explicit`."""
        qkv = self.split(self.qkv(x)) if qkv is None else qkv
        bias = self._bias(qkv.shape[-2], qkv)
        context = explicit_attention(qkv, tap, queries, self._weigh, bias=bias)
        if (gates := self._gates(x if queries is None else x[:, queries])) is not None:
            context = context * tapped(tap, "gates", gates)[..., None]
        context = tapped(tap, "context", context.transpose(1, 2).flatten(2))
        return self.proj_drop(self.proj(context))

    def _bias(self, tokens: int, like: Tensor) -> Tensor | None:
        """What is added to the scores of N tokens, (H or 1, N, N) on the device of ``like``, or None."""
        return None

    def _weigh(self, scores: Tensor) -> Tensor:
        """Scores (B, H, Q, N), which it may overwrite, to weights."""
        return softmax(scores)

    def _gates(self, x: Tensor) -> Tensor | None:
        """What multiplies the heads' outputs for tokens (B, Q, C): (B, H, Q), or None."""
        return None
