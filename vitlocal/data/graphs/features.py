"""Features of nodes that come from the graph itself, and their scale."""

import numpy as np
import torch
from torch import Tensor

DENSE = 512
"""Nodes up to which all eigenvectors are computed, which is exact, and fast enough."""

TOLERANCE = 1e-2
"""Of eigenvalues, relative, as in the code of Huang et al. 2023."""


def row_normalised(features: Tensor) -> Tensor:
    """Each row over its sum, (N, F); rows that sum to 0 stay as they are."""
    total = features.sum(1, keepdim=True)
    return features / total.where(total != 0, 1)


def laplacian_eigenvectors(edges: Tensor, num_nodes: int, count: int) -> Tensor:
    """The first eigenvectors of the normalised Laplacian I - D^-1/2 A D^-1/2, but for the very first.

    Each has length 1, and a positive largest entry. A node without edges counts as a component of its own.

    Args:
        edges: (2, E), each once, without direction.
        num_nodes: N.
        count: how many; fewer are filled up with zeros where the graph has no more.

    Returns:
        float32 (N, ``count``).
    """
    from scipy import sparse  # scipy takes a while
    from scipy.sparse.linalg import eigsh

    ends = edges.numpy()
    off = ends[:, ends[0] != ends[1]]
    row, column = np.concatenate([ends, off[::-1]], axis=1)
    degree = np.bincount(row, minlength=num_nodes).astype(np.float64)
    root = np.sqrt(np.maximum(degree, 1))
    values = 1 / (root[row] * root[column])
    matrix = sparse.csr_array((values, (row, column)), shape=(num_nodes, num_nodes))
    wanted = min(count + 1, num_nodes)
    # Of 2 I - L, whose largest eigenvalues are the Laplacian's smallest; L is 0 for a node without edges.
    matrix = matrix + sparse.diags_array(np.where(degree > 0, 1.0, 2.0), format="csr")
    if num_nodes <= DENSE:
        _, vectors = np.linalg.eigh(matrix.toarray())
        vectors = vectors[:, ::-1][:, :wanted]
    else:
        start = np.random.default_rng(0).standard_normal(num_nodes)  # else it is another one every time
        found, vectors = eigsh(matrix, k=wanted, which="LA", tol=TOLERANCE, v0=start)
        vectors = vectors[:, np.argsort(found)[::-1]]
    vectors = vectors[:, 1:]
    largest = np.abs(vectors).argmax(0)
    vectors = vectors * np.sign(vectors[largest, np.arange(vectors.shape[1])])
    padded = np.zeros((num_nodes, count), np.float32)
    padded[:, : vectors.shape[1]] = vectors
    return torch.from_numpy(padded)
