"""Multi-head self-attention that can also say what it attends to."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHORT = 128
"""Tokens up to which plain matrix products are the fastest way to train in bfloat16 on a CPU."""


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Mix the values by softmax attention, in the fastest way for the device: all (B, H, N, D / H)."""
    if query.device.type != "cpu" or query.dtype != torch.bfloat16 or not query.requires_grad:
        return F.scaled_dot_product_attention(query, key, value)
    # PyTorch's fused attention takes far longer for its backward pass in bfloat16 than in float32.
    with torch.autocast("cpu", enabled=False):
        if query.shape[-2] > SHORT:
            mixed = F.scaled_dot_product_attention(query.float(), key.float(), value.float())
            return mixed.to(value.dtype)
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        return scores.softmax(dim=-1) @ value


class Attention(nn.Module):
    """Softmax self-attention (Vaswani et al. 2017), with timm's parameter names.

    Args:
        width: features of a token; a multiple of ``heads``.
        heads: number of attention heads.
        dropout: dropout on the output projection. There is none on the weights, so that
            :meth:`probabilities` are the ones that :meth:`forward` applies, in training too.
        qkv_bias: whether queries, keys and values have a bias.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0, qkv_bias: bool = True) -> None:
        super().__init__()
        self.num_heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(dropout)

    def _split(self, qkv: Tensor) -> Tensor:
        """The output of ``qkv``, (B, N, 3 D), as query, key and value: (3, B, H, N, D / H)."""
        return qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, N, D) to tokens (B, N, D)."""
        return self.proj_drop(self.proj(self._mix(x).flatten(2)))

    def _mix(self, x: Tensor) -> Tensor:
        """What each head hands to the output projection: (B, N, D) to (B, N, H, D / H)."""
        return attend(*self._split(self.qkv(x))).transpose(1, 2)

    def probabilities(self, x: Tensor) -> Tensor:
        """The weights that :meth:`forward` applies to the same tokens (B, N, D).

        Returns:
            (B, H, N, N) float32; each row, one query's weights over the keys, sums to 1.
        """
        return self.weights(self.qkv(x))

    def weights(self, qkv: Tensor) -> Tensor:
        """The same from the output of the layer ``qkv``, (B, N, 3 D), without gradients."""
        # Fused attention sums in float32 whatever comes in: a score in bfloat16 would be coarser.
        with torch.no_grad(), torch.autocast(qkv.device.type, enabled=False):
            query, key = self._split(qkv)[:2].float().contiguous()  # in one copy
            scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
            # Softmax in place: no second matrix, and on a CPU faster than torch.softmax for short rows.
            scores -= scores.amax(-1, keepdim=True)
            scores.exp_()
            scores *= scores.sum(-1, keepdim=True).reciprocal()
        return scores
