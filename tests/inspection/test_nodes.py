"""Inspection of a run on a graph: its table is that of the run, its subtrees are those of networkx."""

import csv

import networkx as nx
import numpy as np
import pytest
import torch
import yaml

from vitlocal.cli import main
from vitlocal.errors import InputError
from vitlocal.geometry import Graph
from vitlocal.inspection import nodes as module
from vitlocal.inspection.command import inspect
from vitlocal.inspection.subtrees import Subtree, subtree_figure
from vitlocal.runs import open_run
from vitlocal.tasks import NodeClassification

KARATE = nx.karate_club_graph()
HOPS = 2


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    words = [
        "--trainer.max_epochs=2",
        "--locality.every_n_epochs=1",
        f"--model.network.num_hops={HOPS}",
        "--trainer.logger=false",
    ]
    main(["fit", "--config=karate.yaml", *words, f"--trainer.default_root_dir={folder}"])
    (made,) = folder.glob("lightning_logs/*/version_0")
    return made


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_is_opened_as_what_it_is(run):
    opened = open_run(run)
    assert isinstance(opened.load_module(), NodeClassification)
    data = opened.load_data()
    data.setup()
    assert data.name == "karate" and data.graph.num_nodes == 34


def test_the_table_is_that_of_the_last_epoch_and_some_subtrees_are_drawn(run, tmp_path, monkeypatch, capsys):
    (tmp_path / "node_7.png").touch()  # of an earlier inspection
    drawn = {}

    def figure(seen, name, heads):
        drawn[name] = (seen, heads)
        return subtree_figure(seen, name, heads)

    monkeypatch.setattr(module, "subtree_figure", figure)
    inspect(str(run / "checkpoints" / "last.ckpt"), output=tmp_path, nodes=[0, 33], heads=[1, 3])
    expected = [row for row in table(run / "heads.csv") if row["epoch"] == "2"]
    found = table(tmp_path / "heads.csv")
    assert len(found) == len(expected) == 4 * HOPS
    for row, other in zip(found, expected, strict=True):
        assert all(row[name] == other[name] for name in ("layer", "head", "hop"))
        for name in ("mad", "entropy", "self_mass", "mass_at_0", "mass_at_2", "gate", "own_gate"):
            assert float(row[name]) == pytest.approx(float(other[name]), abs=1e-5), name
    names = {path.name for path in tmp_path.iterdir()}
    tables = {"heads.csv", "inspect.yaml", "mad.png", "entropy.png", "entropy_mad.png"}
    assert names == tables | {"node_0.png", "node_33.png"}
    said = yaml.safe_load((tmp_path / "inspect.yaml").read_text())
    assert (said["graph"], said["number_of_nodes"], said["geometry"]["num_hops"]) == ("karate", 34, HOPS)
    assert "34 nodes; the tables and figures are in" in capsys.readouterr().out

    assert list(drawn) == ["node 0 of karate, Mr. Hi", "node 33 of karate, Officer"]
    adjacency = torch.from_numpy(nx.to_numpy_array(KARATE, weight=None))
    p = adjacency / adjacency.sum(0)
    for root, (seen, heads) in zip((0, 33), drawn.values(), strict=True):
        ball = nx.single_source_shortest_path_length(KARATE, root, HOPS)
        assert dict(zip(seen.nodes.tolist(), seen.hops.tolist(), strict=True)) == ball
        edges = {frozenset(seen.nodes[ends].tolist()) for ends in seen.edges.T}
        assert edges == {frozenset(edge) for edge in nx.subgraph(KARATE, ball).edges}
        assert [title for title, _ in heads] == ["layer 0, head 1", "layer 0, head 3"]
        for _, rows in heads:
            torch.testing.assert_close(rows.sum(1), torch.ones(HOPS))
            for hop in (1, 2):
                reached = torch.linalg.matrix_power(p, hop)[root, seen.nodes] > 0
                assert torch.equal(rows[hop - 1] > 0, reached)


@pytest.mark.parametrize(
    "graph",
    [nx.path_graph(1), nx.star_graph(5), nx.karate_club_graph(), nx.gnp_random_graph(40, 0.08, seed=2)],
)
def test_a_ring_a_hop_and_no_node_upon_another(graph):
    edges = torch.tensor(list(graph.edges), dtype=torch.int64).reshape(-1, 2).T
    seen = Subtree.of(Graph(len(graph), edges, num_hops=3), 0)
    places = seen.layout()
    np.testing.assert_allclose(np.hypot(*places.T), seen.hops, atol=1e-12)
    apart = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1)) + np.eye(len(places))
    assert len(places) == len(seen.nodes) and apart.min() > 1e-3


def test_a_panel_a_head_and_hop_shows_its_weights():
    seen = Subtree.of(Graph(4, torch.tensor([[0, 1, 2], [1, 2, 3]]), num_hops=2), 1)
    rows = torch.tensor([[0.5, 0.0, 0.5, 0.0], [0.0, 0.75, 0.0, 0.25]])
    figure = subtree_figure(seen, "$odd_name", [("head 0", rows), ("head 1", rows.flip(0))])
    *panels, bar = figure.axes
    shown = [panel.collections[1].get_array().tolist() for panel in panels]
    assert shown == [rows[hop].tolist() for hop in (0, 1, 1, 0)]
    assert [panel.get_title() for panel in panels] == ["hop 1", "hop 2"] * 2
    assert [panels[number].get_ylabel() for number in (0, 2)] == ["head 0", "head 1"]
    assert all(len(panel.collections[0].get_segments()) == 3 for panel in panels)
    assert bar.get_ylabel() == "weight" and "it sees 4 nodes" in figure.get_suptitle()


def test_a_large_subtree_is_told_and_not_drawn(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "DRAWN", 20)
    inspect(str(run), output=tmp_path, nodes=[0, 11])
    assert "node 0 sees 26 nodes, and subtrees of up to 20 are drawn" in capsys.readouterr().out
    assert [path.name for path in tmp_path.glob("node_*")] == ["node_11.png"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"data": "digits.yaml"}, "data is given, and .* was trained on a graph: leave it out"),
        ({"query": "class"}, "query is given"),
        ({"mixed": True}, "mixed is given"),
        ({"unit": "patches"}, "unit is given"),
        ({"nodes": [34]}, "nodes is \\[34\\]: the graph karate has nodes 0 to 33"),
        ({"heads": [4]}, "heads is \\[4\\]: the model has heads 0 to 3"),
    ],
)
def test_what_does_not_go_with_a_graph_gets_a_sentence(run, tmp_path, given, sentence):
    with pytest.raises(InputError, match=sentence):
        inspect(str(run), output=tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_nodes_are_of_graphs_alone():
    with pytest.raises(
        InputError, match="nodes is given, and torchvision:vit_b_16 is of images: leave it out"
    ):
        inspect("torchvision:vit_b_16", nodes=[1], data="digits.yaml")
