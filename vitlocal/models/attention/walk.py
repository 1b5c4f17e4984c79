"""The random walk on a graph, by message passing: its matrix, and none of its powers, is ever formed."""

import warnings
from typing import Literal

import torch
from torch import Tensor, nn

from vitlocal.errors import InputError
from vitlocal.geometry import Geometry, Graph, Grid

Neighbours = Literal[4, 8]
"""Patches that are joined to a patch: those beside it, or the diagonal ones too."""

# Which works for what is done here, and tests say so.
warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")

SMALL = 128
"""Nodes up to which a dense product is faster on a CPU, and its matrix no larger than the features."""


class RandomWalk(nn.Module):
    """One step of the walk that leaves a node by any of its edges alike: P = A D^-1.

    P_ij is 1 over the degree of j where i and j are joined, so columns sum to 1. A step costs O(edges) per
    feature, backwards too. A node without edges gets nothing.

    Args:
        num_nodes: N.
        edges: (2, E) integers from 0 to N - 1; either direction or both, and how often, are all the same. A
            self-loop is one edge, by which the walk may stay.

    Attributes:
        degree: number of edges of each node, int64 (N,).
    """

    degree: Tensor
    rows: Tensor
    columns: Tensor
    adjacency: Tensor | None

    def __init__(self, num_nodes: int, edges: Tensor) -> None:
        super().__init__()
        self.num_nodes = num_nodes
        source, target = edges.long()
        keys = torch.cat([source * num_nodes + target, target * num_nodes + source]).unique()
        row = keys // num_nodes
        degree = torch.bincount(row, minlength=num_nodes)
        starts = torch.cat([degree.new_zeros(1), degree.cumsum(0)])
        # Not in the state dict: the geometry says what they are. int32, as the sparse product wants them.
        self.register_buffer("degree", degree, persistent=False)
        self.register_buffer("rows", starts.int(), persistent=False)
        self.register_buffer("columns", (keys % num_nodes).int(), persistent=False)
        dense = (
            torch.zeros(num_nodes**2, dtype=torch.bool, device=keys.device) if num_nodes <= SMALL else None
        )
        if dense is not None:
            dense = dense.index_fill(0, keys, True).view(num_nodes, num_nodes)
        self.register_buffer("adjacency", dense, persistent=False)

    @classmethod
    def on(cls, geometry: Geometry, neighbours: Neighbours = 8) -> "RandomWalk":
        """The walk among the tokens of a geometry; a prefix token is joined to every other token.

        Args:
            geometry: a grid, or a graph.
            neighbours: of a patch, on a grid.

        Raises:
            InputError: another kind of geometry.
        """
        prefix = geometry.num_prefix_tokens
        if isinstance(geometry, Graph):
            edges = geometry.edges
        elif isinstance(geometry, Grid):
            edges = _grid_edges(geometry, neighbours)
        else:
            raise InputError(
                f"the tokens are in a {type(geometry).__name__}: subtree attention needs a Grid or a Graph"
            )
        tokens = torch.arange(geometry.num_tokens, device=edges.device)
        joined = torch.cartesian_prod(tokens[:prefix], tokens).T
        joined = joined[:, joined[0] < joined[1]]
        return cls(geometry.num_tokens, torch.cat([edges + prefix, joined], dim=1))

    def forward(self, x: Tensor) -> Tensor:
        """P x, of features (N, ...) of any shape."""
        return self._step(x, back=False)

    def back(self, x: Tensor) -> Tensor:
        """P^T x, of features (N, ...) of any shape."""
        return self._step(x, back=True)

    def from_nodes(self, nodes: Tensor, num_hops: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Rows of the first powers of P, of these nodes only.

        Args:
            nodes: (Q,) int64.
            num_hops: K, the highest power.
            dtype: of the result.

        Returns:
            (K, Q, N): entry (k, q, j) is that of P^(k + 1) in row ``nodes[q]`` and column j.
        """
        reached = torch.zeros(self.num_nodes, len(nodes), dtype=dtype, device=nodes.device)
        reached[nodes, torch.arange(len(nodes), device=nodes.device)] = 1
        rows = []
        for _ in range(num_hops):
            reached = self.back(reached)
            rows.append(reached.T)
        return torch.stack(rows)

    def obstacle(self) -> str | None:
        """Why ever longer walks do not come to end at a node by its degree alone; None: they do.

        They do where the graph is connected and not bipartite, O(edges) to find out.
        """
        import numpy as np
        from scipy import sparse  # scipy takes a while

        rows, columns = self.rows.cpu().numpy(), self.columns.cpu().numpy()
        once = np.ones(len(columns), dtype=bool)
        adjacency = sparse.csr_array((once, columns, rows), shape=(self.num_nodes, self.num_nodes))
        parts = sparse.csgraph.connected_components(adjacency, directed=False, return_labels=False)
        if parts > 1:
            return f"the graph has {parts} components, between which nothing walks"
        # Two copies of each node, and edges from each to the other: in one piece unless two colours do.
        twice = sparse.block_array([[None, adjacency], [adjacency, None]], format="csr")
        if sparse.csgraph.connected_components(twice, directed=False, return_labels=False) > 1:
            return "the graph is bipartite: walks of even and odd length end in different halves"
        return None

    def second_eigenvalue(self) -> float:
        """The second-largest modulus of an eigenvalue of P; 1 where there is an :meth:`obstacle`.

        By all eigenvalues of the symmetric D^-1/2 A D^-1/2, which P is similar to: for small graphs.
        """
        with torch.no_grad():
            root = self.degree.double().sqrt()
            matrix = self(torch.diag(root)) / root.clamp(min=1)[:, None]
            moduli = torch.linalg.eigvalsh(matrix).abs().sort(descending=True).values
        return float(moduli[1])

    def _step(self, x: Tensor, back: bool) -> Tensor:
        flat = x.flatten(1)
        if self.adjacency is not None:
            matrix = self.adjacency.to(x.dtype) / self.degree.clamp(min=1).to(x.dtype)
            stepped = (matrix.T if back else matrix) @ flat
        else:
            stepped = walk_step(flat.contiguous(), self.rows, self.columns, self.degree, back)
        return stepped.view_as(x)


@torch.library.custom_op("vitlocal::walk_step", mutates_args=())
def walk_step(x: Tensor, rows: Tensor, columns: Tensor, degree: Tensor, back: bool) -> Tensor:
    """P x, features (N, F) to features (N, F), in one pass over them.

    Args:
        x: of all nodes.
        rows: (N + 1,), where each node's neighbours begin in ``columns``.
        columns: the neighbours of all nodes, one node after the other; symmetric.
        degree: (N,), how many they are.
        back: P^T x in place of it.
    """
    share = 1 / degree.clamp(min=1).to(x.dtype)
    shares = share.repeat_interleave(degree) if back else share[columns]
    matrix = torch.sparse_csr_tensor(rows, columns, shares, (len(x), len(x)), check_invariants=False)
    # Not matrix @ x, which first fills what it adds to with zeros, twice.
    return torch.empty_like(x).addmm_(matrix, x, beta=0)


@walk_step.register_fake
def _(x: Tensor, rows: Tensor, columns: Tensor, degree: Tensor, back: bool) -> Tensor:
    return torch.empty_like(x)


def _keep(ctx: object, inputs: tuple[Tensor, Tensor, Tensor, Tensor, bool], output: Tensor) -> None:
    ctx.graph, ctx.back = inputs[1:4], inputs[4]  # type: ignore[attr-defined]


def _towards(ctx: object, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
    graph, back = ctx.graph, ctx.back  # type: ignore[attr-defined]
    return walk_step(gradient.contiguous(), *graph, not back), None, None, None, None


walk_step.register_autograd(_towards, setup_context=_keep)


def _grid_edges(grid: Grid, neighbours: Neighbours) -> Tensor:
    """The edges among patches, each once, (2, E)."""
    places = torch.arange(grid.num_places).view(grid.size)
    pairs = [(places[:, :-1], places[:, 1:]), (places[:-1], places[1:])]
    if neighbours == 8:
        pairs += [(places[:-1, :-1], places[1:, 1:]), (places[:-1, 1:], places[1:, :-1])]
    return torch.cat([torch.stack([first.flatten(), second.flatten()]) for first, second in pairs], dim=1)
