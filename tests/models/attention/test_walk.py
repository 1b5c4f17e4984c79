"""The random walk against its matrix."""

import networkx as nx
import pytest
import torch

from vitlocal.errors import InputError
from vitlocal.geometry import Graph, Grid, Sequence
from vitlocal.models import RandomWalk
from vitlocal.models.attention import walk as module

GRAPHS = {
    "random": nx.gnp_random_graph(20, 0.2, seed=1),
    "star": nx.star_graph(6),
    "with an isolated node": nx.Graph([(0, 1), (1, 2), (2, 0)]),
    "with a self-loop": nx.Graph([(0, 1), (1, 2), (1, 1)]),
}
GRAPHS["with an isolated node"].add_node(3)


@pytest.fixture(params=["dense", "sparse"])
def both_ways(request, monkeypatch):
    monkeypatch.setattr(module, "SMALL", 1000 if request.param == "dense" else 0)


def matrix(graph):
    """A D^-1 in float64, a self-loop being one edge."""
    adjacency = torch.from_numpy(nx.to_numpy_array(graph, sorted(graph)))
    return adjacency / adjacency.sum(0).clamp(min=1)


def edges_of(graph):
    return torch.tensor(list(graph.edges)).T


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_a_step_is_the_matrix_times_features_and_so_is_its_gradient(graph, both_ways):
    p, walk = matrix(graph), RandomWalk(len(graph), edges_of(graph))
    x = torch.randn(len(graph), 3, 2, dtype=torch.float64, requires_grad=True)
    expected = torch.einsum("ij,jab->iab", p, x)
    torch.testing.assert_close(walk(x), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(walk.back(x), torch.einsum("ji,jab->iab", p, x), rtol=1e-12, atol=1e-12)
    towards = torch.randn_like(x)
    for step, reference in ((walk(x), expected), (walk.back(x), torch.einsum("ji,jab->iab", p, x))):
        gradients = [torch.autograd.grad(y, x, towards, retain_graph=True)[0] for y in (step, reference)]
        torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_rows_of_powers_are_those_of_the_queries_alone(graph, both_ways):
    p, walk = matrix(graph), RandomWalk(len(graph), edges_of(graph))
    queries = torch.tensor([2, 0])
    rows = walk.from_nodes(queries, 5, torch.float64)
    assert rows.shape == (5, 2, len(graph))
    for hop in range(1, 6):
        expected = torch.linalg.matrix_power(p, hop)[queries]
        torch.testing.assert_close(rows[hop - 1], expected, rtol=1e-12, atol=1e-12)


def test_edges_may_come_in_any_direction_and_number():
    once, often = torch.tensor([[0, 1], [1, 2]]), torch.tensor([[0, 1, 1, 2, 0], [1, 0, 2, 1, 1]])
    one, other = RandomWalk(3, once), RandomWalk(3, often)
    assert all(torch.equal(a, b) for a, b in zip(one.buffers(), other.buffers(), strict=True))
    assert not one.state_dict()


@pytest.mark.parametrize("neighbours", [4, 8])
def test_the_grid_s_graph_is_that_of_networkx(neighbours, both_ways):
    graph = nx.grid_2d_graph(3, 4)
    if neighbours == 8:
        graph = nx.strong_product(nx.path_graph(3), nx.path_graph(4))
    expected = matrix(graph)
    walk = RandomWalk.on(Grid(3, 4), neighbours)
    torch.testing.assert_close(walk(torch.eye(12, dtype=torch.float64)), expected)
    if neighbours == 8:  # as the geometry itself calls them
        reached = Grid(3, 4).neighbours(torch.arange(12)).fill_diagonal_(False)
        assert torch.equal(walk(torch.eye(12)) > 0, reached)


def test_a_class_token_is_joined_to_all():
    walk = RandomWalk.on(Grid(3, 3, num_prefix_tokens=2), 4)
    assert walk.degree.tolist() == [10, 10, 2 + 2, 3 + 2, 4, 5, 4 + 2, 5, 4, 5, 4]
    assert torch.equal(walk(torch.eye(11))[1:, 0], torch.full((10,), 0.1)) and walk(torch.eye(11))[0, 0] == 0


def test_a_graph_s_own_edges_are_walked():
    graph = GRAPHS["random"]
    walk = RandomWalk.on(Graph(len(graph), edges_of(graph)))
    torch.testing.assert_close(walk(torch.eye(20, dtype=torch.float64)), matrix(graph))


def test_a_sequence_is_refused():
    with pytest.raises(InputError, match="in a Sequence: subtree attention needs a Grid or a Graph"):
        RandomWalk.on(Sequence(4))


def test_it_compiles_in_one_graph(both_ways):
    graph = GRAPHS["random"]
    walk = RandomWalk(len(graph), edges_of(graph))
    x = torch.randn(20, 3, requires_grad=True)
    compiled = torch.compile(walk, backend="aot_eager", fullgraph=True)
    gradients = [torch.autograd.grad(f(x).square().sum(), x)[0] for f in (walk, compiled)]
    torch.testing.assert_close(*gradients)
