import json
import math
from collections import deque

import networkx
import pytest
import torch

from vitlocal.errors import InputError
from vitlocal.geometry import Graph, Grid, Sequence

PATH_AND_LOOP = torch.tensor(
    [[0, 1, 2, 4, 5, 6, 6], [1, 2, 3, 5, 6, 4, 6]]
)  # 0-1-2-3, a triangle 4 5 6; 7 alone


def random_edges(nodes, edges, seed=0):
    return torch.randint(nodes, (2, edges), generator=torch.Generator().manual_seed(seed))


GEOMETRIES = [
    Grid(3, 5),
    Grid(3, 5, patch_size=(4, 2), unit="pixels", num_prefix_tokens=2),
    Grid(1, 1, num_prefix_tokens=1),
    Sequence(9),
    Sequence(9, causal=True, padding=3, num_prefix_tokens=1),
    Sequence(9, causal=True, unit="share"),
    Graph(8, PATH_AND_LOOP),
    Graph(8, PATH_AND_LOOP, num_hops=2, num_prefix_tokens=1),
    Graph(40, random_edges(40, 45)),
]


def every(geometry):
    (queries,) = geometry.queries()
    return queries


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=repr)
@pytest.mark.parametrize("elements", [1, 30])
def test_block_by_block_is_the_whole(geometry, elements):
    blocks = list(geometry.queries(elements=elements))
    assert torch.equal(torch.cat(blocks), torch.arange(geometry.num_prefix_tokens, geometry.num_tokens))
    assert max(len(block) for block in blocks) * geometry.num_tokens <= max(elements, geometry.num_tokens)
    for made in (geometry.distances, geometry.neighbours, geometry.visible):
        whole = made(every(geometry))
        assert whole.shape == (geometry.num_places, geometry.num_tokens)
        assert torch.equal(torch.cat([made(block) for block in blocks]), whole)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=repr)
def test_prefix_tokens_have_no_place(geometry):
    prefix, queries = geometry.num_prefix_tokens, every(geometry)
    assert not geometry.distances(queries)[:, :prefix].any()
    assert not geometry.neighbours(queries)[:, :prefix].any()
    sees = geometry.visible(queries)[:, prefix:].any(1)
    assert torch.equal(geometry.visible(queries)[:, :prefix], sees[:, None].expand(-1, prefix))
    assert geometry.sees_all == geometry.visible(queries).all().item()


@pytest.mark.parametrize("size", [(8, 8), (2, 5), (1, 7), (3, 1), (1, 1)])
@pytest.mark.parametrize("unit", ["grid", "patches", "pixels"])
def test_grid_by_loops(size, unit):
    grid = Grid(*size, patch_size=(4, 3), num_prefix_tokens=1, unit=unit)
    steps = (4, 3) if unit == "pixels" else (1, 1)
    largest = math.dist((0, 0), (size[0] - 1, size[1] - 1)) or 1 if unit == "grid" else 1
    places = [(row, column) for row in range(size[0]) for column in range(size[1])]
    queries = every(grid)
    distances, neighbours = (made(queries)[:, 1:].tolist() for made in (grid.distances, grid.neighbours))
    for i, (row, column) in enumerate(places):
        for j, (other_row, other_column) in enumerate(places):
            apart = ((row - other_row) * steps[0], (column - other_column) * steps[1])
            assert distances[i][j] == pytest.approx(math.hypot(*apart) / largest, rel=1e-6)
            assert neighbours[i][j] == (max(abs(row - other_row), abs(column - other_column)) <= 1)
    assert grid.distances(queries, torch.float64).dtype == torch.float64


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("padding", [0, 2])
def test_sequence_by_loops(causal, padding):
    sequence = Sequence(7, causal, padding)
    share = sequence.measured("share")
    queries, real = every(sequence), 7 - padding
    for i in range(7):
        seen = [j for j in range(real) if i < real and (j <= i or not causal)]
        assert sequence.visible(queries)[i].nonzero().flatten().tolist() == seen
        assert sequence.distances(queries)[i].tolist() == [abs(i - j) for j in range(7)]
        assert sequence.neighbours(queries)[i].tolist() == [abs(i - j) <= 1 for j in range(7)]
        farthest = max([abs(i - j) for j in seen] + [1])
        for j in seen:
            assert share.distances(queries)[i, j].item() == pytest.approx(abs(i - j) / farthest)


def hops(nodes, edges):
    """Numbers of edges on shortest paths, breadth first from every node."""
    found = [[math.inf] * nodes for _ in range(nodes)]
    for start in range(nodes):
        found[start][start], waiting = 0, deque([start])
        while waiting:
            node = waiting.popleft()
            for ends in edges.t().tolist():
                for here, there in (ends, ends[::-1]):
                    if here == node and found[start][there] == math.inf:
                        found[start][there] = found[start][node] + 1
                        waiting.append(there)
    return found


GRAPHS = [(8, PATH_AND_LOOP), (40, random_edges(40, 45)), (3, torch.zeros(2, 0, dtype=torch.int64))]


@pytest.mark.parametrize(("nodes", "edges"), GRAPHS)
def test_graph_by_breadth_first_search_and_networkx(nodes, edges):
    graph = Graph(nodes, edges)
    queries = every(graph)
    reference = networkx.Graph()
    reference.add_nodes_from(range(nodes))
    reference.add_edges_from(edges.t().tolist())
    distances = graph.distances(queries)
    assert distances.tolist() == hops(nodes, edges)
    for node, reached in networkx.all_pairs_shortest_path_length(reference):
        assert {j: distances[node, j].item() for j in reached} == reached
        assert graph.visible(queries)[node].nonzero().flatten().tolist() == sorted(reached)
        near = {node, *reference[node]}
        assert graph.neighbours(queries)[node].nonzero().flatten().tolist() == sorted(near)
    near = Graph(nodes, edges, num_hops=2)
    assert torch.equal(near.visible(queries), distances <= 2)
    assert graph.describe()["components"] == networkx.number_connected_components(reference)


def test_a_graphs_edges_both_ways_or_twice_are_the_same():
    queries = torch.arange(8)
    once = Graph(8, PATH_AND_LOOP)
    for edges in (PATH_AND_LOOP.flip(0), torch.cat([PATH_AND_LOOP, PATH_AND_LOOP.flip(0), PATH_AND_LOOP], 1)):
        again = Graph(8, edges)
        assert torch.equal(once.distances(queries), again.distances(queries))
        assert torch.equal(once.neighbours(queries), again.neighbours(queries))


def test_what_is_equal():
    """What is kept for a geometry is found again for an equal one, and for no other."""
    assert Grid(3, 5) == Grid(3, 5) and hash(Grid(3, 5)) == hash(Grid(3, 5))
    assert Grid(3, 5) != Grid(5, 3) and Sequence(4) != Sequence(4, causal=True)
    assert Graph(8, PATH_AND_LOOP) != Graph(8, PATH_AND_LOOP, num_hops=1)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=repr)
def test_description_is_json(geometry):
    described = geometry.describe()
    assert json.loads(json.dumps(described)) == described
    assert described["kind"] == type(geometry).__name__ and described["unit"] == geometry.unit


def test_measured_in_another_way():
    grid = Grid(2, 2, (4, 4), num_prefix_tokens=1)
    assert grid.measured() == grid
    expected = Grid(2, 2, (4, 4), unit="pixels", num_prefix_tokens=1, class_token="keep")
    assert grid.measured("pixels", "keep") == expected
    graph = Graph(8, PATH_AND_LOOP).measured(class_token="keep")
    assert graph.class_token == "keep" and graph.distances(torch.tensor([0]))[0, 3] == 3


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Grid(2, 2, unit="miles"), "unit is 'miles': a Grid's must be one of grid, patches, pixels"),
        (lambda: Grid(2, 2, unit="hops"), "unit is 'hops'"),
        (lambda: Grid(2, 2, unit="pixels"), "patch_size is not given"),
        (lambda: Grid(0, 2), "0x2 patches"),
        (lambda: Grid(2, 2, class_token="maybe"), "class_token is 'maybe'"),
        (lambda: Grid(2, 2, num_prefix_tokens=-1), "num_prefix_tokens is -1"),
        (lambda: Sequence(0), "length 0"),
        (lambda: Sequence(4, padding=4), "padding 4"),
        (lambda: Sequence(4, unit="grid"), "a Sequence's must be one of tokens, share"),
        (lambda: Graph(3, torch.tensor([[0], [3]])), "joins node 3: with num_nodes 3"),
        (lambda: Graph(3, torch.tensor([[0], [-1]])), "joins node -1"),
        (lambda: Graph(3, torch.tensor([0, 1])), r"shape \(2,\)"),
        (lambda: Graph(3, torch.ones(2, 1)), "float32"),
        (lambda: Graph(0, torch.zeros(2, 0, dtype=torch.int64)), "num_nodes is 0"),
        (lambda: Graph(3, PATH_AND_LOOP[:, :2], num_hops=0), "num_hops is 0"),
    ],
)  # fmt: skip
def test_wrong_values_are_named(make, words):
    with pytest.raises(InputError, match=words):
        make()
