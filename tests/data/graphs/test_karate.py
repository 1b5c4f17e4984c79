"""The embedded graph is networkx's."""

import networkx as nx

from vitlocal.data.graphs import Karate


def test_edges_and_clubs_are_those_of_networkx():
    reference, found = nx.karate_club_graph(), Karate().load()
    edges = {tuple(sorted(edge)) for edge in reference.edges}
    assert {tuple(edge) for edge in found.undirected().T.tolist()} == edges and len(edges) == 78
    clubs = [found.class_names[label] for label in found.labels]
    assert clubs == [reference.nodes[node]["club"] for node in range(34)]


def test_a_split_is_of_all_nodes_and_depends_on_its_seed_alone():
    first, again, other = Karate(), Karate(), Karate(split_seed=1)
    for data in (first, again, other):
        data.setup()
    assert [len(first.nodes[name]) for name in ("train", "val", "test")] == [20, 6, 8]
    assert sorted(node for part in first.nodes.values() for node in part.tolist()) == list(range(34))
    assert all((first.nodes[name] == again.nodes[name]).all() for name in first.nodes)
    assert first.nodes["train"].tolist() != other.nodes["train"].tolist()
    (batch,) = first.val_dataloader()
    assert batch["features"].shape == (34, 37) and batch["nodes"].tolist() == first.nodes["val"].tolist()
