"""Networks that classify the nodes of a graph."""

from dataclasses import replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlocal.errors import InputError
from vitlocal.geometry import Geometry, Graph
from vitlocal.models.attention import Tap
from vitlocal.models.attention.base import tapped
from vitlocal.models.attention.subtree import (
    Combine,
    HopGates,
    check_hops,
    explicit_subtree_attention,
    placed,
    subtree_attention,
)
from vitlocal.models.attention.walk import RandomWalk

LARGEST = 2**16


class MakeNodeNetwork(Protocol):
    """What makes a network once the graph is known: a class, or ``functools.partial`` of one.

    The network has a method ``place(graph)``, which tells it the graph, and is called with the features of
    all nodes (N, F), for logits (N, K).
    """

    def __call__(self, *, num_features: int, num_classes: int) -> nn.Module:
        """Make it.

        Args:
            num_features: F, features of a node.
            num_classes: K, number of logits.
        """


class NodeSubtree(nn.Module):
    """Subtree attention whose values are logits already, as in the paper's network.

    Args:
        dim: features C of a node.
        num_heads: number H of heads.
        num_classes: K.
        num_hops: how far a head looks.
        combine: the heads' logits ``concat``, with a linear layer after them, or their ``sum``.
        drop_rate: dropout between the two.
    """

    walk: RandomWalk | None

    def __init__(
        self, dim: int, num_heads: int, num_classes: int, num_hops: int, combine: Combine, drop_rate: float
    ) -> None:
        super().__init__()
        check_hops(type(self).__name__, num_hops, combine)
        self.num_heads, self.num_hops, self.combine = num_heads, num_hops, combine
        self.head_dim = dim // num_heads
        self.query = nn.Linear(dim, num_heads * self.head_dim)
        self.key = nn.Linear(dim, num_heads * self.head_dim)
        self.value = nn.Linear(dim, num_heads * num_classes)
        self.gates = HopGates(num_heads, num_hops)
        concat = combine == "concat"
        self.drop = nn.Dropout(drop_rate) if concat else nn.Identity()
        self.proj = nn.Linear(num_heads * num_classes, num_classes) if concat else nn.Identity()
        self.walk = None

    def place(self, geometry: Geometry) -> None:
        """See :meth:`vitlocal.models.Attention.place`."""
        self.walk = RandomWalk.on(geometry).to(self.query.weight.device)

    def forward(self, x: Tensor) -> Tensor:
        """Nodes (1, N, C) to logits (1, N, K)."""
        return self._out(subtree_attention(*self._projected(x), placed(self.walk), self.gates()))

    def explicit(self, x: Tensor, tap: Tap, queries: Tensor | None = None) -> Tensor:
        """See :func:`~vitlocal.models.attention.subtree.explicit_subtree_attention`; then ``context``."""
        projected, gates = self._projected(x), self.gates()
        mixed = explicit_subtree_attention(*projected, placed(self.walk), gates, tap, queries)
        return self._out(mixed, tap)

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = (
            layer(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        return query, key, value

    def _out(self, mixed: Tensor, tap: Tap = lambda name, tensor: None) -> Tensor:
        context = mixed.sum(1) if self.combine == "sum" else mixed.transpose(1, 2).flatten(2)
        return self.proj(self.drop(tapped(tap, "context", context)))


class STAGNN(nn.Module):
    """The graph network with subtree attention of Huang et al. 2023: one layer of attention, K hops far.

    A linear layer and ReLU, with dropout before each of the two layers; then attention whose values are
    logits. No layers on each other, no norm, no MLP.

    Args:
        num_features: F, features of a node.
        num_classes: K.
        hidden_dim: features after the first layer.
        num_heads: attention heads; each has ``hidden_dim`` over their number of queries' features, rounded
            down.
        num_hops: how far a node sees.
        combine: the heads' logits ``concat``, with a linear layer after them, or their ``sum``.
        drop_rate: dropout.

    Attributes:
        geometry: of the nodes, a node seeing those at most ``num_hops`` away; None before :meth:`place`.

    Raises:
        InputError: a value out of its range.
    """

    geometry: Graph | None

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        hidden_dim: int = 64,
        num_heads: int = 4,
        num_hops: int = 3,
        combine: Combine = "concat",
        drop_rate: float = 0.5,
    ) -> None:
        super().__init__()
        _check({"hidden_dim": hidden_dim, "num_heads": num_heads}, drop_rate)
        if hidden_dim < num_heads:
            raise InputError(
                f"hidden_dim is {hidden_dim} and num_heads is {num_heads}: give each head a feature"
            )
        self.drop = nn.Dropout(drop_rate)
        self.embed = nn.Linear(num_features, hidden_dim)
        self.attn = NodeSubtree(hidden_dim, num_heads, num_classes, num_hops, combine, drop_rate)
        self.geometry = None

    def place(self, graph: Graph) -> None:
        """Told its graph, before it is first run."""
        self.geometry = replace(graph, num_hops=self.attn.num_hops)
        self.attn.place(graph)

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, F) to logits (N, K)."""
        x = self.drop(F.relu(self.embed(self.drop(features))))
        return self.attn(x[None])[0]


class _PyGNetwork(nn.Module):
    """A network of PyTorch Geometric: of this many layers, with dropout before each."""

    edges: Tensor

    def __init__(self, kind: str, sizes: dict[str, Any], drop_rate: float) -> None:
        super().__init__()
        _check({name: size for name, size in sizes.items() if name != "out_channels"}, drop_rate)
        try:
            from torch_geometric.nn import models
        except ImportError as error:
            raise InputError(
                f"the network {kind} is PyTorch Geometric's ({error}): pip install 'vitlocal[graph]'"
            ) from error
        self.drop = nn.Dropout(drop_rate)
        self.network = getattr(models, kind)(dropout=drop_rate, **sizes)
        self.register_buffer("edges", torch.empty(2, 0, dtype=torch.int64), persistent=False)

    def place(self, graph: Graph) -> None:
        """Told its graph, before it is first run."""
        low, high = graph.edges
        back = graph.edges[:, low != high].flip(0)
        self.edges = torch.cat([graph.edges, back], dim=1).to(self.edges.device)

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, F) to logits (N, K)."""
        return self.network(self.drop(features), self.edges)


class GCN(_PyGNetwork):
    """A graph convolutional network (Kipf and Welling 2017), PyTorch Geometric's (extra ``graph``).

    Args:
        num_features: F, features of a node.
        num_classes: K.
        hidden_dim: features between the layers.
        depth: number of layers.
        drop_rate: dropout.

    Raises:
        InputError: a value out of its range, or PyTorch Geometric is missing.
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        hidden_dim: int = 64,
        depth: int = 2,
        drop_rate: float = 0.5,
    ) -> None:
        sizes = {"in_channels": num_features, "hidden_channels": hidden_dim, "num_layers": depth}
        super().__init__("GCN", sizes | {"out_channels": num_classes}, drop_rate)


class GAT(_PyGNetwork):
    """A graph attention network (Velickovic et al. 2018), PyTorch Geometric's (extra ``graph``).

    Args:
        num_features: F, features of a node.
        num_classes: K.
        hidden_dim: features between the layers, of all heads together.
        depth: number of layers.
        num_heads: attention heads; ``hidden_dim`` is a multiple of them.
        drop_rate: dropout, also of attention weights.

    Raises:
        InputError: a value out of its range, or PyTorch Geometric is missing.
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        hidden_dim: int = 64,
        depth: int = 2,
        num_heads: int = 8,
        drop_rate: float = 0.5,
    ) -> None:
        if num_heads < 1 or hidden_dim % num_heads:
            raise InputError(
                f"hidden_dim is {hidden_dim} and num_heads is {num_heads}: hidden_dim must be a multiple"
            )
        sizes = {"in_channels": num_features, "hidden_channels": hidden_dim, "num_layers": depth}
        super().__init__("GAT", sizes | {"out_channels": num_classes, "heads": num_heads}, drop_rate)


def _check(sizes: dict[str, int], drop_rate: float) -> None:
    for name, value in sizes.items():
        if not 1 <= value <= LARGEST:
            raise InputError(f"{name} is {value}: it must be from 1 to {LARGEST}")
    if not 0 <= drop_rate < 1:
        raise InputError(f"drop_rate is {drop_rate}: it must be at least 0 and below 1")
