"""Multi-head self-attention that can also say what it attends to."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Softmax self-attention (Vaswani et al. 2017), with timm's parameter names.

    Args:
        width: features of a token; a multiple of ``heads``.
        heads: number of attention heads.
        dropout: dropout on the output projection. There is none on the weights, so that
            :meth:`probabilities` are the ones that :meth:`forward` applies, in training too.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(dropout)

    def _query_key_value(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, N, D) to query, key and value, each (B, H, N, D / H)."""
        batch, tokens, width = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.num_heads, width // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, value

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, N, D) to tokens (B, N, D), by fused attention: the weights are never formed."""
        mixed = F.scaled_dot_product_attention(*self._query_key_value(x))
        return self.proj_drop(self.proj(mixed.transpose(1, 2).flatten(2)))

    def probabilities(self, x: Tensor) -> Tensor:
        """The weights that :meth:`forward` applies to the same tokens (B, N, D).

        Returns:
            (B, H, N, N) float32; each row, one query's weights over the keys, sums to 1.
        """
        query, key, _ = self._query_key_value(x)
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        return torch.softmax(scores, dim=-1, dtype=torch.float32)
