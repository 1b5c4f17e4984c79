"""Attention whose heads can close (Bondarenko et al. 2023, arXiv 2306.12929)."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlocal.errors import InputError
from vitlocal.models.attention.softmax import Softmax

GateKind = Literal["linear", "mlp", "all_heads_linear"]
"""What a gate is made of: a linear layer or an MLP for each head, or a linear layer over the whole token."""

HIDDEN = 4
LARGEST_HIDDEN = 2**16


class GroupedLinear(nn.Module):
    """A linear layer of its own on each group of features: (..., G I) to (..., G O).

    Args:
        groups: number G of groups.
        inputs: features I of a group.
        outputs: outputs O of a group.
    """

    own: Tensor

    def __init__(self, groups: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(groups, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(groups * outputs))
        nn.init.trunc_normal_(self.weight, std=0.02)
        self.register_buffer("own", torch.eye(groups)[:, None, :, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., G I) to (..., G O)."""
        # One product with a matrix of mostly zeros: for so few outputs faster than a product a group.
        matrix = (self.own * self.weight[:, :, None]).flatten(0, 1).flatten(1)
        return F.linear(x, matrix, self.bias)

    def keep(self, groups: Sequence[int], inputs: bool) -> None:
        """Cut the other groups out; of the input, too, or it still has the features of all."""
        own = self.own[groups]
        self.own = own[:, :, groups] if inputs else own
        self.bias = nn.Parameter(self.bias.detach().unflatten(0, (len(self.weight), -1))[groups].flatten())
        self.weight = nn.Parameter(self.weight.detach()[groups])


class Gate(nn.Module):
    """Gates of the heads, from the tokens that the attention layer gets; one a head and token.

    ``linear`` and ``mlp`` (with a ReLU) read each head's own D / H features, by weights of its own;
    ``all_heads_linear`` reads all D. Parameters a layer, as in table 1 of the paper: H (D / H + 1);
    H (hidden (D / H + 2) + 1); H (D + 1).

    Args:
        kind: which of them.
        width: features D of a token.
        heads: number H of heads.
        hidden: hidden features of an ``mlp``.
        pi_init: between 0 and 1, what a gate begins with where its weights add nothing: the last bias is its
            logit. The weights begin as in the rest of the ViT, truncated normal of 0.02, so the gates of
            different tokens begin close to it, and not at it.
    """

    def __init__(self, kind: GateKind, width: int, heads: int, hidden: int, pi_init: float) -> None:
        super().__init__()
        self.kind = kind
        features = width // heads
        if kind == "mlp":
            first, last = GroupedLinear(heads, features, hidden), GroupedLinear(heads, hidden, 1)
            self.layers = nn.Sequential(first, nn.ReLU(), last)
        else:
            last = GroupedLinear(heads, features, 1) if kind == "linear" else GroupedLinear(1, width, heads)
            self.layers = nn.Sequential(last)
        nn.init.constant_(last.bias, math.log(pi_init) - math.log1p(-pi_init))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, N, D) to gates (B, N, H), from 0, closed, to 1."""
        return self.layers(x).sigmoid()

    def keep_heads(self, places: Sequence[int]) -> None:
        """Cut the gates of other heads out."""
        first, *others = (layer for layer in self.layers if isinstance(layer, GroupedLinear))
        if self.kind == "all_heads_linear":
            first.weight = nn.Parameter(first.weight.detach()[:, places])
            first.bias = nn.Parameter(first.bias.detach()[places])
        else:
            first.keep(places, inputs=False)
            for layer in others:
                layer.keep(places, inputs=True)


class Gated(Softmax):
    """Softmax self-attention, of which each head's output for a token is multiplied by a gate, equation 5.

    The weights are softmax's: a gate acts on what they have mixed.

    Args:
        dim: features of a token; for gates that read a head's own features, a multiple of ``num_heads``.
        num_heads: number of attention heads.
        head_dim: features of a head; None: ``dim`` over ``num_heads``.
        qkv_bias: whether queries, keys and values have a bias.
        proj_drop: dropout on the output projection.
        gate: ``linear`` or ``mlp`` on a head's own features, or ``all_heads_linear``.
        hidden: hidden features of a head's ``mlp``.
        pi_init: about what gates begin with, between 0 and 1: the logit of the last bias.

    Raises:
        InputError: a value out of its range, or one for another gate.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        head_dim: int | None = None,
        qkv_bias: bool = True,
        proj_drop: float = 0.0,
        *,
        gate: GateKind = "linear",
        hidden: int = HIDDEN,
        pi_init: float = 0.5,
    ) -> None:
        super().__init__(dim, num_heads, head_dim, qkv_bias, proj_drop)
        if gate not in get_args(GateKind):
            raise InputError(f"gate of Gated is {gate!r}: it must be one of {', '.join(get_args(GateKind))}")
        if not 0 < pi_init < 1:
            raise InputError(f"pi_init of Gated is {pi_init}: it must be above 0 and below 1")
        if not 1 <= hidden <= LARGEST_HIDDEN:
            raise InputError(f"hidden of Gated is {hidden}: it must be from 1 to {LARGEST_HIDDEN}")
        if gate != "mlp" and hidden != HIDDEN:
            raise InputError(
                f"hidden of Gated is {hidden} but gate is {gate}: give gate=mlp, or leave hidden out"
            )
        self.gate = Gate(gate, dim, num_heads, hidden, pi_init)

    def keep_heads(self, numbers: Sequence[int]) -> None:
        """See :meth:`Attention.keep_heads`."""
        self.gate.keep_heads([self.head_numbers.index(number) for number in numbers])
        super().keep_heads(numbers)

    def _mix(self, x: Tensor) -> Tensor:
        return super()._mix(x) * self.gate(x)[..., None]

    def _gates(self, x: Tensor) -> Tensor:
        return self.gate(x).transpose(1, 2)
