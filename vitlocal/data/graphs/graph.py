"""A graph with features and labels, checked."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vitlocal.errors import InputError

UNKNOWN = -1
"""The label of a node whose class is not known."""


@dataclass(frozen=True, eq=False)
class LabelledGraph:
    """A graph with one class a node.

    Edges have no direction: either direction or both, and how often, are all the same; so is a self-loop that
    comes twice. A node may have no edge.

    Args:
        source: where it is from, for messages.
        edges: (2, E) integers, the nodes at both ends of each.
        features: (N, F) floats.
        labels: int64 (N,), -1 where unknown.
        class_names: of the K classes.

    Raises:
        InputError: the parts do not go together, or a value is out of its range.
    """

    source: str
    edges: Tensor
    features: Tensor
    labels: Tensor
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check all of it."""
        labels, edges, features, where = self.labels, self.edges, self.features, self.source
        if labels.ndim != 1 or labels.is_floating_point() or not len(labels):
            raise InputError(
                f"{where}: labels are {labels.dtype} of shape {tuple(labels.shape)}: give integers (N,)"
            )
        nodes, classes = len(labels), len(self.class_names)
        if edges.ndim != 2 or len(edges) != 2 or edges.is_floating_point():
            raise InputError(
                f"{where}: edges are {edges.dtype} of shape {tuple(edges.shape)}: give integers (2, E)"
            )
        if features.ndim != 2 or len(features) != nodes or not features.is_floating_point():
            raise InputError(
                f"{where}: features are {features.dtype} of shape {tuple(features.shape)} and there are "
                f"{nodes} labels: give floats, a row a node"
            )
        if edges.numel() and not 0 <= int(edges.min()) <= int(edges.max()) < nodes:
            wrong = int(edges.min()) if edges.min() < 0 else int(edges.max())
            raise InputError(
                f"{where}: an edge ends at node {wrong}: with {nodes} nodes give 0 to {nodes - 1}"
            )
        if not UNKNOWN <= int(labels.min()) <= int(labels.max()) < classes:
            wrong = int(labels.min()) if labels.min() < UNKNOWN else int(labels.max())
            raise InputError(
                f"{where}: a label is {wrong}: with {classes} classes give 0 to {classes - 1}, "
                "or -1 where unknown"
            )
        if not features.isfinite().all():
            node = int((~features.isfinite()).any(1).nonzero()[0])
            raise InputError(f"{where}: a feature of node {node} is not finite: give numbers")

    @property
    def num_nodes(self) -> int:
        """N."""
        return len(self.labels)

    def undirected(self) -> Tensor:
        """Each edge once, (2, E'), from the lower node to the higher; self-loops once too."""
        low, high = self.edges.long().aminmax(dim=0)
        keys = (low * self.num_nodes + high).unique()
        return torch.stack([keys // self.num_nodes, keys % self.num_nodes])
