"""What all graphs have in common."""

import math
from abc import ABC, abstractmethod
from typing import Any, TypedDict

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader

from vitlocal.data.dataset import identity
from vitlocal.data.graphs.features import laplacian_eigenvectors, row_normalised
from vitlocal.data.graphs.graph import UNKNOWN, LabelledGraph
from vitlocal.data.module import DataModule
from vitlocal.errors import InputError
from vitlocal.geometry import Graph


class NodeBatch(TypedDict):
    """The whole graph, and which of its nodes count."""

    features: Tensor
    """float32 (N, F), of all nodes."""
    label: Tensor
    """int64 (N,), of all nodes, -1 where unknown."""
    nodes: Tensor
    """int64 (M,), those that train, validate or test."""


class GraphDataModule(DataModule, ABC):
    """One graph, whose nodes are divided: some train, some validate, some test; each batch is all of it.

    Subclasses set :attr:`name` and implement :meth:`load`.

    Args:
        train_fraction: share of the labelled nodes that train.
        val_fraction: share that validate; the rest tests.
        split_seed: which they are, 0 to 4294967295.
        eigenvectors: number of eigenvectors of the Laplacian that are put beside the features.
        normalize_features: divide each node's own features by their sum.
        self_loops: join each node to itself.

    Attributes:
        graph: the geometry of the nodes.
        features: float32 (N, F), with the eigenvectors.
        labels: int64 (N,).
        nodes: those that ``train``, ``val`` and ``test``, int64 each.
        num_features: F.
        num_classes: K.
        class_names: of the K classes.

    Raises:
        InputError: an argument is out of its range.
    """

    batch_size = 1
    graph: Graph
    features: Tensor
    labels: Tensor
    nodes: dict[str, Tensor]
    num_features: int
    num_classes: int
    class_names: tuple[str, ...]

    def __init__(
        self,
        train_fraction: float = 0.6,
        val_fraction: float = 0.2,
        split_seed: int = 0,
        eigenvectors: int = 3,
        normalize_features: bool = False,
        self_loops: bool = False,
    ) -> None:
        super().__init__()
        for name, share in (("train_fraction", train_fraction), ("val_fraction", val_fraction)):
            if not 0 < share < 1:
                raise InputError(f"{name}={share}: give a share above 0 and below 1")
        if train_fraction + val_fraction >= 1:
            raise InputError(
                f"train_fraction={train_fraction} and val_fraction={val_fraction} leave no nodes to test: "
                "give shares that add up to less than 1"
            )
        if not 0 <= split_seed < 2**32:
            raise InputError(f"split_seed={split_seed}: give a whole number from 0 to {2**32 - 1}")
        if eigenvectors < 0:
            raise InputError(f"eigenvectors={eigenvectors}: give 0 or more")
        self.save_hyperparameters()
        self.train_fraction = train_fraction
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.eigenvectors = eigenvectors
        self.normalize_features = normalize_features
        self.self_loops = self_loops

    def fetch(self) -> None:
        """Download what :meth:`load` reads; called in one process only."""

    @abstractmethod
    def load(self) -> LabelledGraph:
        """Read or make the graph.

        Raises:
            InputError: the data are missing or wrong.
        """

    def prepare_data(self) -> None:
        """Download."""
        self.fetch()

    def setup(self, stage: str | None = None) -> None:
        """Read the graph, once for all stages.

        Raises:
            InputError: the data are missing or wrong.
        """
        if hasattr(self, "graph"):
            return
        found = self.load()
        edges = found.undirected()
        if self.self_loops:
            loops = torch.arange(found.num_nodes).expand(2, -1)
            edges = torch.cat([edges[:, edges[0] != edges[1]], loops], dim=1)
        alone = found.num_nodes - len(edges.unique())
        if alone:
            rank_zero_info(f"vitlocal: {alone} nodes of {self.name} have no edge: they see themselves only")
        features = found.features.float()
        if self.normalize_features:
            features = row_normalised(features)
        vectors = laplacian_eigenvectors(edges, found.num_nodes, self.eigenvectors)
        self.features = torch.cat([features, vectors], dim=1)
        if not self.features.shape[1]:
            raise InputError(
                f"the nodes of {self.name} have no features: give data.eigenvectors of 1 or more"
            )
        self.labels = found.labels.long()
        self.nodes = self._divide(found)
        self.class_names, self.num_classes = found.class_names, len(found.class_names)
        self.num_features = self.features.shape[1]
        self.graph = Graph(found.num_nodes, edges)

    def _divide(self, found: LabelledGraph) -> dict[str, Tensor]:
        """A random split of the labelled nodes, as in Huang et al. 2023."""
        labelled = (found.labels != UNKNOWN).nonzero().squeeze(1)
        train, val = (math.floor(share * len(labelled)) for share in (self.train_fraction, self.val_fraction))
        if min(train, val, len(labelled) - train - val) < 1:
            raise InputError(
                f"{found.source} has {len(labelled)} nodes with a label: too few to train, validate and "
                "test; give data.train_fraction and data.val_fraction that leave each a node"
            )
        generator = torch.Generator().manual_seed(self.split_seed)
        shuffled = labelled[torch.randperm(len(labelled), generator=generator)]
        parts = shuffled.split([train, val, len(labelled) - train - val])
        return {name: part.sort().values for name, part in zip(("train", "val", "test"), parts, strict=True)}

    def train_dataloader(self) -> DataLoader[Any]:
        """One batch: the graph, and the nodes that train."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Any]:
        """The same of those that validate."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """The same of those that test."""
        return self._loader("test")

    def _loader(self, split: str) -> DataLoader[Any]:
        batch = NodeBatch(features=self.features, label=self.labels, nodes=self.nodes[split])
        return DataLoader([batch], batch_size=None, collate_fn=identity, generator=torch.Generator())  # type: ignore[arg-type]
