"""Attention rollout: how much of each input token reaches each output token.

Abnar & Zuidema 2020, arXiv 2005.00928, section 3.
"""

from torch import Tensor


def rollout_step(attention: Tensor, below: Tensor | None = None, residual: float = 0.5) -> Tensor:
    """Put one layer on top of the rollout of the layers below it.

    Args:
        attention: the layer's probabilities (B, H, N, N).
        below: rollout (B, N, N) of the layers below; None for the first layer.
        residual: share of the residual connection, which hands every token on to itself.

    Returns:
        (B, N, N) float32: ((1 - residual) mean over heads + residual I) times ``below``. Row i is what output
        token i is made of, over the input tokens. Where the rows of all layers sum to 1, so do these.
    """
    mixed = attention.float().mean(1).mul_(1 - residual)
    mixed.diagonal(dim1=-2, dim2=-1).add_(residual)
    return mixed if below is None else mixed @ below
