"""Subtree attention comes to kernel global attention with ever more hops, as |lambda_2|^k, or does not.

On a connected graph that is not bipartite, (P^k)_ij goes to deg(i) / 2|E| whatever j, which cancels.
"""

import math

import networkx as nx
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vitlocal.models import RandomWalk
from vitlocal.models.attention.subtree import subtree_attention

H, D, V = 2, 4, 3


def connected(seed):
    """The largest component of a random graph."""
    graph = nx.gnp_random_graph(60, 0.12, seed=seed)
    graph = nx.convert_node_labels_to_integers(graph.subgraph(max(nx.connected_components(graph), key=len)))
    assert len(graph) > 50 and not nx.is_bipartite(graph)
    return graph


def walk_of(graph):
    return RandomWalk(len(graph), torch.tensor(list(graph.edges)).T)


def hops(graph, which):
    """(K, H, N, V), some hops alone, and queries, keys and values."""
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, H, len(graph), D, dtype=torch.float64)
    value = torch.randn(1, H, len(graph), V, dtype=torch.float64)
    walk, found = walk_of(graph), []
    for hop in which:
        gates = torch.zeros(H, 1 + hop, dtype=torch.float64)
        gates[:, hop] = 1
        found.append(subtree_attention(query, key, value, walk, gates)[0])
    return torch.stack(found), query[0], key[0], value[0]


def everywhere(query, key, value):
    """Kernel attention to all nodes alike."""
    kernel = (1 + F.elu(query)) @ (1 + F.elu(key)).mT
    return kernel @ value / kernel.sum(-1, keepdim=True)


def second_by_hand(graph):
    """The second-largest modulus, of the matrix A D^-1 itself."""
    adjacency = nx.to_numpy_array(graph)
    return sorted(abs(np.linalg.eigvals(adjacency / adjacency.sum(0))))[-2]


@pytest.mark.parametrize("seed", range(4))
def test_the_distance_falls_as_the_second_eigenvalue_to_the_k(seed):
    graph = connected(seed)
    second = second_by_hand(graph)
    assert walk_of(graph).second_eigenvalue() == pytest.approx(second, rel=1e-9)
    most = int(math.log(1e-11) / math.log(second))
    late = np.linspace(most // 2, most, 8).astype(int)
    found, *qkv = hops(graph, [1, *late])
    distance = (found - everywhere(*qkv)).flatten(1).norm(dim=1)
    slope = np.polyfit(late, distance[1:].log().numpy(), 1)[0]
    assert slope == pytest.approx(math.log(second), rel=0.03)
    assert distance[-1] < 1e-8 * distance[0]


def test_weights_go_to_the_degree_alone():
    graph = connected(0)
    (row,) = walk_of(graph).from_nodes(torch.tensor([7]), 200, torch.float64)[-1]
    expected = graph.degree[7] / (2 * graph.number_of_edges())
    torch.testing.assert_close(row, torch.full_like(row, expected), rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    "graph", [nx.grid_2d_graph(4, 5), nx.star_graph(6), nx.cycle_graph(8)], ids=["grid", "star", "cycle"]
)
def test_a_bipartite_graph_does_not_come_to_it(graph):
    graph = nx.convert_node_labels_to_integers(graph)
    assert nx.is_bipartite(graph)
    assert "bipartite" in walk_of(graph).obstacle()
    assert walk_of(graph).second_eigenvalue() == pytest.approx(1, abs=1e-12)
    found, *qkv = hops(graph, [1, 199, 200, 201])
    distance = (found - everywhere(*qkv)).flatten(1).norm(dim=1)
    assert distance[-2:].min() > 0.05 * distance[0]
    torch.testing.assert_close(found[-1], found[-3])  # odd hops have a limit of their own
    assert not torch.allclose(found[-1], found[-2], rtol=0.01)


def test_the_parts_of_a_disconnected_graph_come_to_their_own():
    first, second = connected(0), connected(1)
    graph = nx.disjoint_union(first, second)
    assert "2 components" in walk_of(graph).obstacle()
    assert walk_of(graph).second_eigenvalue() == pytest.approx(1, abs=1e-12)
    found, query, key, value = hops(graph, [200])
    assert (found[-1] - everywhere(query, key, value)).norm() > 0.1
    parts = [
        everywhere(query[:, part], key[:, part], value[:, part])
        for part in (slice(len(first)), slice(len(first), len(graph)))
    ]
    torch.testing.assert_close(found[-1], torch.cat(parts, dim=1), rtol=1e-9, atol=1e-9)


def test_a_connected_graph_with_an_odd_cycle_has_no_obstacle():
    assert walk_of(connected(0)).obstacle() is None
    assert walk_of(nx.cycle_graph(7)).obstacle() is None
    looped = nx.path_graph(3)
    looped.add_edge(0, 0)  # the walk may stay: no two colours
    assert walk_of(looped).obstacle() is None
