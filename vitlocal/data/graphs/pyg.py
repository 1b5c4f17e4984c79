"""Graphs of PyTorch Geometric."""

from pathlib import Path
from typing import Any

from vitlocal.data.graphs.base import GraphDataModule
from vitlocal.data.graphs.graph import LabelledGraph
from vitlocal.errors import InputError

DATASETS: dict[str, tuple[str, dict[str, Any]]] = {
    "cora": ("Planetoid", {"name": "Cora"}),
    "citeseer": ("Planetoid", {"name": "CiteSeer"}),
    "pubmed": ("Planetoid", {"name": "PubMed"}),
    "corafull": ("CitationFull", {"name": "Cora"}),
    "computers": ("Amazon", {"name": "Computers"}),
    "photo": ("Amazon", {"name": "Photo"}),
    "cs": ("Coauthor", {"name": "CS"}),
    "physics": ("Coauthor", {"name": "Physics"}),
    "actor": ("Actor", {}),
    "deezer": ("DeezerEurope", {}),
}
"""The ten data sets of Huang et al. 2023: class and arguments in ``torch_geometric.datasets``."""


class PyG(GraphDataModule):
    """A graph of PyTorch Geometric (extra ``graph``), which downloads it; its own splits are not used.

    Args:
        dataset: one of the names in :data:`DATASETS`.
        path: folder that the files are in, or come into.
        train_fraction: see :class:`GraphDataModule`.
        val_fraction: the same.
        split_seed: the same.
        eigenvectors: the same.
        normalize_features: the same.
        self_loops: the same.

    Raises:
        InputError: there is no such data set, or PyTorch Geometric is missing.
    """

    def __init__(
        self,
        dataset: str,
        path: str = "data/pyg",
        train_fraction: float = 0.6,
        val_fraction: float = 0.2,
        split_seed: int = 3047,
        eigenvectors: int = 3,
        normalize_features: bool = True,
        self_loops: bool = False,
    ) -> None:
        super().__init__(
            train_fraction, val_fraction, split_seed, eigenvectors, normalize_features, self_loops
        )
        if dataset not in DATASETS:
            raise InputError(f"dataset={dataset}: give one of {', '.join(DATASETS)}")
        self.name, self.path = dataset, path

    def fetch(self) -> None:
        """Have PyTorch Geometric download what is not there."""
        self._read()

    def load(self) -> LabelledGraph:
        """Read the graph.

        Raises:
            InputError: it can't be downloaded, or read.
        """
        data = self._read()
        classes = int(data.y.max()) + 1
        return LabelledGraph(
            f"{self.name} in {self.path}", data.edge_index, data.x, data.y, tuple(map(str, range(classes)))
        )

    def _read(self) -> Any:
        try:
            from torch_geometric import datasets
        except ImportError as error:
            raise InputError(
                f"data set {self.name} is PyTorch Geometric's ({error}): pip install 'vitlocal[graph]'"
            ) from error
        kind, arguments = DATASETS[self.name]
        try:
            return getattr(datasets, kind)(root=str(Path(self.path) / self.name), **arguments)[0]
        except Exception as error:  # whatever a download or a damaged file raises
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(
                f"data set {self.name} can't be read from {self.path} or downloaded ({said}): "
                "see that the network is there, or give data.path with the files"
            ) from error
