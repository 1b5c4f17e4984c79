"""What a geometry promises."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal, TypeVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from vitlocal.errors import InputError

Unit = Literal["grid", "patches", "pixels", "tokens", "share", "hops"]
"""Of distances; each kind of geometry has some of them."""

ClassToken = Literal["drop", "keep"]
"""What becomes of prefix tokens as keys: left out and renormalised over, or counted at distance 0."""

Same = TypeVar("Same", bound="Geometry")

BLOCK_ELEMENTS = 2**22
"""Most queries times tokens at a time: 16 MiB of float32. All of 2,048 tokens are one block."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Geometry(ABC):
    """Where N tokens are, and which of them each may see.

    The first tokens are prefix tokens, such as a class token: they have no place, every query that sees
    anything sees them, and they are no queries themselves. The others are P places. Where queries are asked
    for, they are positions (Q,), int64, among all tokens; what comes back is on their device.

    Args:
        num_prefix_tokens: tokens before those that have a place.
        unit: of distances; one of the kind's ``units``.
        class_token: prefix tokens as keys: ``"drop"`` leaves them out, and a row is renormalised over the
            rest; ``"keep"`` counts them at distance 0 from everywhere.

    Raises:
        InputError: a value out of its range, or a unit that this kind of geometry does not have.
    """

    units: ClassVar[tuple[Unit, ...]]
    num_prefix_tokens: int = 0
    unit: Unit
    class_token: ClassToken = "drop"

    def __post_init__(self) -> None:
        """Check what all kinds have."""
        kind = type(self).__name__
        if self.unit not in self.units:
            raise InputError(f"unit is {self.unit!r}: a {kind}'s must be one of {', '.join(self.units)}")
        if self.class_token not in get_args(ClassToken):
            raise InputError(f"class_token is {self.class_token!r}: it must be drop or keep")
        if self.num_prefix_tokens < 0:
            raise InputError(f"num_prefix_tokens is {self.num_prefix_tokens}: it must not be negative")

    @property
    @abstractmethod
    def num_places(self) -> int:
        """P, the tokens that have a place."""

    @property
    @abstractmethod
    def sees_all(self) -> bool:
        """Whether every query sees every token."""

    @abstractmethod
    def _distances(self, places: Tensor, dtype: torch.dtype) -> Tensor:
        """(Q, P) between places, counted from 0."""

    @abstractmethod
    def _neighbours(self, places: Tensor) -> Tensor:
        """(Q, P), whether two places are the same or one step apart."""

    @abstractmethod
    def _visible(self, places: Tensor) -> Tensor:
        """(Q, P), whether the one sees the other."""

    @property
    def num_tokens(self) -> int:
        """N, prefix tokens included."""
        return self.num_prefix_tokens + self.num_places

    def queries(self, device: torch.device | None = None, elements: int = BLOCK_ELEMENTS) -> Iterator[Tensor]:
        """The positions of all queries, a block at a time.

        Args:
            device: where to make them.
            elements: most queries times tokens in a block, or one query's if that is more.
        """
        positions = torch.arange(self.num_prefix_tokens, self.num_tokens, device=device)
        yield from positions.split(max(1, elements // self.num_tokens))

    def distances(self, queries: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """How far each token is from each query, (Q, N), in :attr:`unit`; 0 for prefix tokens.

        Infinite where there is no way at all.
        """
        return F.pad(self._distances(queries - self.num_prefix_tokens, dtype), (self.num_prefix_tokens, 0))

    def neighbours(self, queries: Tensor) -> Tensor:
        """Whether a token is the query or one step from it, (Q, N) bool; False for prefix tokens."""
        return F.pad(self._neighbours(queries - self.num_prefix_tokens), (self.num_prefix_tokens, 0))

    def visible(self, queries: Tensor) -> Tensor:
        """Whether a query may see a token, (Q, N) bool; all False for a query that is none, as padding."""
        visible = self._visible(queries - self.num_prefix_tokens)
        prefix = visible.any(1, keepdim=True).expand(-1, self.num_prefix_tokens)
        return torch.cat([prefix, visible], dim=1)

    def measured(self: Same, unit: Unit | None = None, class_token: ClassToken | None = None) -> Same:
        """The same places, measured in another way; None leaves it as it is.

        Raises:
            InputError: as on construction.
        """
        return replace(self, unit=unit or self.unit, class_token=class_token or self.class_token)

    def describe(self) -> dict[str, Any]:
        """What it is, in plain types that JSON and YAML have."""
        return {"kind": type(self).__name__} | asdict(self)
