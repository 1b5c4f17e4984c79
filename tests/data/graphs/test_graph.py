"""Features from the graph, and what becomes of wrong graphs."""

import networkx as nx
import numpy as np
import pytest
import torch

from vitlocal.data.graphs import GraphDataModule, LabelledGraph, PyG, laplacian_eigenvectors, row_normalised
from vitlocal.data.graphs import features as features_module
from vitlocal.errors import InputError

EDGES = torch.tensor([[0, 1, 2, 1, 3], [1, 2, 0, 0, 3]])


def graph(**parts):
    given = {"edges": EDGES, "features": torch.ones(5, 2), "labels": torch.tensor([0, 1, 0, 1, -1])}
    return LabelledGraph("mine", class_names=("a", "b"), **(given | parts))


class Mine(GraphDataModule):
    name = "mine"
    parts = None

    def load(self):
        return graph(**(self.parts or {}))


@pytest.mark.parametrize("dense", [0, 1000])
def test_eigenvectors_are_those_of_the_normalised_laplacian(dense, monkeypatch):
    monkeypatch.setattr(features_module, "DENSE", dense)
    monkeypatch.setattr(features_module, "TOLERANCE", 1e-9)
    reference = nx.connected_watts_strogatz_graph(80, 6, 0.2, seed=0)
    edges = torch.tensor(list(reference.edges)).T
    found = laplacian_eigenvectors(edges, 80, 3).double().numpy()
    laplacian = nx.normalized_laplacian_matrix(reference).toarray()
    values = np.sort(np.linalg.eigvalsh(laplacian))[1:4]
    np.testing.assert_allclose(laplacian @ found, found * values, atol=1e-6)
    np.testing.assert_allclose(found.T @ found, np.eye(3), atol=1e-6)
    assert (found[np.abs(found).argmax(0), range(3)] > 0).all()


def test_eigenvectors_of_a_self_loop_an_isolated_node_and_more_than_there_are():
    reference = nx.Graph([(0, 1), (1, 2), (2, 2)])
    reference.add_node(3)
    found = laplacian_eigenvectors(torch.tensor([[0, 1, 2], [1, 2, 2]]), 4, 5).double().numpy()
    adjacency = nx.to_numpy_array(reference, sorted(reference))
    root = np.sqrt(adjacency.sum(0).clip(min=1))
    laplacian = np.diag((adjacency.sum(0) > 0).astype(float)) - adjacency / np.outer(root, root)
    values = np.sort(np.linalg.eigvalsh(laplacian))[1:]
    np.testing.assert_allclose(laplacian @ found[:, :3], found[:, :3] * values, atol=1e-6)
    assert not found[:, 3:].any()


def test_rows_are_normalised_by_their_sums():
    given = torch.tensor([[1.0, 3.0], [0.0, 0.0]])
    assert row_normalised(given).tolist() == [[0.25, 0.75], [0, 0]]


def test_edges_that_come_twice_are_one_and_self_loops_are_kept_or_added():
    assert graph().undirected().tolist() == [[0, 0, 1, 3], [1, 2, 2, 3]]
    data = Mine(train_fraction=0.4, val_fraction=0.3, self_loops=True)
    data.setup()
    assert data.graph.edges.tolist() == [[0, 0, 1, 0, 1, 2, 3, 4], [1, 2, 2, 0, 1, 2, 3, 4]]


def test_unknown_labels_are_in_no_part_and_isolated_nodes_are_told(caplog):
    data = Mine(train_fraction=0.4, val_fraction=0.3, eigenvectors=0)
    with caplog.at_level("INFO"):
        data.setup()
    assert "1 nodes of mine have no edge" in caplog.text
    assert sorted(node for part in data.nodes.values() for node in part.tolist()) == [0, 1, 2, 3]
    assert data.features.shape == (5, 2)


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"labels": torch.tensor([0, 1, 0, 2, 0])}, "mine: a label is 2: with 2 classes give 0 to 1"),
        ({"labels": torch.tensor([0, 1, 0, -2, 0])}, "mine: a label is -2"),
        ({"labels": torch.zeros(5)}, "mine: labels are torch.float32"),
        ({"features": torch.ones(4, 2)}, "mine: features are .* there are 5 labels"),
        (
            {"features": torch.tensor([[1.0], [1], [float("nan")], [1], [1]])},
            "a feature of node 2 is not finite",
        ),
        ({"edges": torch.tensor([[0], [5]])}, "an edge ends at node 5: with 5 nodes give 0 to 4"),
        ({"edges": torch.tensor([[-1], [2]])}, "an edge ends at node -1"),
        ({"edges": torch.zeros(3, 2, dtype=torch.int64)}, "mine: edges are torch.int64 of shape"),
    ],
)
def test_a_wrong_graph_gets_a_sentence(parts, sentence):
    with pytest.raises(InputError, match=sentence):
        graph(**parts)


def test_too_few_labels_and_no_features_get_one_too():
    data = Mine()
    data.parts = {"labels": torch.tensor([0, 1, -1, -1, -1])}
    with pytest.raises(InputError, match="2 nodes with a label: too few"):
        data.setup()
    data = Mine(train_fraction=0.4, val_fraction=0.3, eigenvectors=0)
    data.parts = {"features": torch.ones(5, 0)}
    with pytest.raises(InputError, match="have no features"):
        data.setup()


def test_a_data_set_of_pyg_that_there_is_none_of():
    with pytest.raises(InputError, match="dataset=mnist: give one of cora, citeseer"):
        PyG("mnist")


def test_pyg_s_graphs_come_by_its_classes(tmp_path, monkeypatch):
    datasets = pytest.importorskip("torch_geometric.datasets")
    from torch_geometric.data import Data

    class Planetoid:
        def __init__(self, root, name):
            self.given = (root, name)

        def __getitem__(self, index):
            assert self.given == (str(tmp_path / "cora"), "Cora")
            return Data(torch.ones(5, 2), EDGES, y=torch.tensor([0, 1, 0, 1, 2]))

    monkeypatch.setattr(datasets, "Planetoid", Planetoid)
    data = PyG("cora", str(tmp_path), train_fraction=0.4, val_fraction=0.3)
    data.prepare_data()
    data.setup()
    assert data.num_classes == 3 and data.features[0, :2].tolist() == [0.5, 0.5]

    def broken(root, name):
        raise OSError("no network")

    monkeypatch.setattr(datasets, "Planetoid", broken)
    with pytest.raises(InputError, match=r"cora can't be read from .*no network"):
        PyG("cora", str(tmp_path)).prepare_data()
