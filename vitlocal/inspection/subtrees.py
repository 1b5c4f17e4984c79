"""The rooted subtree of a node, drawn: rings of hops, and what each head puts on each node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vitlocal.geometry import Graph
from vitlocal.heads.figures import COLOUR_MAP, REFERENCE_COLOUR

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMED = 40
"""Most nodes that are named by their numbers."""

COLUMNS = 10
"""Most hops that are drawn."""


@dataclass(frozen=True)
class Subtree:
    """What a node sees.

    Attributes:
        nodes: S that it sees, ascending, itself among them, int64 (S,).
        hops: how far they are, 0 for itself, int64 (S,).
        edges: among them, by their positions in ``nodes``, int64 (2, E).
    """

    nodes: np.ndarray
    hops: np.ndarray
    edges: np.ndarray

    @classmethod
    def of(cls, graph: Graph, root: int) -> Subtree:
        """What a node of a graph sees.

        Args:
            graph: with the hops that it sees.
            root: the node.
        """
        query = torch.tensor([root])
        nodes = graph.visible(query)[0].nonzero().squeeze(1)
        place = torch.full((graph.num_nodes,), -1).index_copy(0, nodes, torch.arange(len(nodes)))
        edges = place[graph.edges]
        edges = edges[:, (edges >= 0).all(0) & (edges[0] != edges[1])]
        hops = graph.distances(query)[0, nodes].long()
        return cls(nodes.numpy(), hops.numpy(), edges.numpy())

    def layout(self) -> np.ndarray:
        """Where to draw each node, (S, 2): the root in the middle, the others on a ring for each hop.

        A node is behind the first of its neighbours that are a hop nearer, in a sector as wide as the leaves
        behind it are many.
        """
        size, root = len(self.nodes), int(np.flatnonzero(self.hops == 0)[0])
        parent = np.full(size, size)
        ends = np.concatenate([self.edges, self.edges[::-1]], axis=1)
        for near, far in ends[:, self.hops[ends[0]] + 1 == self.hops[ends[1]]].T:
            parent[far] = min(parent[far], near)
        outward = np.argsort(self.hops, kind="stable")
        leaves = np.zeros(size)
        for node in outward[:0:-1]:
            leaves[node] = max(leaves[node], 1)
            leaves[parent[node]] += leaves[node]
        begin, taken = np.zeros(size), np.zeros(size)
        for node in outward[1:]:
            begin[node] = taken[node] = taken[parent[node]]
            taken[parent[node]] += leaves[node]
        angle = 2 * np.pi * (begin + leaves / 2) / max(leaves[root], 1)
        return self.hops[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def subtree_figure(seen: Subtree, name: str, heads: Sequence[tuple[str, Tensor]]) -> Figure:
    """A row a head, a column a hop: the subtree, its nodes coloured and sized by the weights of that hop.

    The weights of a head's hop sum to 1, or to 0 where no walk of that length leads; those of all hops
    together, by gates of either sign, are no shares, and are not drawn. Of many hops the first are drawn.

    Args:
        seen: the subtree, its root framed.
        name: of the root, for people.
        heads: what each is called, and its weights (K, S) at each hop; (1, S) where heads have no hops.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    weights = [rows[:COLUMNS].numpy() for _, rows in heads]
    columns = len(weights[0])
    figure = Figure(figsize=(2.3 * columns + 1.2, 2.3 * len(heads) + 0.5), layout="constrained")
    every = figure.subplots(len(heads), columns, squeeze=False)
    points, most = seen.layout(), max(float(rows.max()) for rows in weights)
    root = points[seen.hops == 0]
    limit = seen.hops.max() + 0.5
    for (title, _), rows, beside in zip(heads, weights, every, strict=True):
        for hop, (row, axes) in enumerate(zip(rows, beside, strict=True), start=1):
            axes.add_collection(LineCollection(points[seen.edges.T], colors="lightgrey", linewidths=0.5))
            sizes = 15 + 150 * row / most
            drawn = axes.scatter(*points.T, sizes, row, cmap=COLOUR_MAP, vmin=0, vmax=most, zorder=2)
            axes.scatter(
                *root.T,
                15 + 150 * row[seen.hops == 0] / most + 40,
                c="none",
                edgecolors=REFERENCE_COLOUR,
                zorder=3,
            )
            if len(seen.nodes) <= NAMED:
                for node, place in zip(seen.nodes, points, strict=True):
                    axes.annotate(
                        str(node), place, (3, 3), textcoords="offset points", fontsize=5, color="dimgrey"
                    )
            axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.set_title(f"hop {hop}" if columns > 1 else "", fontsize="small")
        beside[0].set_ylabel(title, fontsize="small")
    figure.suptitle(f"{name}: it sees {len(seen.nodes)} nodes", fontsize="medium", parse_math=False)
    figure.colorbar(drawn, ax=every, label="weight", shrink=min(1, 2 / len(heads)))
    return figure
