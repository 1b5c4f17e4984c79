"""Graphs whose nodes are classified: one LightningDataModule each, on one base."""

from vitlocal.data.graphs.base import GraphDataModule, NodeBatch
from vitlocal.data.graphs.block_model import BlockModel
from vitlocal.data.graphs.features import laplacian_eigenvectors, row_normalised
from vitlocal.data.graphs.graph import LabelledGraph
from vitlocal.data.graphs.karate import Karate
from vitlocal.data.graphs.pyg import PyG

__all__ = [
    "BlockModel",
    "GraphDataModule",
    "Karate",
    "LabelledGraph",
    "NodeBatch",
    "PyG",
    "laplacian_eigenvectors",
    "row_normalised",
]
