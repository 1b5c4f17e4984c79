"""Attention whose small weights are exactly 0 (Bondarenko et al. 2023, arXiv 2306.12929)."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vitlocal.errors import InputError
from vitlocal.internals import clamp_backward, softmax_backward
from vitlocal.models.attention.base import softmax
from vitlocal.models.attention.softmax import SHORT, Softmax

ALPHA = 0.5
"""Where neither alpha nor gamma is given.

Where zeta is 1, weights below alpha / (tokens + alpha) are cut. From about 1 that would be uniform attention,
1 / tokens each, as a whole, and with it every gradient of queries, keys and values of an untrained ViT. The
paper's ViT of 197 tokens has gammas of -0.0001 and -0.003, alphas of 0.02 and 0.6; the 2 to 4 that the paper
recommends are for BERT.
"""

CHUNK_ELEMENTS = 2**20
"""Most weights that are made at a time on a CPU, so that they stay in its cache: 4 MiB in float32."""


class ClippedSoftmax(Softmax):
    """Self-attention with weights clip((zeta - gamma) softmax(s) + gamma, 0, 1), equation 4 of the paper.

    Softmax needs ever larger scores to bring a weight near 0; here what would be below
    -gamma / (zeta - gamma) is 0 and gets no gradient. Rows are not renormalised: they sum to 1 or less, and
    with a zeta above 1 to more. Parameters and their names are those of :class:`Softmax`.

    Args:
        dim: features of a token.
        num_heads: number of attention heads.
        head_dim: features of a head; None: ``dim`` over ``num_heads``.
        qkv_bias: whether queries, keys and values have a bias.
        proj_drop: dropout on the output projection.
        alpha: gamma by the number N of tokens, -alpha / N, which cuts alike at any length (section 4.1); 0.5
            where neither is given. From about 1, near-uniform attention, as of an untrained ViT, is cut whole
            and does not learn.
        gamma: -1 to 0: weights below -gamma / (zeta - gamma) are 0; 0 together with ``zeta`` 1 is softmax
            attention.
        zeta: 1 or above; above it, large weights are cut to 1.

    Raises:
        InputError: a value out of its range, or alpha and gamma together.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        head_dim: int | None = None,
        qkv_bias: bool = True,
        proj_drop: float = 0.0,
        *,
        alpha: float | None = None,
        gamma: float | None = None,
        zeta: float = 1.0,
    ) -> None:
        super().__init__(dim, num_heads, head_dim, qkv_bias, proj_drop)
        if gamma is not None and alpha is not None:
            raise InputError(
                f"gamma of ClippedSoftmax is {gamma} and alpha is {alpha}: give one of them, "
                "gamma is -alpha over the number of tokens"
            )
        if gamma is not None and not -1 <= gamma <= 0:
            raise InputError(f"gamma of ClippedSoftmax is {gamma}: it must be from -1 to 0")
        if alpha is not None and not 0 <= alpha < math.inf:
            raise InputError(f"alpha of ClippedSoftmax is {alpha}: it must be a number of 0 or more")
        if not 1 <= zeta < math.inf:
            raise InputError(f"zeta of ClippedSoftmax is {zeta}: it must be a number of 1 or more")
        self.alpha = ALPHA if alpha is None and gamma is None else alpha
        self.gamma, self.zeta = gamma, zeta

    def _clip(self, tokens: int) -> tuple[float, float, float]:
        """``least``, ``most`` and ``stretch``: clipped weights are stretch * clip(p - least, 0, most)."""
        gamma = self.gamma
        if self.alpha is not None:
            if self.alpha > tokens:
                raise InputError(
                    f"alpha of ClippedSoftmax is {self.alpha}: "
                    f"it must be at most the number of tokens, {tokens}"
                )
            gamma = -self.alpha / tokens
        assert gamma is not None
        stretch = self.zeta - gamma
        return -gamma / stretch, 1 / stretch, stretch

    def _mix(self, x: Tensor) -> Tensor:
        qkv, (least, most, stretch) = self.split(self.qkv(x)), self._clip(x.shape[1])
        # Autocast would make softmax's output float32, and with it each (N, N) matrix, on a GPU.
        with torch.autocast(x.device.type, enabled=False):
            if x.device.type == "cpu" and x.shape[1] > SHORT and not torch.compiler.is_compiling():
                pairs = qkv.flatten(1, 2)  # of an image and a head
                mixed = _InChunks.apply(pairs, least, most, stretch)
                return mixed.unflatten(0, (-1, self.num_heads)).transpose(1, 2)
            query, key, value = qkv
            # relu_ keeps its output for the backward pass, as the product does: with softmax's own, that is
            # two matrices in memory. The formula as it stands keeps three, and takes more passes over them.
            clipped = (_softmax(query, key) - least).relu_()
            if self.zeta > 1:  # else nothing is above
                clipped = clipped.clamp(max=most)
            return (clipped @ (value * stretch)).transpose(1, 2)

    def _weigh(self, scores: Tensor) -> Tensor:
        weights, (least, most, stretch) = softmax(scores), self._clip(scores.shape[-1])
        if weights.requires_grad:
            return (weights - least).clamp(0, most) * stretch
        return weights.sub_(least).clamp_(0, most).mul_(stretch)

    def extra_repr(self) -> str:
        """Shown by ``print``."""
        cut = f"gamma={self.gamma:.4g}" if self.alpha is None else f"alpha={self.alpha:.4g}"
        return f"{cut}, zeta={self.zeta:.4g}"


class _InChunks(torch.autograd.Function):
    """Clipped attention of (image, head) pairs, a few at a time; their weights are made again backwards.

    Long rows make matrices that no cache holds: moving them takes longer than making them twice.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu")
    def forward(ctx: Any, qkv: Tensor, least: float, most: float, stretch: float) -> Tensor:
        """Mix the values: (3, P, N, D) to (P, N, D)."""
        ctx.save_for_backward(qkv)
        ctx.clip = least, most, stretch
        mixed = []
        for query, key, value in qkv.split(_pairs(qkv), dim=1):
            weights = _softmax(query, key).sub_(least).clamp_(0, most)
            mixed.append(weights @ (value * stretch))
        return torch.cat(mixed)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    @once_differentiable
    def backward(ctx: Any, towards: Tensor) -> tuple[Tensor, None, None, None]:
        """The gradient of ``qkv``, from that of the output (P, N, D)."""
        (qkv,) = ctx.saved_tensors
        least, most, stretch = ctx.clip
        gradient, size = torch.empty_like(qkv), _pairs(qkv)
        parts = (qkv.split(size, dim=1), gradient.split(size, dim=1), towards.split(size))
        for (query, key, value), (of_query, of_key, of_value), of_output in zip(*parts, strict=True):
            stretched, scale = of_output * stretch, query.shape[-1] ** -0.5
            p = _softmax(query, key)
            weights = (p - least).clamp_(0, most)
            torch.bmm(weights.transpose(1, 2), stretched, out=of_value)
            of_p = stretched @ value.transpose(1, 2)
            # The rules of PyTorch's own hardtanh and softmax, which clip and softmax are here.
            of_p = clamp_backward(of_p, weights, 0, most)
            of_scores = softmax_backward(of_p, p)
            torch.bmm(of_scores, key * scale, out=of_query)
            torch.bmm(of_scores.transpose(1, 2), query * scale, out=of_key)
        return gradient, None, None, None


def _pairs(qkv: Tensor) -> int:
    """How many pairs' weights are made at a time."""
    return max(1, CHUNK_ELEMENTS // qkv.shape[2] ** 2)


def _softmax(query: Tensor, key: Tensor) -> Tensor:
    return ((query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)).softmax(dim=-1)
