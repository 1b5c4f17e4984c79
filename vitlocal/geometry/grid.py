"""Patches of an image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from vitlocal.errors import InputError
from vitlocal.geometry.base import Geometry, Unit


@dataclass(frozen=True)
class Grid(Geometry):
    """Patches in rows and columns, row by row; each sees all, at the Euclidean distance of their centres.

    Units: ``"patches"``: one step to a neighbour is 1; ``"grid"``: the same over the grid's largest distance,
    so 1 is corner to corner; ``"pixels"``: one step is the patch's height or width. Neighbours are the eight
    around a patch. A single patch is at distance 0 from itself in every unit.

    Args:
        height: rows of patches.
        width: columns of patches.
        patch_size: height and width of a patch in pixels; needed for ``"pixels"`` only.
        num_prefix_tokens: see :class:`Geometry`.
        unit: the same.
        class_token: the same.

    >>> Grid(2, 2, unit="patches").distances(torch.tensor([0]))
    tensor([[0.0000, 1.0000, 1.0000, 1.4142]])
    """

    units = ("grid", "patches", "pixels")
    height: int
    width: int
    patch_size: tuple[int, int] | None = None
    unit: Unit = field(default="grid", kw_only=True)

    def __post_init__(self) -> None:
        """Check the sizes."""
        super().__post_init__()
        if min(self.height, self.width) < 1:
            raise InputError(f"a grid of {self.height}x{self.width} patches has none: give at least 1x1")
        if self.unit == "pixels" and self.patch_size is None:
            raise InputError(
                "unit is 'pixels' but patch_size is not given: give the patch's height and width"
            )

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.height, self.width

    @property
    def num_places(self) -> int:
        """Number of patches."""
        return self.height * self.width

    @property
    def sees_all(self) -> bool:
        """Always."""
        return True

    def fitted(self, pixels: Sequence[int], num_tokens: int) -> "Grid":
        """This grid, or that of images of another size, where it has the tokens that this one has not.

        Many networks take images of other sizes than they were made for, and interpolate their positions.

        Args:
            pixels: height and width of the images.
            num_tokens: that there are, prefix tokens included.

        >>> grid = Grid(2, 2, patch_size=(4, 4))
        >>> grid.fitted((8, 12), num_tokens=6).size
        (2, 3)
        """
        if num_tokens == self.num_tokens or self.patch_size is None:
            return self
        height, width = (side // step for side, step in zip(pixels, self.patch_size, strict=True))
        if min(height, width) < 1 or height * width + self.num_prefix_tokens != num_tokens:
            return self
        return replace(self, height=height, width=width)

    def _distances(self, places: Tensor, dtype: torch.dtype) -> Tensor:
        steps = self.patch_size if self.unit == "pixels" and self.patch_size else (1, 1)
        y, x = (place.to(dtype) * step for place, step in zip(self._places(places), steps, strict=True))
        distances = torch.hypot(y[places, None] - y, x[places, None] - x)
        if self.unit == "grid" and self.num_places > 1:
            distances /= math.hypot(self.height - 1, self.width - 1)
        return distances

    def _neighbours(self, places: Tensor) -> Tensor:
        y, x = self._places(places)
        return ((y[places, None] - y).abs() <= 1) & ((x[places, None] - x).abs() <= 1)

    def _visible(self, places: Tensor) -> Tensor:
        return torch.ones(len(places), self.num_places, dtype=torch.bool, device=places.device)

    def _places(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Row and column of every patch, (P,)."""
        numbers = torch.arange(self.num_places, device=like.device)
        return numbers // self.width, numbers % self.width

    def describe(self) -> dict[str, Any]:
        """As :meth:`Geometry.describe`."""
        return super().describe() | {"patch_size": self.patch_size and list(self.patch_size)}
