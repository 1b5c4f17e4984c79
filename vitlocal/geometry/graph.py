"""Nodes of a graph."""

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitlocal.errors import InputError
from vitlocal.geometry.base import Geometry, Unit


@dataclass(frozen=True, eq=False)
class Graph(Geometry):
    """Nodes joined by edges without direction; their distance is the number of edges on the shortest path.

    A node sees its connected component, or what is at most ``num_hops`` away. The only unit is ``"hops"``.
    Compared by identity, since the edges may be many.

    Args:
        num_nodes: P.
        edges: (2, E) integers, the nodes at both ends of each, as PyTorch Geometric's ``edge_index``; either
            direction or both, and how often, are all the same, and self-loops do nothing.
        num_hops: how far a node sees; None for its whole component.
        num_prefix_tokens: see :class:`Geometry`.
        unit: the same.
        class_token: the same.

    >>> Graph(4, torch.tensor([[0, 1], [1, 2]])).distances(torch.tensor([0]))
    tensor([[0., 1., 2., inf]])
    """

    units = ("hops",)
    num_nodes: int
    edges: Tensor = field(repr=False)
    num_hops: int | None = None
    unit: Unit = field(default="hops", kw_only=True)
    _adjacency: Any = field(init=False, repr=False)
    _component: Tensor = field(init=False, repr=False)
    _components: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the edges, and put them in order."""
        from scipy import sparse  # scipy takes a while, and most runs have no graph

        super().__post_init__()
        if self.num_nodes < 1:
            raise InputError(f"num_nodes is {self.num_nodes}: it must be at least 1")
        if self.num_hops is not None and self.num_hops < 1:
            raise InputError(f"num_hops is {self.num_hops}: it must be at least 1, or None for all")
        if self.edges.ndim != 2 or len(self.edges) != 2 or self.edges.is_floating_point():
            raise InputError(
                f"edges are {self.edges.dtype} of shape {tuple(self.edges.shape)}: "
                "they must be integers (2, E)"
            )
        ends = self.edges.cpu().numpy()
        if ends.size and not (ends.min() >= 0 and ends.max() < self.num_nodes):
            raise InputError(
                f"an edge joins node {ends.min() if ends.min() < 0 else ends.max()}: "
                f"with num_nodes {self.num_nodes} they must be from 0 to {self.num_nodes - 1}"
            )
        # SciPy 1.12 measures paths with int32 alone.
        ends = np.concatenate([ends, ends[::-1]], axis=1).astype(np.int32)
        once = np.ones(ends.shape[1], dtype=bool)
        adjacency = sparse.csr_array((once, (ends[0], ends[1])), shape=(self.num_nodes, self.num_nodes))
        count, component = sparse.csgraph.connected_components(adjacency, directed=False)
        object.__setattr__(self, "_adjacency", adjacency)
        object.__setattr__(self, "_component", torch.from_numpy(component))
        object.__setattr__(self, "_components", count)

    @property
    def num_places(self) -> int:
        """Number of nodes."""
        return self.num_nodes

    @property
    def sees_all(self) -> bool:
        """Where the graph is connected and nothing limits the hops."""
        return self._components == 1 and self.num_hops is None

    def _distances(self, places: Tensor, dtype: torch.dtype) -> Tensor:
        from scipy.sparse.csgraph import dijkstra

        found = dijkstra(self._adjacency, indices=places.cpu().numpy(), unweighted=True)
        return torch.from_numpy(found).to(places.device, dtype)

    def _neighbours(self, places: Tensor) -> Tensor:
        rows = torch.from_numpy(self._adjacency[places.cpu().numpy()].toarray()).to(places.device)
        return rows.scatter_(1, places[:, None], True)

    def _visible(self, places: Tensor) -> Tensor:
        if self.num_hops is not None:
            return self._distances(places, torch.float32) <= self.num_hops
        component = self._component.to(places.device)
        return component[places, None] == component

    def describe(self) -> dict[str, Any]:
        """As :meth:`Geometry.describe`; of the edges their number, as given, and that of the components."""
        kept = {each.name: getattr(self, each.name) for each in fields(self) if each.init}
        counts = {"edges": self.edges.shape[1], "components": self._components}
        return {"kind": "Graph"} | kept | counts
