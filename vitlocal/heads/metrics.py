"""Attention statistics as torchmetrics Metrics: means over images, head by head.

Each is updated with the attention probabilities (B, H, N, N) of a batch, keeps sums in float64, and
adds them up over processes. Definitions are those of the functions of the same names in
:mod:`vitlocal.heads.functional`. Arguments are the number of heads, the :class:`~vitlocal.geometry.Geometry`
of the tokens, and torchmetrics' own.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from vitlocal.geometry import Geometry
from vitlocal.heads import functional
from vitlocal.models.attention import attention_weights
from vitlocal.observing.metrics import ImageMean


class _HeadMean(ImageMean):
    """One number a head, or several."""

    statistic: ClassVar[Callable[..., Tensor]]
    leading_shape: ClassVar[tuple[int, ...]] = ()

    def __init__(self, num_heads: int, geometry: Geometry, **kwargs: Any) -> None:
        function = partial(type(self).statistic, geometry=geometry)
        super().__init__((*self.leading_shape, num_heads), function, **kwargs)


class MeanAttentionDistance(_HeadMean):
    """Mean attention distance (MAD): how far from itself a query looks, on average over queries and images.

    Args:
        num_heads: H.
        geometry: where the N tokens are, and the unit of distances.
        kwargs: torchmetrics' own arguments.

    ``update`` takes the attention probabilities of a batch, (B, H, N, N); ``compute`` gives their mean over
    patch queries and images: float64 (H,), in the geometry's unit; 0 where each query looks at itself.
    ``geometry.uniform()`` has the value of attention that looks everywhere.

    >>> from vitlocal.geometry import Grid
    >>> metric = MeanAttentionDistance(num_heads=1, geometry=Grid(8, 8))
    >>> metric.update(torch.full((2, 1, 64, 64), 1 / 64))
    >>> round(metric.compute().item(), 3)
    0.418
    """

    statistic = staticmethod(functional.mean_attention_distance)


class MeanAttentionDistanceWithoutSelf(_HeadMean):
    """MAD over the keys other than the query's own patch.

    Args:
        num_heads: H.
        geometry: where the N tokens are, and the unit of distances.
        kwargs: torchmetrics' own arguments.

    ``update`` takes the attention probabilities of a batch, (B, H, N, N); ``compute`` gives their mean over
    patch queries and images: float64 (H,), in the geometry's unit.

    >>> from vitlocal.geometry import Grid
    >>> metric = MeanAttentionDistanceWithoutSelf(num_heads=1, geometry=Grid(1, 2, unit="patches"))
    >>> metric.update(torch.tensor([[[[0.9, 0.1], [0.2, 0.8]]]]))
    >>> metric.compute().item()
    1.0
    """

    statistic = staticmethod(functional.mean_attention_distance_without_self)


class RawMeanAttentionDistance(_HeadMean):
    """MAD of the weights as they are, the class token at distance 0, as public code has it.

    Args:
        num_heads: H.
        geometry: where the N tokens are, and the unit of distances.
        kwargs: torchmetrics' own arguments.

    ``update`` takes the attention probabilities of a batch, (B, H, N, N); ``compute`` gives their mean over
    patch queries and images: float64 (H,), in the geometry's unit.

    >>> from vitlocal.geometry import Grid
    >>> metric = RawMeanAttentionDistance(num_heads=1, geometry=Grid(1, 2, num_prefix_tokens=1))
    >>> metric.update(torch.full((1, 1, 3, 3), 1 / 3))
    >>> round(metric.compute().item(), 3)
    0.333
    """

    statistic = staticmethod(functional.raw_mean_attention_distance)


class NormalizedEntropy(_HeadMean):
    """Entropy of the rows over its largest value.

    Args:
        num_heads: H.
        geometry: where the N tokens are, and the unit of distances.
        kwargs: torchmetrics' own arguments.

    ``update`` takes the attention probabilities of a batch, (B, H, N, N); ``compute`` gives their mean over
    patch queries and images: float64 (H,), from 0 (one key) to 1 (all visible keys alike).

    >>> from vitlocal.geometry import Sequence
    >>> metric = NormalizedEntropy(num_heads=1, geometry=Sequence(4))
    >>> metric.update(torch.full((2, 1, 4, 4), 0.25))
    >>> metric.compute().item()
    1.0
    """

    statistic = staticmethod(functional.normalized_entropy)


class SelfMass(_HeadMean):
    """Weight on the query's own patch.

    Args:
        num_heads: H.
        geometry: where the N tokens are, and the unit of distances.
        kwargs: torchmetrics' own arguments.

    ``update`` takes the attention probabilities of a batch, (B, H, N, N); ``compute`` gives their mean over
    patch queries and images: float64 (H,), 0 to 1.

    >>> from vitlocal.geometry import Grid
    >>> metric = SelfMass(num_heads=1, geometry=Grid(2, 2))
    >>> metric.update(torch.eye(4)[None, None])
    >>> metric.compute().item()
    1.0
    """

    statistic = staticmethod(functional.self_mass)


class WindowMass(_HeadMean):
    """Weight within one step of the query's own patch.

    Args:
        num_heads: H.
        geometry: where the N tokens are, and the unit of distances.
        kwargs: torchmetrics' own arguments.

    ``update`` takes the attention probabilities of a batch, (B, H, N, N); ``compute`` gives their mean over
    patch queries and images: float64 (H,), 0 to 1.

    >>> from vitlocal.geometry import Grid
    >>> metric = WindowMass(num_heads=1, geometry=Grid(1, 3))
    >>> metric.update(torch.full((2, 1, 3, 3), 1 / 3))
    >>> round(metric.compute().item(), 3)
    0.778
    """

    statistic = staticmethod(functional.window_mass)


class SelfLogOdds(_HeadMean):
    """Log-odds of the weight on the query's own patch over those of uniform attention.

    Args:
        num_heads: H.
        geometry: where the N tokens are, and the unit of distances.
        kwargs: torchmetrics' own arguments.

    ``update`` takes the attention probabilities of a batch, (B, H, N, N); ``compute`` gives their mean over
    patch queries and images: float64 (H,), in nats; 0 for uniform attention.

    >>> from vitlocal.geometry import Grid
    >>> metric = SelfLogOdds(num_heads=1, geometry=Grid(1, 2))
    >>> metric.update(torch.tensor([[[[0.9, 0.1], [0.5, 0.5]]]]))
    >>> round(metric.compute().item(), 3)
    1.099
    """

    statistic = staticmethod(functional.self_log_odds)


class ClassLogOdds(_HeadMean):
    """Log-odds of the weight on the class token over those of uniform attention.

    Args:
        num_heads: H.
        geometry: where the N tokens are, and the unit of distances.
        kwargs: torchmetrics' own arguments.

    ``update`` takes the attention probabilities of a batch, (B, H, N, N); ``compute`` gives their mean over
    patch queries and images: float64 (H,), in nats; 0 for uniform attention.

    >>> from vitlocal.geometry import Grid
    >>> metric = ClassLogOdds(num_heads=1, geometry=Grid(2, 2, num_prefix_tokens=1))
    >>> metric.update(torch.full((2, 1, 5, 5), 0.2))
    >>> round(abs(metric.compute().item()), 3)
    0.0
    """

    statistic = staticmethod(functional.class_log_odds)


class ClassTokenMass(_HeadMean):
    """Weight that patch queries put on the class token.

    Args:
        num_heads: H.
        geometry: where the N tokens are, and the unit of distances.
        kwargs: torchmetrics' own arguments.

    ``update`` takes the attention probabilities of a batch, (B, H, N, N); ``compute`` gives their mean over
    patch queries and images: float64 (H,), 0 to 1.

    >>> from vitlocal.geometry import Grid
    >>> metric = ClassTokenMass(num_heads=1, geometry=Grid(2, 2, num_prefix_tokens=1))
    >>> metric.update(torch.full((2, 1, 5, 5), 0.2))
    >>> round(metric.compute().item(), 3)
    0.2
    """

    statistic = staticmethod(functional.class_token_mass)


def _stacked_statistics(attention: Tensor, geometry: Geometry) -> Tensor:
    """All statistics as one tensor (B, S, H), in the order of ``STATISTICS``."""
    return torch.stack(list(functional.head_statistics(attention, geometry).values()), dim=1)


class HeadStatistics(_HeadMean):
    """All statistics of one layer's heads, from one pass over the probabilities.

    Args:
        num_heads: H.
        geometry: where the N tokens are, and the unit of distances.
        kwargs: torchmetrics' own arguments.

    ``update`` takes the attention probabilities of a batch, (B, H, N, N); ``compute`` gives their mean over
    patch queries and images: a dict from each name in ``STATISTICS`` to float64 (H,).

    >>> from vitlocal.geometry import Grid
    >>> metric = HeadStatistics(num_heads=1, geometry=Grid(2, 2))
    >>> metric.update(torch.eye(4)[None, None])
    >>> {name: value.item() for name, value in metric.compute().items() if name.endswith("mass")}
    {'self_mass': 1.0, 'class_mass': 0.0, 'window_mass': 1.0}
    """

    statistic = staticmethod(_stacked_statistics)
    leading_shape = (len(functional.STATISTICS),)

    def compute(self) -> dict[str, Tensor]:
        """For each name in ``STATISTICS``, the mean over the images of all processes, (H,)."""
        return dict(zip(functional.STATISTICS, super().compute(), strict=True))


class PositionOnly(ImageMean):
    """What a head would attend to by position alone: queries and keys averaged over images at each position.

    It is updated with queries, keys and values (3, B, H, N, D) of an attention module instead of weights.

    Args:
        attention: the module; see :func:`vitlocal.heads.find_attention`.
        geometry: of the N tokens.

    ``update`` takes queries, keys and values of a batch, (3, B, H, N, D); ``compute`` gives a dict from
    ``position_mad`` and ``position_self_mass`` to (H,).

    >>> from vitlocal.geometry import Grid
    >>> from vitlocal.models import Softmax
    >>> attention = Softmax(8, num_heads=2)
    >>> metric = PositionOnly(attention, Grid(2, 2))
    >>> metric.update(torch.zeros(3, 5, 2, 4, 4))
    >>> metric.compute()["position_self_mass"].tolist()  # all keys alike
    [0.25, 0.25]
    """

    def __init__(self, attention: Any, geometry: Geometry) -> None:
        shape = (3, attention.num_heads, geometry.num_tokens, attention.head_dim)
        super().__init__(shape, lambda qkv: qkv.float().sum(0, keepdim=True))
        # Not as a submodule, whose weights would move and be saved with the metric.
        self._weights, self._geometry = partial(attention_weights, attention, None), geometry

    def update(self, qkv: Tensor, *others: Tensor | None) -> None:
        """Add the images of a batch: queries, keys and values (3, B, H, N, D)."""
        super().update(qkv.transpose(0, 1))

    def compute(self) -> dict[str, Tensor]:
        """``position_mad`` and ``position_self_mass``, (H,) over the images of all processes."""
        qkv = super().compute().float()[:, None]
        found = functional.head_statistics(self._weights(qkv=qkv), self._geometry)
        return {f"position_{name}": found[name][0] for name in ("mad", "self_mass")}
