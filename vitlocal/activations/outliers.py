"""Outliers in activations, and heads that do nothing: pure functions, and their Metrics.

Both are of "Quantizable Transformers: Removing Outliers by Helping Attention Heads Do Nothing"
(Bondarenko et al. 2023, arXiv 2306.12929). Activations are ``x`` (B, N, D): of each image the N tokens,
prefix tokens first, with D features. An image's own N * D values are taken for its activation tensor, of
which mean and standard deviation are; so nothing depends on which images are in a batch with it.
"""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitlocal.internals import exact_products
from vitlocal.observing.metrics import ImageMean

DEVIATIONS = 6.0
"""Standard deviations from the mean beyond which the paper (section 3) calls a value an outlier."""

HEAD_STATISTICS = ("do_nothing", "update")

SMALL_VALUE = 0.5
"""A key has a small value vector if its norm is below this share of the mean norm of the head's keys."""


def infinity_norm(x: Tensor) -> Tensor:
    """Largest absolute value of each image: (B, N, D) to (B,).

    >>> infinity_norm(torch.tensor([[[1.0, -3.0], [2.0, 0.0]]]))
    tensor([3.])
    """
    x = x.float()
    return torch.maximum(x.amax((1, 2)), -x.amin((1, 2)))


def kurtosis(x: Tensor) -> Tensor:
    """Kurtosis of each image's values, mean((x - mean)^4) / (s^4 + 1e-6): (B, N, D) to (B,).

    As in the paper's code: s is the unbiased standard deviation, and 3 is not taken off, so that a normal
    distribution has 3.

    >>> round(kurtosis(torch.tensor([[[-1.0, 1.0], [-1.0, 1.0]]])).item(), 4)  # s^2 is 4 / 3
    0.5625
    """
    return _kurtosis(*_spread(x))


def outlier_mask(x: Tensor, deviations: float = DEVIATIONS) -> Tensor:
    """Which values lie more than ``deviations`` standard deviations (unbiased) from their image's mean.

    Returns:
        bool (B, N, D).
    """
    return _beyond(*_spread(x), deviations)


def _spread(x: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances from the image's mean, float (B, N, D), and the unbiased variance (B,)."""
    x = x if x.dtype == torch.float64 else x.float()
    squares = (x - x.mean((1, 2), keepdim=True)).square_()
    return squares, squares.sum((1, 2)) / (x[0].numel() - 1 if len(x) else 1)


def _kurtosis(squares: Tensor, variance: Tensor) -> Tensor:
    return squares.square().mean((1, 2)) / (variance.square() + 1e-6)


def _beyond(squares: Tensor, variance: Tensor, deviations: float) -> Tensor:
    return squares > deviations**2 * variance[:, None, None]


class OutputStatistics(NamedTuple):
    """Of one output of a layer, means over images.

    Attributes:
        inf_norm: infinity norm.
        kurtosis: see :func:`kurtosis`.
        by_dimension: (D,) outliers in each hidden dimension.
        by_position: (N,) outliers in each token.
    """

    inf_norm: Tensor
    kurtosis: Tensor
    by_dimension: Tensor
    by_position: Tensor


def _of_output(x: Tensor, deviations: float) -> Tensor:
    """One row an image, in the order of ``OutputStatistics``."""
    spread = _spread(x)
    beyond = _beyond(*spread, deviations).float()
    scalars = torch.stack([infinity_norm(x), _kurtosis(*spread)], dim=1)
    return torch.cat([scalars, beyond.sum(1), beyond.sum(2)], dim=1)


class OutputOutliers(ImageMean):
    """Infinity norm, kurtosis and outliers of activations (B, N, D), without keeping any of them.

    Args:
        tokens: N.
        width: D.
        deviations: see :func:`outlier_mask`.
        kwargs: torchmetrics' own arguments.

    >>> metric = OutputOutliers(tokens=5, width=10)
    >>> x = torch.zeros(1, 5, 10)
    >>> x[0, 2, 7] = 20.0
    >>> metric.update(x)
    >>> metric.compute().by_dimension
    tensor([0., 0., 0., 0., 0., 0., 0., 1., 0., 0.], dtype=torch.float64)
    """

    def __init__(self, tokens: int, width: int, deviations: float = DEVIATIONS, **kwargs: Any) -> None:
        super().__init__((2 + width + tokens,), partial(_of_output, deviations=deviations), **kwargs)
        self.tokens, self.width = tokens, width

    def compute(self) -> OutputStatistics:
        """Means over the images of all processes; NaN without any."""
        scalars, by_dimension, by_position = super().compute().split([2, self.width, self.tokens])
        return OutputStatistics(scalars[0], scalars[1], by_dimension, by_position)


def nothing_share(
    attention: Tensor, values: Tensor, gates: Tensor | None = None, small_value: float = SMALL_VALUE
) -> Tensor:
    """The share of each head's attention that brings nothing to the tokens.

    That is 1 - g_i sum_j a_ij, where j goes over the keys whose value vectors are not small, averaged over
    the queries i: for softmax, the weight on keys with small values; what clipping or a gate takes away
    counts as nothing too. A value vector is small if its norm is below ``small_value`` times the mean norm
    of the head's value vectors in that image. Below 0, which zeta > 1 allows, it counts as 0.

    Args:
        attention: (B, H, N, N), the weights of the values before a gate.
        values: (B, H, N, D / H).
        gates: (B, H, N), for each query; None: there are none.
        small_value: see above; 0.5 by default. The paper names no threshold: it reports mean magnitudes of
            about 0.5 against 2 to 2.5 elsewhere.

    Returns:
        (B, H), from 0 to 1.

    >>> values = torch.tensor([[[[2.0], [0.1]]]])
    >>> nothing_share(torch.tensor([[[[0.2, 0.8], [0.4, 0.6]]]]), values)
    tensor([[0.7000]])
    """
    norms = torch.linalg.vector_norm(values.float(), dim=-1)
    counted = norms >= small_value * norms.mean(-1, keepdim=True)
    with exact_products(attention.device):
        weight = (attention.float() @ counted.float()[..., None]).squeeze(-1)
    if gates is not None:
        weight = weight * gates.float()
    return (1 - weight).clamp(min=0).mean(-1)


def update_norm(context: Tensor, projection: Tensor, num_heads: int) -> Tensor:
    """Norm of what each head adds to a token, |c_i W_h|, the mean over tokens i.

    The bias of the projection belongs to no head and is left out.

    Args:
        context: (B, N, H D), what the heads hand to the output projection, head after head.
        projection: (C, H D), the output projection's weight.
        num_heads: H.

    Returns:
        (B, H), in the units of the tokens.
    """
    of_heads = projection.float().unflatten(1, (num_heads, -1)).transpose(0, 1)  # W_h transposed
    with exact_products(context.device):
        # W_h = R^T Q^T, and Q^T keeps norms: as many numbers a token as the head has features, not C.
        triangles = torch.linalg.qr(of_heads, mode="r").R.mT
        mixed = context.float().unflatten(-1, (num_heads, -1)).transpose(1, 2)
        return torch.linalg.vector_norm(mixed @ triangles, dim=-1).mean(-1)


def _of_heads(
    attention: Tensor,
    values: Tensor,
    context: Tensor,
    projection: Tensor,
    residual: Tensor,
    gates: Tensor | None = None,
    small_value: float = SMALL_VALUE,
) -> Tensor:
    """Share of nothing and relative update, (B, 2, H)."""
    share = nothing_share(attention, values, gates, small_value)
    return torch.stack([share, update_norm(context, projection, values.shape[1]) / residual[:, None]], dim=1)


class IdleHeads(ImageMean):
    """What tells that heads do nothing: :func:`nothing_share`, and :func:`update_norm` over the stream's.

    It is updated with (attention, values, context, projection, residual[, gates]): ``residual`` (B,) is the
    mean norm of the tokens that the layer adds to, the rest as in those functions.

    Args:
        num_heads: H.
        small_value: see :func:`nothing_share`.
        kwargs: torchmetrics' own arguments.
    """

    def __init__(self, num_heads: int, small_value: float = SMALL_VALUE, **kwargs: Any) -> None:
        super().__init__((2, num_heads), partial(_of_heads, small_value=small_value), **kwargs)

    def compute(self) -> dict[str, Tensor]:
        """``do_nothing`` and ``update``, means over the images of all processes, (H,) each."""
        return dict(zip(HEAD_STATISTICS, super().compute(), strict=True))
