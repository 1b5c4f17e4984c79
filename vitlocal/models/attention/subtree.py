"""Attention over the rooted subtree of a token (Huang et al. 2023, "Tailoring Self-Attention for Graph via
Rooted Subtrees", NeurIPS)."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from vitlocal.errors import InputError
from vitlocal.geometry import Geometry
from vitlocal.models.attention.base import Attention, Tap, tapped
from vitlocal.models.attention.walk import Neighbours, RandomWalk

Combine = Literal["concat", "sum"]
"""What becomes of the heads' outputs: they are put side by side, or added up."""

LARGEST_HOPS = 256


def feature_map(x: Tensor) -> Tensor:
    """phi(x) = 1 + elu(x), above 0: the kernel of two tokens is phi(q) . phi(k).

    Not by ``elu``, which rounds to -1 where x is below -17 or so, in float32.
    """
    return torch.where(x > 0, x + 1, x.clamp(max=0).exp())


class HopGates(nn.Module):
    """What each hop of each head is multiplied by: g_k for hop k, times a share of the head among the heads.

    The shares of hop k are a softmax over the heads; hop 0, a token's own value, has none. All hops begin
    with a gate of 1, all heads with the same share. Gates may become negative.

    Args:
        num_heads: H.
        num_hops: K.
    """

    def __init__(self, num_heads: int, num_hops: int) -> None:
        super().__init__()
        self.hop_gate = nn.Parameter(torch.ones(1 + num_hops))
        self.head_gate = nn.Parameter(torch.zeros(num_heads, num_hops))

    def forward(self) -> Tensor:
        """The gates, (H, 1 + K); those of the heads at a hop from 1 on add up to g_k."""
        shares = self.head_gate.softmax(0)
        own = self.hop_gate[:1].expand(len(shares), 1)
        return torch.cat([own, self.hop_gate[1:] * shares], dim=1)


def subtree_attention(query: Tensor, key: Tensor, value: Tensor, walk: RandomWalk, gates: Tensor) -> Tensor:
    """Mix the values of what is k steps away, for every k up to K, in O(edges) by message passing.

    With P the matrix of ``walk``, hop k gives token i the mean of the values v_j with weights
    (P^k)_ij phi(q_i) . phi(k_j), and the result is the sum of the hops times their gates. The paper's code
    adds 1e-5 to what it divides by; here rows sum to 1, whatever the degrees. A token that no walk of length
    k leads to gets 0 from hop k. In float32 at least.

    Args:
        query: (B, H, N, D).
        key: the same.
        value: (B, H, N, V).
        walk: of N nodes.
        gates: (H, 1 + K), of hop 0, the token's own value, and those after it.

    Returns:
        (B, H, N, V), of the type of ``value``.
    """
    precision = torch.promote_types(value.dtype, torch.float32)
    with torch.autocast(value.device.type, enabled=False):
        # Nodes first, so that a step of the walk is one product. The ones count what the weights sum to.
        q, k, v = (part.to(precision).permute(2, 0, 1, 3) for part in (query, key, value))
        q, gates = feature_map(q).unsqueeze(-2), gates.to(precision)
        with_ones = torch.cat([v, v.new_ones(*v.shape[:-1], 1)], dim=-1)
        message = with_ones.unsqueeze(-1) * feature_map(k).unsqueeze(-2)
        mixed = gates[:, 0, None] * v
        for gate in gates[:, 1:].unbind(1):
            message = walk(message)
            found = torch.linalg.vecdot(message, q)  # on a CPU half the time of many small products
            mixed = mixed + gate[:, None] * found[..., :-1] / _or_1(found[..., -1:])
        return mixed.permute(1, 2, 0, 3).to(value.dtype)


def explicit_subtree_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    walk: RandomWalk,
    gates: Tensor,
    tap: Tap,
    queries: Tensor | None = None,
) -> Tensor:
    """The same as :func:`subtree_attention`, with the weights of every head and hop.

    Shown to ``tap`` are, in this order: ``scores`` (B, H, Q, N), the kernel of queries and keys; ``weights``
    (B, H K, Q, N), the rows of hop 1 to K of the first head, then of the second: each sums to 1, or to 0
    where no walk of that length leads; ``hop_gates`` (H, 1 + K). The combined rows, weights times gates, are
    no probabilities, since gates may be of either sign, and are never made.

    Args:
        query: see :func:`subtree_attention`.
        key: the same.
        value: the same.
        walk: the same.
        gates: the same.
        tap: sees the steps, and may replace them.
        queries: positions (Q,) of the tokens whose rows are wanted, and made; None for all.

    Returns:
        (B, H, Q, V), of the type of ``value``.
    """
    precision = torch.promote_types(value.dtype, torch.float32)
    with torch.autocast(value.device.type, enabled=False):
        q, k, v = (part.to(precision) for part in (query, key, value))
        if queries is None:
            queries = torch.arange(q.shape[2], device=q.device)
        hops = gates.shape[1] - 1
        scores = tapped(tap, "scores", feature_map(q[:, :, queries]) @ feature_map(k).transpose(-2, -1))
        weights = scores[:, :, None] * walk.from_nodes(queries, hops, precision)
        weights = weights / _or_1(weights.sum(-1, keepdim=True))
        weights = tapped(tap, "weights", weights.flatten(1, 2)).unflatten(1, (-1, hops))
        gates = tapped(tap, "hop_gates", gates.to(precision))
        found = torch.cat([v[:, :, None, queries], weights @ v[:, :, None]], dim=2)
        return (gates[..., None, None] * found).sum(2).to(value.dtype)


class Subtree(Attention):
    """Self-attention that looks at most K hops far: subtree attention on the graph of the patches.

    Patches are joined to those beside them; a class token, where there is one, is joined to all, so that
    any two patches are two hops apart by it. By 4 neighbours and without a class token the grid is bipartite:
    an odd hop then sees every other patch only, as on a chessboard, and ever more hops do not come to global
    attention, as they do on a connected graph that is not bipartite.

    Args:
        dim: features C of a token.
        num_heads: number H of attention heads.
        head_dim: features D of a head; None: ``dim`` over ``num_heads``.
        qkv_bias: whether queries, keys and values have a bias.
        proj_drop: dropout on the output projection.
        num_hops: K, how far a head looks.
        neighbours: of a patch: 4, those beside it, or 8, the diagonal ones too.
        combine: the heads' outputs ``concat``, side by side, or their ``sum``, before the output projection.

    Raises:
        InputError: a value out of its range.
    """

    walk: RandomWalk | None

    def __init__(
        self,
        dim: int,
        num_heads: int,
        head_dim: int | None = None,
        qkv_bias: bool = True,
        proj_drop: float = 0.0,
        *,
        num_hops: int = 3,
        neighbours: Neighbours = 8,
        combine: Combine = "concat",
    ) -> None:
        super().__init__()
        check_hops(type(self).__name__, num_hops, combine)
        if neighbours not in get_args(Neighbours):
            raise InputError(f"neighbours of Subtree is {neighbours}: it must be 4 or 8")
        self.num_heads, self.num_hops = num_heads, num_hops
        self.head_dim = dim // num_heads if head_dim is None else head_dim
        self.neighbours, self.combine = neighbours, combine
        inner = num_heads * self.head_dim
        self.qkv = nn.Linear(dim, 3 * inner, bias=qkv_bias)
        self.gates = HopGates(num_heads, num_hops)
        self.proj = nn.Linear(inner if combine == "concat" else self.head_dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        self.walk = None

    def keep_heads(self, numbers: Sequence[int]) -> None:
        """Refuse: the shares of the others at each hop would change, and with them what they do.

        Raises:
            InputError: always.
        """
        raise InputError(
            "heads can't be cut out of Subtree, whose other heads would get their shares of each hop: "
            "give another kind of attention, or keep all"
        )

    def place(self, geometry: Geometry) -> None:
        """See :meth:`Attention.place`."""
        self.walk = RandomWalk.on(geometry, self.neighbours)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, N, C) to tokens (B, N, C)."""
        query, key, value = self.split(self.qkv(x))
        return self._out(subtree_attention(query, key, value, placed(self.walk), self.gates()))

    def explicit(
        self, x: Tensor, tap: Tap, queries: Tensor | None = None, qkv: Tensor | None = None
    ) -> Tensor:
        """See :meth:`Attention.explicit`, and :func:`explicit_subtree_attention` for what is shown."""
        qkv = tapped(tap, "qkv", self.split(self.qkv(x)) if qkv is None else qkv)
        query, key, value = qkv
        walk, gates = placed(self.walk), self.gates()
        return self._out(explicit_subtree_attention(query, key, value, walk, gates, tap, queries), tap)

    def _out(self, mixed: Tensor, tap: Tap = lambda name, tensor: None) -> Tensor:
        """What the heads have mixed, (B, H, Q, D), to tokens (B, Q, C)."""
        context = mixed.sum(1) if self.combine == "sum" else mixed.transpose(1, 2).flatten(2)
        return self.proj_drop(self.proj(tapped(tap, "context", context)))

    def extra_repr(self) -> str:
        """Shown by ``print``."""
        return f"num_hops={self.num_hops}, neighbours={self.neighbours}, combine={self.combine}"


def check_hops(kind: str, num_hops: int, combine: Combine) -> None:
    """Refuse what no module with hops takes.

    Raises:
        InputError: a value out of its range.
    """
    if not 1 <= num_hops <= LARGEST_HOPS:
        raise InputError(f"num_hops of {kind} is {num_hops}: it must be from 1 to {LARGEST_HOPS}")
    if combine not in get_args(Combine):
        raise InputError(f"combine of {kind} is {combine!r}: it must be concat or sum")


def placed(walk: RandomWalk | None) -> RandomWalk:
    """The walk, once it is known.

    Raises:
        InputError: it is not.
    """
    if walk is None:
        raise InputError("subtree attention does not know where its tokens are: call place(geometry) first")
    return walk


def _or_1(total: Tensor) -> Tensor:
    """What to divide by, 1 where nothing was summed: a tiny number would make gradients infinite."""
    return total.where(total > 0, 1)
