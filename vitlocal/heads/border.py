"""Attention across the border of pasted boxes: what CutMix would have a head avoid.

Images are mixed as CutMix mixes them, on every image and from random numbers that depend on the seed and
the batch alone, so that all conditions of a comparison are measured on the same images. For a query patch of
which a share f_i is pasted, the weight across the border is sum_j a_ij (f_i (1 - f_j) + (1 - f_i) f_j): the
chance that a pixel of the query's patch and one of the attended patch come from different images. It is the
mean over images and queries, over that of uniform attention: 1 for a head that takes no notice of the border.

It is the sum of two parts. The first is what the head's mean map over the same images gives, its habit of
looking near or far (position); the rest is what the head makes of each image (content).
"""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from vitlocal.geometry import Grid
from vitlocal.internals import exact_products
from vitlocal.protocol import CutMix
from vitlocal.protocol.base import generator_for

BORDER = ("border_mass", "border_position", "border_content")


def mixed_images(images: Tensor, seed: int, *place: int) -> tuple[Tensor, Tensor]:
    """Images with a box of another image of the batch in each, and where it is.

    Args:
        images: (B, C, H, W) of any type.
        seed: of the boxes.
        place: the batch's place, such as its loader and number; other places get other boxes.

    Returns:
        The mixed images, and float32 (B, 1, H, W), 1 where a pixel is pasted.
    """
    count, _, height, width = images.shape
    generator = generator_for(seed, f"border {place}", 0, 0, 0)
    plan = CutMix(alpha=1, probability=1).draw(count, height, width, generator)
    top, bottom, left, right = plan.box.to(images.device).t()[..., None]
    rows, columns = (torch.arange(side, device=images.device) for side in (height, width))
    inside = ((rows >= top) & (rows < bottom))[:, None, :, None] & ((columns >= left) & (columns < right))[
        :, None, None, :
    ]
    return torch.where(inside, images[plan.partner.to(images.device)], images), inside.float()


def pasted_share(pasted: Tensor, grid: Grid) -> Tensor:
    """Of a mask of pasted pixels (B, 1, H, W), the share of each patch: (B, P)."""
    return torch.nn.functional.adaptive_avg_pool2d(pasted, grid.size).flatten(1)


def border_mass(attention: Tensor, pasted: Tensor, grid: Grid) -> Tensor:
    """Weight across the border, as it is, not yet over that of uniform attention.

    Rows are renormalised over the patches; one without weight on them counts as 0.

    Args:
        attention: probabilities (B, H, N, N) on mixed images.
        pasted: (B, P), the share of each patch that is pasted.
        grid: of the patches.

    Returns:
        (B, H): the mean over the patch queries.
    """
    return (_renormalised(attention, grid) * _crossing(pasted)[:, None]).sum(-1).mean(-1)


class BorderMass(Metric):
    """Weight across the border over that of uniform attention, and its parts by position and by content.

    Args:
        num_heads: H.
        grid: of the patches.
        kwargs: torchmetrics' own arguments.

    >>> metric = BorderMass(num_heads=1, grid=Grid(2, 2))
    >>> metric.update(torch.full((2, 1, 4, 4), 0.25), torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 0]]))
    >>> {name: round(value.item(), 6) for name, value in metric.compute().items()}
    {'border_mass': 1.0, 'border_position': 1.0, 'border_content': 0.0}
    """

    is_differentiable = False
    full_state_update = False
    weights: Tensor
    crossing: Tensor
    crossed: Tensor
    images: Tensor

    def __init__(self, num_heads: int, grid: Grid, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.grid, patches = grid, grid.num_places
        shapes = {"weights": (num_heads, patches, patches), "crossing": (patches, patches)}
        for name, shape in (shapes | {"crossed": (num_heads,), "images": ()}).items():
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, attention: Tensor, pasted: Tensor) -> None:
        """Add the images of a batch: probabilities (B, H, N, N) and pasted shares (B, P)."""
        weights, crossing = _renormalised(attention, self.grid), _crossing(pasted)
        self.weights += weights.sum(0)
        self.crossing += crossing.sum(0)
        with exact_products(attention.device):
            crossed = weights.flatten(2) @ crossing.flatten(1)[..., None]
        self.crossed += crossed[..., 0].sum(0, dtype=self.crossed.dtype)
        self.images += len(attention)

    def compute(self) -> dict[str, Tensor]:
        """For each name in ``BORDER``, (H,) over the images of all processes; NaN without any border."""
        uniform = self.crossing.mean(-1).sum()
        by_position = (self.weights * self.crossing).sum((-2, -1)) / self.images / uniform
        mass = self.crossed / uniform
        return dict(zip(BORDER, (mass, by_position, mass - by_position), strict=True))


def _renormalised(attention: Tensor, grid: Grid) -> Tensor:
    patches = attention[..., grid.num_prefix_tokens :, grid.num_prefix_tokens :].float()
    return patches / patches.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)


def _crossing(pasted: Tensor) -> Tensor:
    """Chance that a pixel of the query's patch and one of the key's are of different images: (B, P, P)."""
    query, key = pasted[:, :, None], pasted[:, None]
    return query * (1 - key) + (1 - query) * key
