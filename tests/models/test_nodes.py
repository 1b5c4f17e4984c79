"""Graph networks: that of the paper against its formula, PyTorch Geometric's against itself."""

from functools import partial

import networkx as nx
import pytest
import torch
import torch.nn.functional as F

from vitlocal.errors import InputError
from vitlocal.geometry import Graph
from vitlocal.models import (
    GAT,
    GCN,
    STAGNN,
    MakeNodeNetwork,
    attention_weights,
    make_network,
    network_settings,
)
from vitlocal.observing.hooks import find_attention, find_network, places

REFERENCE = nx.gnp_random_graph(15, 0.25, seed=1)
GRAPH = Graph(15, torch.tensor(list(REFERENCE.edges)).T)
FEATURES, CLASSES, HEADS, HOPS = 6, 3, 4, 3


def network(**options):
    torch.manual_seed(0)
    made = STAGNN(FEATURES, CLASSES, hidden_dim=10, num_heads=HEADS, num_hops=HOPS, **options).double().eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    made.place(GRAPH)
    return made, torch.randn(15, FEATURES, dtype=torch.float64)


def by_formula(made, x):
    """(N, K) with explicit powers of A D^-1, a head at a time."""
    adjacency = torch.from_numpy(nx.to_numpy_array(REFERENCE, range(15)))
    p = adjacency / adjacency.sum(0)
    hidden = F.relu(made.embed(x))
    attn = made.attn
    query, key, value = (layer(hidden) for layer in (attn.query, attn.key, attn.value))
    shares = attn.gates.head_gate.softmax(0)
    heads = []
    for h in range(HEADS):
        q, k = (1 + F.elu(part[:, 2 * h : 2 * h + 2]) for part in (query, key))
        v = value[:, CLASSES * h : CLASSES * (h + 1)]
        out = attn.gates.hop_gate[0] * v
        for hop in range(1, HOPS + 1):
            rows = torch.linalg.matrix_power(p, hop) * (q @ k.T)
            sta = rows @ v / rows.sum(1, keepdim=True)
            out = out + attn.gates.hop_gate[hop] * shares[h, hop - 1] * sta
        heads.append(out)
    return sum(heads) if attn.combine == "sum" else attn.proj(torch.cat(heads, dim=1))


@pytest.mark.parametrize("combine", ["concat", "sum"])
def test_the_network_is_that_of_the_paper(combine):
    made, x = network(combine=combine)
    torch.testing.assert_close(made(x), by_formula(made, x), rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_its_attention_is_found_and_step_by_step_the_same():
    made, x = network()
    assert find_network(made) is made and made.geometry.num_hops == HOPS
    ((_, attention),) = find_attention(made)
    assert places(made)[0].names[:4] == ["head_0/hop_1", "head_0/hop_2", "head_0/hop_3", "head_1/hop_1"]
    hidden = F.relu(made.embed(x))[None]
    output = attention.explicit(hidden, lambda name, tensor: None)
    torch.testing.assert_close(output[0], made(x), rtol=1e-12, atol=1e-12)
    queries = torch.tensor([3, 11])
    rows = attention_weights(attention, hidden, queries)
    torch.testing.assert_close(attention.explicit(hidden, lambda *_: None, queries), output[:, queries])
    torch.testing.assert_close(rows.sum(-1), torch.ones(1, HEADS * HOPS, 2, dtype=torch.float64))
    far = ~made.geometry.visible(queries)
    assert not rows[..., far].any()


def test_settings_name_it_and_make_it():
    for given in (STAGNN, "STAGNN", {"num_hops": 3}, partial(STAGNN, num_hops=3)):
        settings = network_settings(given, MakeNodeNetwork)
        assert settings["class_path"].endswith(".STAGNN") and settings["init_args"]["num_hops"] == 3
        made = make_network(settings, MakeNodeNetwork, num_features=4, num_classes=2)
        assert made.embed.in_features == 4 and made.attn.num_hops == 3
    with pytest.raises(InputError, match="STAG is no class path, nor one of GAT, GCN, STAGNN"):
        network_settings("STAG", MakeNodeNetwork)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_hops": 0}, "num_hops of NodeSubtree is 0"),
        ({"hidden_dim": 2, "num_heads": 4}, "give each head a feature"),
        ({"drop_rate": 1.0}, "drop_rate is 1.0"),
        ({"num_heads": 0}, "num_heads is 0"),
    ],
)
def test_wrong_values_get_a_sentence(options, sentence):
    with pytest.raises(InputError, match=sentence):
        STAGNN(FEATURES, CLASSES, **options)


@torch.no_grad()
def test_a_gcn_is_kipf_and_welling_s():
    pytest.importorskip("torch_geometric")
    torch.manual_seed(0)
    made, x = GCN(FEATURES, CLASSES, hidden_dim=5).double().eval(), torch.randn(15, FEATURES).double()
    made.place(GRAPH)
    adjacency = torch.from_numpy(nx.to_numpy_array(REFERENCE, range(15))) + torch.eye(15).double()
    root = adjacency.sum(0).rsqrt()
    smooth = root[:, None] * adjacency * root
    first, second = made.network.convs
    hidden = F.relu(smooth @ first.lin(x) + first.bias)
    torch.testing.assert_close(made(x), smooth @ second.lin(hidden) + second.bias)


@torch.no_grad()
def test_a_gat_sees_its_neighbours_alone():
    pytest.importorskip("torch_geometric")
    torch.manual_seed(0)
    made, x = GAT(FEATURES, CLASSES, hidden_dim=8, depth=1, num_heads=4).eval(), torch.randn(15, FEATURES)
    made.place(GRAPH)
    before, changed = made(x), x.clone()
    changed[0] += 5
    moved = (made(changed) - before).abs().sum(1) > 1e-6
    assert set(moved.nonzero().flatten().tolist()) == {0, *REFERENCE[0]}


def test_without_pyg_it_is_said(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch_geometric.nn", None)
    with pytest.raises(InputError, match=r"GCN is PyTorch Geometric's .*pip install"):
        GCN(FEATURES, CLASSES)
