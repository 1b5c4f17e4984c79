"""Attention statistics as torchmetrics Metrics: means over images, head by head.

Each is updated with the attention probabilities (B, H, N, N) of a batch, keeps sums in float64, and
adds them up over processes. Definitions and arguments are those of the functions of the same names in
:mod:`vitlocal.heads.functional`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from vitlocal.heads import functional
from vitlocal.heads.functional import ClassToken, GridSize, Unit
from vitlocal.models.attention import attention_weights


class ImageMean(Metric):
    """Mean over images of any function of attention probabilities.

    Args:
        shape: of one image's value; ``(num_heads,)`` for one number a head.
        function: probabilities (B, H, N, N) to values (B, \\*shape).
        kwargs: torchmetrics' own arguments.

    >>> sharpest = ImageMean((2,), lambda attention: attention.amax((-2, -1)))
    >>> sharpest.update(torch.full((3, 2, 4, 4), 0.25))
    >>> sharpest.compute()
    tensor([0.2500, 0.2500], dtype=torch.float64)
    """

    is_differentiable = False
    full_state_update = False
    total: Tensor
    images: Tensor

    def __init__(self, shape: Sequence[int], function: Callable[..., Tensor], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function = function
        # float64: over a data set, small values are added to large sums.
        self.add_state("total", torch.zeros(tuple(shape), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, attention: Tensor, *others: Tensor | None) -> None:
        """Add the images of a batch of probabilities (B, H, N, N), with what else the function takes."""
        self.total += self.function(attention, *others).sum(0, dtype=self.total.dtype)
        self.images += len(attention)

    def compute(self) -> Any:
        """Mean over the images of all processes, of the given shape; NaN without any."""
        return self.total / self.images


class _RowMean(ImageMean):
    """One number a head, from the weights alone."""

    statistic: ClassVar[Callable[..., Tensor]]

    def __init__(
        self, num_heads: int, num_prefix_tokens: int = 0, class_token: ClassToken = "drop", **kwargs: Any
    ) -> None:
        options: dict[str, Any] = {"num_prefix_tokens": num_prefix_tokens, "class_token": class_token}
        super().__init__((num_heads,), partial(type(self).statistic, **options), **kwargs)


class _GridMean(ImageMean):
    """One number a head, or several, from the weights and the patches' places on the grid."""

    statistic: ClassVar[Callable[..., Tensor]]
    leading_shape: ClassVar[tuple[int, ...]] = ()

    def __init__(
        self,
        num_heads: int,
        grid_size: GridSize,
        num_prefix_tokens: int = 0,
        unit: Unit = "grid",
        patch_size: tuple[int, int] | None = None,
        class_token: ClassToken = "drop",
        **kwargs: Any,
    ) -> None:
        options: dict[str, Any] = {
            "grid_size": grid_size,
            "num_prefix_tokens": num_prefix_tokens,
            "unit": unit,
            "patch_size": patch_size,
            "class_token": class_token,
        }
        shape = (*self.leading_shape, num_heads)
        super().__init__(shape, partial(type(self).statistic, **options), **kwargs)


class MeanAttentionDistance(_GridMean):
    """Mean attention distance (MAD), (H,).

    >>> metric = MeanAttentionDistance(num_heads=1, grid_size=(8, 8))
    >>> metric.update(torch.full((2, 1, 64, 64), 1 / 64))
    >>> round(metric.compute().item(), 3)
    0.418
    """

    statistic = staticmethod(functional.mean_attention_distance)


class MeanAttentionDistanceWithoutSelf(_GridMean):
    """MAD over the keys other than the query's own patch, (H,).

    >>> metric = MeanAttentionDistanceWithoutSelf(num_heads=1, grid_size=(1, 2), unit="patches")
    >>> metric.update(torch.tensor([[[[0.9, 0.1], [0.2, 0.8]]]]))
    >>> metric.compute().item()
    1.0
    """

    statistic = staticmethod(functional.mean_attention_distance_without_self)


class RawMeanAttentionDistance(ImageMean):
    """MAD of the weights as they are, the class token at distance 0, (H,).

    >>> metric = RawMeanAttentionDistance(num_heads=1, grid_size=(1, 2), num_prefix_tokens=1)
    >>> metric.update(torch.full((1, 1, 3, 3), 1 / 3))
    >>> round(metric.compute().item(), 3)
    0.333
    """

    def __init__(
        self,
        num_heads: int,
        grid_size: GridSize,
        num_prefix_tokens: int = 0,
        unit: Unit = "grid",
        patch_size: tuple[int, int] | None = None,
        **kwargs: Any,
    ) -> None:
        function = partial(
            functional.raw_mean_attention_distance,
            grid_size=grid_size,
            num_prefix_tokens=num_prefix_tokens,
            unit=unit,
            patch_size=patch_size,
        )
        super().__init__((num_heads,), function, **kwargs)


class NormalizedEntropy(_RowMean):
    """Entropy of the rows over its largest value, (H,).

    >>> metric = NormalizedEntropy(num_heads=1)
    >>> metric.update(torch.full((2, 1, 4, 4), 0.25))
    >>> metric.compute().item()
    1.0
    """

    statistic = staticmethod(functional.normalized_entropy)


class SelfMass(_RowMean):
    """Weight on the query's own patch, (H,).

    >>> metric = SelfMass(num_heads=1)
    >>> metric.update(torch.eye(4)[None, None])
    >>> metric.compute().item()
    1.0
    """

    statistic = staticmethod(functional.self_mass)


class WindowMass(ImageMean):
    """Weight within one step of the query's own patch, (H,).

    >>> metric = WindowMass(num_heads=1, grid_size=(1, 3))
    >>> metric.update(torch.full((2, 1, 3, 3), 1 / 3))
    >>> round(metric.compute().item(), 3)
    0.778
    """

    def __init__(
        self,
        num_heads: int,
        grid_size: GridSize,
        num_prefix_tokens: int = 0,
        class_token: ClassToken = "drop",
        **kwargs: Any,
    ) -> None:
        options: dict[str, Any] = {"grid_size": grid_size, "num_prefix_tokens": num_prefix_tokens}
        options["class_token"] = class_token
        super().__init__((num_heads,), partial(functional.window_mass, **options), **kwargs)


class SelfLogOdds(_RowMean):
    """Log-odds of the weight on the query's own patch over those of uniform attention, in nats, (H,).

    >>> metric = SelfLogOdds(num_heads=1)
    >>> metric.update(torch.tensor([[[[0.9, 0.1], [0.5, 0.5]]]]))
    >>> round(metric.compute().item(), 3)
    1.099
    """

    statistic = staticmethod(functional.self_log_odds)


class ClassLogOdds(ImageMean):
    """Log-odds of the weight on the class token over those of uniform attention, in nats, (H,).

    >>> metric = ClassLogOdds(num_heads=1, num_prefix_tokens=1)
    >>> metric.update(torch.full((2, 1, 5, 5), 0.2))
    >>> round(abs(metric.compute().item()), 3)
    0.0
    """

    def __init__(self, num_heads: int, num_prefix_tokens: int = 0, **kwargs: Any) -> None:
        function = partial(functional.class_log_odds, num_prefix_tokens=num_prefix_tokens)
        super().__init__((num_heads,), function, **kwargs)


class PositionOnly(ImageMean):
    """What a head would attend to by position alone: queries and keys averaged over images at each position.

    It is updated with queries, keys and values (3, B, H, N, D) of an attention module instead of weights.

    Args:
        attention: the module; see :func:`vitlocal.heads.find_attention`.
        num_tokens: N.
        options: as of :class:`HeadStatistics`.
    """

    def __init__(self, attention: Any, num_tokens: int, **options: Any) -> None:
        shape = (3, attention.num_heads, num_tokens, attention.head_dim)
        super().__init__(shape, lambda qkv: qkv.float().sum(0, keepdim=True))
        # Not as a submodule, whose weights would move and be saved with the metric.
        self._weights, self._options = partial(attention_weights, attention, None), options

    def update(self, qkv: Tensor, *others: Tensor | None) -> None:
        """Add the images of a batch: queries, keys and values (3, B, H, N, D)."""
        super().update(qkv.transpose(0, 1))

    def compute(self) -> dict[str, Tensor]:
        """``position_mad`` and ``position_self_mass``, (H,) over the images of all processes."""
        qkv = super().compute().float()[:, None]
        found = functional.head_statistics(self._weights(qkv=qkv), **self._options)
        return {f"position_{name}": found[name][0] for name in ("mad", "self_mass")}


class ClassTokenMass(ImageMean):
    """Weight that patch queries put on the class token, (H,).

    >>> metric = ClassTokenMass(num_heads=1, num_prefix_tokens=1)
    >>> metric.update(torch.full((2, 1, 5, 5), 0.2))
    >>> round(metric.compute().item(), 3)
    0.2
    """

    def __init__(self, num_heads: int, num_prefix_tokens: int = 0, **kwargs: Any) -> None:
        function = partial(functional.class_token_mass, num_prefix_tokens=num_prefix_tokens)
        super().__init__((num_heads,), function, **kwargs)


def _stacked_statistics(attention: Tensor, **options: Any) -> Tensor:
    """All statistics as one tensor (B, S, H), in the order of ``STATISTICS``."""
    return torch.stack(list(functional.head_statistics(attention, **options).values()), dim=1)


class HeadStatistics(_GridMean):
    """All statistics of one layer's heads, from one pass over the probabilities.

    >>> metric = HeadStatistics(num_heads=1, grid_size=(2, 2))
    >>> metric.update(torch.eye(4)[None, None])
    >>> {name: value.item() for name, value in metric.compute().items() if name.endswith("mass")}
    {'self_mass': 1.0, 'class_mass': 0.0, 'window_mass': 1.0}
    """

    statistic = staticmethod(_stacked_statistics)
    leading_shape = (len(functional.STATISTICS),)

    def compute(self) -> dict[str, Tensor]:
        """For each name in ``STATISTICS``, the mean over the images of all processes, (H,)."""
        return dict(zip(functional.STATISTICS, super().compute(), strict=True))
