"""Statistics over nodes, a block of queries at a time, against loops over shortest paths."""

import networkx as nx
import pytest
import torch

from tests.heads.slow import slow_statistics
from vitlocal.geometry import Graph
from vitlocal.heads import nodes as module
from vitlocal.heads.functional import STATISTICS
from vitlocal.heads.nodes import NodeCollector, NodeStatistics
from vitlocal.models import STAGNN, attention_weights

N, HOPS = 14, 2
REFERENCE = nx.gnp_random_graph(N, 0.2, seed=5)
PATHS = dict(nx.all_pairs_shortest_path_length(REFERENCE))
GRAPH = Graph(N, torch.tensor(list(REFERENCE.edges)).T, HOPS)


def apart(i, j):
    return PATHS[i].get(j, float("inf"))


def near(i, j):
    return apart(i, j) <= 1


def sees(i, j):
    return apart(i, j) <= HOPS


def network():
    torch.manual_seed(0)
    made = STAGNN(5, 2, hidden_dim=8, num_heads=2, num_hops=HOPS).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    made.place(GRAPH)
    return made


@pytest.mark.parametrize("block", [1, 4, 100])
@torch.no_grad()
def test_means_over_nodes_are_those_of_slow_loops(block):
    torch.manual_seed(0)
    rows = torch.rand(1, 3, N, N).softmax(-1)
    metric = NodeStatistics(3, GRAPH)
    for queries in torch.arange(N).split(block):
        metric.update(rows[:, :, queries], queries)
    found = metric.compute()
    for head in range(3):
        expected = slow_statistics(rows[0, head], GRAPH, apart, near, sees)
        for name in STATISTICS:
            assert found[name][head].item() == pytest.approx(expected[name], rel=1e-5, abs=1e-6), name
        for hops in range(HOPS + 1):
            shares = []
            for i in range(N):
                whole = sum(float(rows[0, head, i, j]) for j in range(N) if sees(i, j))
                shares.append(
                    sum(float(rows[0, head, i, j]) for j in range(N) if apart(i, j) == hops) / whole
                )
            assert found[f"mass_at_{hops}"][head].item() == pytest.approx(sum(shares) / N, rel=1e-5)


@torch.no_grad()
def test_a_collector_reads_the_rows_of_some_nodes(monkeypatch):
    made, features = network(), torch.randn(N, 5)
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 2 * 4 * N)  # two queries at a time
    asked = []

    def weights(attention, x, queries):
        asked.append(queries)
        return attention_weights(attention, x, queries)

    monkeypatch.setattr(module, "attention_weights", weights)
    collector = NodeCollector(made, torch.device("cpu"), made.geometry, max_nodes=5, seed=3)
    with collector.batch(features):
        made(features)
    ((layer,), nodes) = collector.compute(), torch.cat(asked)
    assert [len(block) for block in asked] == [2, 2, 1] and len(nodes.unique()) == 5
    assert layer["hop"] == [1, 2, 1, 2] and collector.images == 1
    alone = NodeStatistics(4, made.geometry)
    hidden = made.embed(features).relu()[None]
    alone.update(attention_weights(made.attn, hidden)[:, :, nodes], nodes)
    for name, values in alone.compute().items():
        torch.testing.assert_close(torch.tensor(layer[name]), values.float(), rtol=1e-5, atol=1e-6)
    balls = [[apart(i, j) for j in range(N) if sees(i, j)] for i in nodes.tolist()]
    assert collector.uniform["mad"] == pytest.approx(sum(sum(b) / len(b) for b in balls) / 5)
    again = NodeCollector(made, torch.device("cpu"), made.geometry, max_nodes=5, seed=3)
    assert torch.equal(again._nodes, nodes)
