"""The Metric that every statistic over images is."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class ImageMean(Metric):
    """Mean over images of any function of attention probabilities.

    Args:
        shape: of one image's value; ``(num_heads,)`` for one number a head.
        function: probabilities (B, H, N, N) to values (B, \\*shape).
        kwargs: torchmetrics' own arguments.

    ``update`` takes the probabilities of a batch, (B, H, N, N); ``compute`` gives float64 \\*shape.

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
        # A MetricCollection takes metrics with equal states after the first batch, such as shares that are
        # all 0, for one, and updates only that. NaN equals nothing.
        self.add_state("apart", torch.tensor(float("nan")), dist_reduce_fx="max")

    def update(self, attention: Tensor, *others: Tensor | None) -> None:
        """Add the images of a batch of probabilities (B, H, N, N), with what else the function takes."""
        self.total += self.function(attention, *others).sum(0, dtype=self.total.dtype)
        self.images += len(attention)

    def compute(self) -> Any:
        """Mean over the images of all processes, of the given shape; NaN without any."""
        return self.total / self.images
