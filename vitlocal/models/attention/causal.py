"""Softmax attention to the tokens before and the token itself."""

import torch
import torch.nn.functional as F
from torch import Tensor

from vitlocal.models.attention.base import softmax
from vitlocal.models.attention.softmax import Softmax


class Causal(Softmax):
    """Softmax self-attention whose queries see themselves and what comes before them.

    Args:
        dim: features C of a token.
        num_heads: number H of attention heads.
        head_dim: features D of a head; None: ``dim`` over ``num_heads``.
        qkv_bias: whether queries, keys and values have a bias.
        proj_drop: dropout on the output projection.
        attn_drop: dropout on the weights; those that :meth:`explicit` shows are what is left of them.
        alibi: scores fall with the distance to the key, by 2^(-8h/H) a token in head h = 1, ..., H, in the
            place of positions (Press et al. 2022, arXiv 2108.12409).
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        head_dim: int | None = None,
        qkv_bias: bool = True,
        proj_drop: float = 0.0,
        attn_drop: float = 0.0,
        alibi: bool = False,
    ) -> None:
        super().__init__(dim, num_heads, head_dim, qkv_bias, proj_drop)
        self.attn_drop = attn_drop
        self.alibi = alibi
        self.heads_of_slopes = num_heads

    def step(self, x: Tensor, keys: Tensor, values: Tensor, first: int) -> Tensor:
        """The output for further tokens, from what is kept of those before them; without dropout.

        Args:
            x: tokens (B, n, C).
            keys: (B, H, N, D), of which the first ``first`` are known; those of ``x`` are put after them.
            values: the same.
            first: how many tokens come before.

        Returns:
            (B, n, C).
        """
        last = first + x.shape[1]
        query, keys[:, :, first:last], values[:, :, first:last] = self.split(self.qkv(x))
        bias = self._bias(last, x)[..., first:, :].to(query.dtype)
        mixed = F.scaled_dot_product_attention(query, keys[:, :, :last], values[:, :, :last], bias)
        return self.proj(mixed.transpose(1, 2).flatten(2))

    def _mix(self, x: Tensor) -> Tensor:
        query, key, value = self.split(self.qkv(x))
        bias = self._bias(x.shape[1], x).to(query.dtype) if self.alibi else None
        mixed = F.scaled_dot_product_attention(
            query, key, value, bias, self.attn_drop if self.training else 0.0, is_causal=bias is None
        )
        return mixed.transpose(1, 2)

    def _bias(self, tokens: int, like: Tensor) -> Tensor:
        """What is added to the scores, float32 (H or 1, N, N): minus infinity where a key comes later."""
        places = torch.arange(tokens, device=like.device)
        behind = (places[:, None] - places).float()
        bias = torch.zeros_like(behind)[None]
        if self.alibi:
            # By what they were numbered before any were cut out.
            heads = torch.tensor(self.head_numbers, device=like.device) + 1
            slopes = torch.exp2(-8 * heads / self.heads_of_slopes)
            bias = -slopes[:, None, None] * behind
        return bias.masked_fill(behind < 0, -torch.inf)

    def _weigh(self, scores: Tensor) -> Tensor:
        return F.dropout(softmax(scores), self.attn_drop, self.training)
