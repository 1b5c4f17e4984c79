"""The drawn graph against what it is drawn from."""

import math

import numpy as np
import pytest
import torch

from vitlocal.data.graphs import BlockModel
from vitlocal.data.graphs.block_model import _pair
from vitlocal.errors import InputError


def test_edges_between_blocks_are_as_many_as_expected():
    data = BlockModel(num_nodes=3000, num_classes=3, degree=20, homophily=0.7)
    graph = data.load()
    low, high = graph.undirected()
    assert len(low) == graph.edges.shape[1] and (low < high).all()  # none twice, no loops
    blocks = torch.stack([graph.labels[low], graph.labels[high]])
    for first in range(3):
        for second in range(first, 3):
            pairs = 1000 * 999 / 2 if first == second else 1000 * 1000
            chance = 20 * 0.7 / 999 if first == second else 20 * 0.3 / 2000
            count = int(((blocks[0] == first) & (blocks[1] == second)).sum())
            assert abs(count - pairs * chance) < 5 * math.sqrt(pairs * chance)
    degrees = torch.bincount(graph.edges.flatten(), minlength=3000).double()
    assert degrees.mean().item() == pytest.approx(20, rel=0.02)
    assert degrees.var().item() == pytest.approx(20, rel=0.15)  # as Poisson's


def test_pairs_are_numbered_without_a_gap():
    low, high = _pair(np.arange(6 * 5 // 2))
    assert list(zip(low, high, strict=True)) == [(i, j) for j in range(6) for i in range(j)]
    last = 10**9 * (10**9 - 1) // 2 - 1
    assert [int(part[0]) for part in _pair(np.array([last]))] == [10**9 - 2, 10**9 - 1]


def test_features_tell_of_the_block_by_the_signal():
    graph = BlockModel(num_nodes=6000, num_classes=3, degree=4, signal=0.8).load()
    means = torch.stack([graph.features[graph.labels == block].mean(0) for block in range(3)])
    torch.testing.assert_close(means, 0.8 * torch.eye(3), rtol=0, atol=0.1)
    assert graph.features.std(0).mean().item() == pytest.approx(math.sqrt(1 + 0.64 * 2 / 9), rel=0.03)


def test_the_seed_decides():
    first, again, other = (BlockModel(300, 3, degree=6, graph_seed=seed).load() for seed in (0, 0, 1))
    assert torch.equal(first.edges, again.edges) and torch.equal(first.features, again.features)
    assert first.edges.shape != other.edges.shape or not torch.equal(first.edges, other.edges)


def test_a_hundred_thousand_nodes_are_drawn_at_once():
    graph = BlockModel().load()
    assert graph.num_nodes == 10**5 and 480_000 < graph.edges.shape[1] < 520_000


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_nodes": 10, "num_classes": 3}, "a multiple of their number"),
        ({"homophily": 1.5}, "homophily=1.5: give a share from 0 to 1"),
        ({"num_nodes": 100, "degree": 60}, "degree=60: blocks of 20 nodes are too small"),
        ({"train_fraction": 0.9, "val_fraction": 0.1}, "leave no nodes to test"),
        ({"split_seed": -1}, "split_seed=-1"),
    ],
)
def test_wrong_values_get_a_sentence(options, sentence):
    with pytest.raises(InputError, match=sentence):
        BlockModel(**options)
