"""A graph that is drawn: the stochastic block model."""

from itertools import combinations_with_replacement

import numpy as np
import torch

from vitlocal.data.graphs.base import GraphDataModule
from vitlocal.data.graphs.graph import LabelledGraph
from vitlocal.errors import InputError

LARGEST = 10**8


class BlockModel(GraphDataModule):
    """A stochastic block model (Holland et al. 1983) of equal blocks, the classes, and noisy features.

    Each pair of nodes is joined by chance, independently: pairs within a block more often than others, so
    that a node has ``degree`` edges on average, and ``homophily`` of them within its block. A node's features
    are N(0, 1), and the one that stands for its block is higher by ``signal``.

    Args:
        num_nodes: N, a multiple of ``num_classes``.
        num_classes: number of blocks.
        degree: mean number of edges of a node.
        homophily: expected share of edges within a block; one over the number of blocks: no structure.
        signal: how much a node's own features tell.
        graph_seed: what is drawn.
        train_fraction: see :class:`GraphDataModule`.
        val_fraction: the same.
        split_seed: the same.
        eigenvectors: the same.
        normalize_features: the same.
        self_loops: the same.

    Raises:
        InputError: a value out of its range.
    """

    name = "blocks"

    def __init__(
        self,
        num_nodes: int = 100_000,
        num_classes: int = 5,
        degree: float = 10.0,
        homophily: float = 0.5,
        signal: float = 1.0,
        graph_seed: int = 0,
        train_fraction: float = 0.6,
        val_fraction: float = 0.2,
        split_seed: int = 0,
        eigenvectors: int = 3,
        normalize_features: bool = False,
        self_loops: bool = False,
    ) -> None:
        super().__init__(
            train_fraction, val_fraction, split_seed, eigenvectors, normalize_features, self_loops
        )
        if not 2 <= num_classes <= num_nodes <= LARGEST or num_nodes % num_classes:
            raise InputError(
                f"num_nodes={num_nodes} and num_classes={num_classes}: give 2 blocks or more, and a multiple "
                f"of their number as nodes, up to {LARGEST}"
            )
        size = num_nodes // num_classes
        if not 0 <= homophily <= 1:
            raise InputError(f"homophily={homophily}: give a share from 0 to 1")
        if not 0 <= degree * homophily <= (size - 1) / 2 or degree * (1 - homophily) > (num_nodes - size) / 2:
            raise InputError(
                f"degree={degree}: blocks of {size} nodes are too small for it; give a lower one"
            )
        if not 0 <= graph_seed < 2**32:
            raise InputError(f"graph_seed={graph_seed}: give a whole number from 0 to {2**32 - 1}")
        self.num_nodes, self.num_blocks, self.block_size = num_nodes, num_classes, size
        self.degree, self.homophily, self.signal, self.graph_seed = degree, homophily, signal, graph_seed

    def load(self) -> LabelledGraph:
        """Draw the graph."""
        rng = np.random.default_rng(self.graph_seed)
        size, blocks = self.block_size, self.num_blocks
        within = self.degree * self.homophily / (size - 1)
        across = self.degree * (1 - self.homophily) / (self.num_nodes - size)
        parts = []
        for first, second in combinations_with_replacement(range(blocks), 2):
            if first == second:
                places = _drawn(rng, size * (size - 1) // 2, within)
                low, high = _pair(places)
            else:
                places = _drawn(rng, size * size, across)
                low, high = places // size, places % size
            parts.append(np.stack([low + first * size, high + second * size]))
        labels = torch.arange(self.num_nodes) // size
        features = torch.from_numpy(rng.standard_normal((self.num_nodes, blocks), np.float32))
        features[torch.arange(self.num_nodes), labels] += self.signal
        names = tuple(f"block {block}" for block in range(blocks))
        edges = torch.from_numpy(np.concatenate(parts, axis=1))
        return LabelledGraph("the block model", edges, features, labels, names)


def _drawn(rng: np.random.Generator, pairs: int, chance: float) -> np.ndarray:
    """Which of so many pairs are joined, each by the same chance: how many first, then which; ascending."""
    count = rng.binomial(pairs, chance)
    found = np.empty(0, np.int64)
    while len(found) < count:
        found = np.unique(np.concatenate([found, rng.integers(pairs, size=count - len(found))]))
    return found


def _pair(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of nodes i < j in the order (0, 1), (0, 2), (1, 2), (0, 3)... by their places in it."""
    high = ((1 + np.sqrt(1 + 8 * places.astype(np.float64))) / 2).astype(np.int64)
    # The root may be off by one in the last digit.
    high -= high * (high - 1) // 2 > places
    high += (high + 1) * high // 2 <= places
    return places - high * (high - 1) // 2, high
