"""Attention whose small weights are exactly 0 (Bondarenko et al. 2023, arXiv 2306.12929)."""

import torch
from torch import Tensor

from vitlocal.models.attention import Attention


class ClippedSoftmaxAttention(Attention):
    """Self-attention with weights clip((zeta - gamma) softmax(s) + gamma, 0, 1), equation 4 of the paper.

    Softmax needs ever larger scores to bring a weight near 0; here what would be below
    -gamma / (zeta - gamma) is 0 and gets no gradient. Rows are not renormalised: they sum to 1 or less, and
    with a zeta above 1 to more. Parameters and their names are those of :class:`Attention`.

    Args:
        width: features of a token; a multiple of ``heads``.
        heads: number of attention heads.
        dropout: dropout on the output projection.
        gamma: 0 or below; 0 together with ``zeta`` 1 is softmax attention.
        zeta: 1 or above; above it, large weights are cut to 1.
    """

    def __init__(
        self, width: int, heads: int, dropout: float = 0.0, *, gamma: float, zeta: float = 1.0
    ) -> None:
        super().__init__(width, heads, dropout)
        self.gamma, self.zeta = gamma, zeta
        # The clipped weights are (zeta - gamma) clip(p - least, 0, most).
        self._stretch = zeta - gamma
        self._least, self._most = -gamma / self._stretch, 1 / self._stretch

    def _mix(self, x: Tensor) -> Tensor:
        query, key, value = self._split(self.qkv(x))
        # Autocast would make softmax's output float32, and with it each (N, N) matrix, on a GPU.
        with torch.autocast(x.device.type, enabled=False):
            scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
            # relu_ keeps its output for the backward pass, as the product does: with softmax's own, that is
            # two matrices in memory. The formula as it stands keeps three, and takes more passes over them.
            clipped = (scores.softmax(dim=-1) - self._least).relu_()
            if self.zeta > 1:  # else nothing is above
                clipped = clipped.clamp(max=self._most)
            return (clipped @ (value * self._stretch)).transpose(1, 2)

    def weights(self, qkv: Tensor) -> Tensor:
        """The weights that :meth:`forward` applies, from the output of ``qkv``, without gradients.

        Args:
            qkv: (B, N, 3 D).

        Returns:
            (B, H, N, N) float32 from 0 to 1, with exact zeros.
        """
        return super().weights(qkv).sub_(self._least).clamp_(0, self._most).mul_(self._stretch)

    def extra_repr(self) -> str:
        """Shown by ``print``."""
        return f"gamma={self.gamma:.4g}, zeta={self.zeta:.4g}"
