"""Tokens one after the other."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from vitlocal.errors import InputError
from vitlocal.geometry.base import Geometry, Unit


@dataclass(frozen=True)
class Sequence(Geometry):
    """Tokens in a row, |i - j| apart.

    Units: ``"tokens"``; ``"share"``: the same over the largest distance at which the query sees a token, so
    that in a causal sequence the first token is at 1; 0 for a query that sees itself only.

    Args:
        length: number of tokens, padding included.
        causal: a token sees itself and those before it; else it sees all.
        padding: tokens at the end that are none: they see nothing and are not seen.
        num_prefix_tokens: see :class:`Geometry`.
        unit: the same.
        class_token: the same.

    >>> Sequence(4, causal=True, padding=1).visible(torch.tensor([1, 3]))
    tensor([[ True,  True, False, False],
            [False, False, False, False]])
    """

    units = ("tokens", "share")
    length: int
    causal: bool = False
    padding: int = 0
    unit: Unit = field(default="tokens", kw_only=True)

    def __post_init__(self) -> None:
        """Check the sizes."""
        super().__post_init__()
        if not 0 <= self.padding < self.length:
            raise InputError(
                f"a sequence of length {self.length} with padding {self.padding} has no token: "
                "give a length of at least 1, and less padding than that"
            )

    @property
    def num_places(self) -> int:
        """The length."""
        return self.length

    @property
    def sees_all(self) -> bool:
        """Unless it is causal or padded."""
        return not self.causal and not self.padding

    def _distances(self, places: Tensor, dtype: torch.dtype) -> Tensor:
        distances = (places[:, None] - self._places(places)).abs().to(dtype)
        if self.unit == "share":
            farthest = distances.where(self._visible(places), 0).amax(1, keepdim=True)
            distances /= farthest.clamp(min=1)
        return distances

    def _neighbours(self, places: Tensor) -> Tensor:
        return (places[:, None] - self._places(places)).abs() <= 1

    def _visible(self, places: Tensor) -> Tensor:
        keys, real = self._places(places), self.length - self.padding
        visible = (places[:, None] < real) & (keys < real)
        return visible & (keys <= places[:, None]) if self.causal else visible

    def _places(self, like: Tensor) -> Tensor:
        return torch.arange(self.length, device=like.device)
