"""What every kind of attention promises: a fast forward, and the same step by step."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vitlocal.errors import InputError
from vitlocal.geometry import Geometry
from vitlocal.models.pruning import columns_of, cut_linear

QkvHook = Callable[[Tensor, Tensor], None]
"""Called with the tokens (B, N, C) of a forward pass, and their queries, keys and values (3, B, H, N, D)."""


class Tap(Protocol):
    """Sees the tensors of an explicit forward by name, and may replace them."""

    def __call__(self, name: str, tensor: Tensor) -> Tensor | None:
        """What to go on with in the tensor's place; None: the tensor itself.

        A tap that keeps a tensor copies it: later steps may overwrite it.
        """


class MakeAttention(Protocol):
    """What makes the attention of a layer: a kind, or ``functools.partial`` of one.

    In a configuration it is a class path, with the kind's own arguments, those that are not here.
    """

    def __call__(self, dim: int, *, num_heads: int, qkv_bias: bool, proj_drop: float) -> "Attention":
        """Make it.

        Args:
            dim: features of a token.
            num_heads: number of attention heads.
            qkv_bias: whether queries, keys and values have a bias.
            proj_drop: dropout on the output projection.
        """


class Enough(Exception):  # noqa: N818 - no error
    """Raised by a tap that has seen all it wanted, so that no further step is made."""


class Attention(nn.Module, ABC):
    """Multi-head self-attention with a fast forward and an explicit one.

    Below, C is the width of the tokens, H is ``num_heads`` and D is ``head_dim``; H * D need not be C, and
    both may differ from layer to layer.

    Attributes:
        num_heads: number of attention heads.
        head_dim: features of a head's queries, keys and values.
        num_hops: number K of hops, for kinds whose heads have rows of weights at each of them; else 0.
        head_numbers: what the heads are called: from 0, and where some were cut out, as they were before.
        layer_number: the same of its layer; None where none was cut out.
    """

    num_heads: int
    head_dim: int
    num_hops: int = 0
    layer_number: int | None = None
    _head_numbers: tuple[int, ...] = ()

    @property
    def head_numbers(self) -> tuple[int, ...]:
        """See the class."""
        return self._head_numbers or tuple(range(self.num_heads))

    def keep_heads(self, numbers: Sequence[int]) -> None:
        """Cut all other heads out of the module.

        For kinds with layers ``qkv`` and ``proj``; one that has more parameters a head cuts those, too.

        Args:
            numbers: those of :attr:`head_numbers` that are kept, at least one.

        Raises:
            InputError: the kind has no such layers.
        """
        inner = self.num_heads * self.head_dim
        qkv, proj = getattr(self, "qkv", None), getattr(self, "proj", None)
        if not isinstance(qkv, nn.Linear) or not isinstance(proj, nn.Linear) or proj.in_features != inner:
            raise InputError(
                f"heads can't be cut out of {type(self).__name__}, which has no layers qkv and proj as "
                "Softmax has: give another kind of attention, or write a keep_heads for it"
            )
        places = [self.head_numbers.index(number) for number in numbers]
        columns = columns_of(places, self.head_dim, proj.weight.device)
        cut_linear(qkv, outputs=torch.cat([columns + part * inner for part in range(3)]))
        cut_linear(proj, inputs=columns)
        self.num_heads, self._head_numbers = len(places), tuple(numbers)

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, N, C) to tokens (B, N, C), by the fastest way, with nothing recorded."""

    @abstractmethod
    def explicit(
        self, x: Tensor, tap: Tap, queries: Tensor | None = None, qkv: Tensor | None = None
    ) -> Tensor:
        """The output of :meth:`forward`, step by step.

        Each step is shown to ``tap``, in this order, with Q for the number of queries:

        - ``qkv`` (3, B, H, N, D): queries, keys and values of all tokens;
        - ``scores`` (B, H, Q, N), float32 or wider: what the weights are made of;
        - ``weights`` (B, H, Q, N), float32 or wider: those of the values, before a gate; (B, H K, Q, N) where
          there are hops, all of a head after those of the head before;
        - ``gates`` (B, H, Q), where the kind has them; ``hop_gates`` (H, 1 + K) where there are hops;
        - ``context`` (B, Q, H D): what the output projection reads, head after head.

        Args:
            x: tokens (B, N, C).
            tap: sees the steps, and may replace them.
            queries: positions (Q,) of the tokens whose rows are wanted; None for all.
            qkv: what the step of that name begins with, where that is known: then nothing is projected, and
                ``x`` is read by gates only.

        Returns:
            (B, Q, C).
        """

    def place(self, geometry: Geometry) -> None:
        """Told where its tokens are, once, by the network that it is part of; most kinds need not know.

        Raises:
            InputError: the kind does not work there.
        """

    def register_qkv_hook(self, hook: QkvHook) -> RemovableHandle:
        """Have each forward pass show its tokens and what it projects them to.

        For kinds with a layer ``qkv``. The forward is the fast one all the same.
        """
        projection: Any = self.qkv

        def show(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            hook(inputs[0], self.split(output))

        return projection.register_forward_hook(show)

    def split(self, qkv: Tensor) -> Tensor:
        """The output of a layer ``qkv``, (B, N, 3 H D), as queries, keys and values: (3, B, H, N, D)."""
        return qkv.unflatten(-1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4)


def explicit_attention(
    qkv: Tensor,
    tap: Tap,
    queries: Tensor | None = None,
    weigh: Callable[[Tensor], Tensor] | None = None,
    scale: float | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """The steps from queries, keys and values to what each head has mixed.

    Scores, weights and sums are float32 at least, as in fused attention: bfloat16 would be coarser.

    Args:
        qkv: (3, B, H, N, D).
        tap: is shown ``qkv``, ``scores`` and ``weights``.
        queries: positions (Q,) of the tokens whose rows are wanted; None for all.
        weigh: scores (B, H, Q, N), which it may overwrite, to weights; None: :func:`softmax`.
        scale: of the scores; None: one over the square root of D.
        bias: added to the scores, (B, H, N, N) or what broadcasts to it.

    Returns:
        (B, H, Q, D), of the type of ``qkv``.
    """
    qkv = tapped(tap, "qkv", qkv)
    precision = torch.promote_types(qkv.dtype, torch.float32)
    with torch.autocast(qkv.device.type, enabled=False):
        query, key = qkv[:2].to(precision).contiguous()  # in one copy
        if queries is not None:
            query = query[:, :, queries]
        scores = (query * (qkv.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
        if bias is not None:
            rows = bias if queries is None or bias.shape[-2] == 1 else bias[..., queries, :]
            scores = scores + rows
        weights = tapped(tap, "weights", (weigh or softmax)(tapped(tap, "scores", scores)))
        return (weights @ qkv[2].to(precision)).to(qkv.dtype)


def tapped(tap: Tap, name: str, tensor: Tensor) -> Tensor:
    """A tensor, or what the tap puts in its place."""
    given = tap(name, tensor)
    return tensor if given is None else given


def softmax(scores: Tensor) -> Tensor:
    """Softmax over the last dimension; in place where no gradient is wanted.

    In place there is no second matrix, and on a CPU it is faster than torch.softmax for short rows.
    """
    if scores.requires_grad:
        return scores.softmax(-1)
    scores -= scores.amax(-1, keepdim=True)
    scores.exp_()
    scores *= scores.sum(-1, keepdim=True).reciprocal()
    return scores


def num_maps(attention: Any) -> int:
    """How many rows of weights a query has in a module: one a head, or one a head and hop."""
    heads: int = attention.num_heads
    return heads * (getattr(attention, "num_hops", 0) or 1)


@torch.no_grad()
def attention_weights(
    attention: Any, x: Tensor | None, queries: Tensor | None = None, qkv: Tensor | None = None
) -> Tensor:
    """The weights that a module's forward applies to tokens, by its :meth:`Attention.explicit`.

    Args:
        attention: has ``explicit``.
        x: tokens (B, N, C); may be None where ``qkv`` is given, since no gate is reached.
        queries: see :meth:`Attention.explicit`.
        qkv: the same.

    Returns:
        (B, H, Q, N); (B, H K, Q, N) where there are hops.
    """
    found: list[Tensor] = []

    def tap(name: str, tensor: Tensor) -> None:
        if name == "weights":
            found.append(tensor)
            raise Enough

    with suppress(Enough):
        # By keyword only where it is given: others' modules may not know of it.
        attention.explicit(x, tap, queries, **({} if qkv is None else {"qkv": qkv}))
    return found[0]
