"""Subtree attention against the formula with explicit powers of P, against a slow loop, and in a ViT."""

from functools import partial

import networkx as nx
import pytest
import torch
import torch.nn.functional as F

from vitlocal.errors import InputError
from vitlocal.geometry import Graph, Grid, Sequence
from vitlocal.models import Subtree, VisionTransformer, attention_weights
from vitlocal.models.attention import walk as walk_module
from vitlocal.models.attention.subtree import feature_map
from vitlocal.tasks.schedule import decay_groups

B, C, H, D = 2, 12, 3, 5
GRAPH = nx.gnp_random_graph(17, 0.25, seed=3)
PLACES = {
    "grid": (Grid(3, 4), 8),
    "chessboard": (Grid(3, 3), 4),
    "class token": (Grid(3, 3, num_prefix_tokens=1), 4),
    "graph": (Graph(17, torch.tensor(list(GRAPH.edges)).T), 8),
    "isolated node": (Graph(5, torch.tensor([[0, 1, 2], [1, 2, 0]])), 8),
}


@pytest.fixture(params=PLACES.values(), ids=PLACES)
def place(request):
    return request.param


@pytest.fixture(params=["dense", "sparse"])
def product(request, monkeypatch):
    monkeypatch.setattr(walk_module, "SMALL", 1000 if request.param == "dense" else 0)


def make(place, dtype=torch.float64, num_hops=4, **options):
    """A module with gates of both signs."""
    geometry, neighbours = place
    torch.manual_seed(0)
    module = Subtree(C, H, D, num_hops=num_hops, neighbours=neighbours, **options)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    module.place(geometry)
    return module.to(dtype), torch.randn(B, geometry.num_tokens, C, dtype=dtype)


def matrix(geometry, neighbours):
    """A D^-1 an entry at a time, in float64."""
    n, prefix = geometry.num_tokens, geometry.num_prefix_tokens

    def joined(i, j):
        if isinstance(geometry, Graph):
            pairs = {frozenset(edge) for edge in geometry.edges.T.tolist()}
            return frozenset((i, j)) in pairs
        if min(i, j) < prefix:
            return i != j
        (y, x), (v, u) = divmod(i - prefix, geometry.width), divmod(j - prefix, geometry.width)
        steps = sorted((abs(y - v), abs(x - u)))
        return steps == [0, 1] or (neighbours == 8 and steps == [1, 1])

    adjacency = torch.tensor([[float(joined(i, j)) for j in range(n)] for i in range(n)]).double()
    return adjacency / adjacency.sum(0).clamp(min=1)


def dense_rows(module, x, place):
    """(B, H, K, N, N): the formula with explicit powers."""
    p = matrix(*place)
    query, key, _ = module.split(module.qkv(x)).double()
    kernel = (1 + F.elu(query)) @ (1 + F.elu(key)).mT
    powers = torch.stack([torch.linalg.matrix_power(p, hop + 1) for hop in range(module.num_hops)])
    rows = powers * kernel[:, :, None]
    total = rows.sum(-1, keepdim=True)
    return rows / total.where(total > 0, 1)


def gate_table(module):
    """g_k, times the softmax over heads of B from hop 1 on, an entry at a time: (H, 1 + K)."""
    g, b = module.gates.hop_gate.double(), module.gates.head_gate.double()
    rows = [
        [g[0], *(g[k + 1] * b[h, k].exp() / b[:, k].exp().sum() for k in range(module.num_hops))]
        for h in range(H)
    ]
    return torch.stack([torch.stack(row) for row in rows])


def dense(module, x, place):
    value = module.split(module.qkv(x))[2].double()
    rows, gates = dense_rows(module, x, place), gate_table(module)
    found = gates[:, 0, None, None] * value
    for hop in range(module.num_hops):
        found = found + gates[:, hop + 1, None, None] * (rows[:, :, hop] @ value)
    context = found.sum(1) if module.combine == "sum" else found.transpose(1, 2).flatten(2)
    return F.linear(context, module.proj.weight.double(), module.proj.bias.double())


@pytest.mark.parametrize("combine", ["concat", "sum"])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@torch.no_grad()
def test_it_is_the_dense_form(place, product, dtype, close, combine):
    module, x = make(place, dtype, combine=combine)
    output = module(x)
    assert output.dtype == dtype
    torch.testing.assert_close(output.double(), dense(module, x, place), rtol=close, atol=close)


def test_gradients_are_the_dense_form_s(place, product):
    module, x = make(place)
    x.requires_grad_()
    inputs, towards = [x, *module.parameters()], torch.randn_like(x)
    ours, theirs, slow = (
        torch.autograd.grad(output, inputs, towards)
        for output in (module(x), dense(module, x, place), module.explicit(x, lambda name, tensor: None))
    )
    for gradient, expected, step_by_step in zip(ours, theirs, slow, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(step_by_step, expected, rtol=1e-9, atol=1e-11)


@torch.no_grad()
def test_it_is_a_slow_loop_over_walks():
    """By walks themselves, a node at a time: each step leaves j by any of its edges alike."""
    place = PLACES["graph"]
    module, x = make(place, num_hops=3)
    query, key, value = module.split(module.qkv(x))[:, 0]
    near = {node: sorted(GRAPH[node]) for node in GRAPH}
    gates = gate_table(module)
    outputs = []
    for i in range(17):
        heads = []
        for h in range(H):
            found, ends = gates[h, 0] * value[h, i], {i: 1.0}
            for hop in range(1, 4):
                # (P^k)_ij, backwards from i: it got here from each neighbour j by one of j's edges.
                before = {}
                for node, share in ends.items():
                    for j in near[node]:
                        before[j] = before.get(j, 0.0) + share / len(near[j])
                ends = before
                similar = {j: sum((1 + F.elu(query[h, i])) * (1 + F.elu(key[h, j]))) for j in ends}
                total = sum(share * similar[j] for j, share in ends.items())
                mean = sum(share * similar[j] * value[h, j] for j, share in ends.items()) / total
                found = found + gates[h, hop] * mean
            heads.append(found)
        outputs.append(module.proj(torch.cat(heads)))
    torch.testing.assert_close(module(x)[0], torch.stack(outputs), rtol=1e-10, atol=1e-10)


def shown(module, x, **options):
    steps = {}
    output = module.explicit(x, lambda name, tensor: steps.update({name: tensor.clone()}), **options)
    return steps, output


@pytest.mark.parametrize("combine", ["concat", "sum"])
@torch.no_grad()
def test_explicit_is_the_forward_and_shows_a_row_a_head_and_hop(place, combine):
    module, x = make(place, combine=combine)
    steps, output = shown(module, x)
    torch.testing.assert_close(output, module(x), rtol=1e-12, atol=1e-12)
    assert list(steps) == ["qkv", "scores", "weights", "hop_gates", "context"]
    rows = steps["weights"].unflatten(1, (H, 4))
    torch.testing.assert_close(rows, dense_rows(module, x, place), rtol=1e-10, atol=1e-12)
    reached = torch.ones(rows.shape[:-1], dtype=torch.float64)
    reached[..., module.walk.degree == 0] = 0
    torch.testing.assert_close(rows.sum(-1), reached, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(steps["hop_gates"], gate_table(module))
    width = D if combine == "sum" else H * D
    assert steps["context"].shape == (B, x.shape[1], width) and (steps["hop_gates"] < 0).any()


@torch.no_grad()
def test_only_the_rows_of_the_queries_are_made(place):
    module, x = make(place)
    steps, output = shown(module, x)
    queries = torch.tensor([4, 1])
    some, rows = shown(module, x, queries=queries)
    torch.testing.assert_close(rows, output[:, queries])
    torch.testing.assert_close(some["weights"], steps["weights"][:, :, queries])
    assert some["scores"].shape == (B, H, 2, x.shape[1])
    assert torch.equal(attention_weights(module, x, queries), some["weights"])
    given = attention_weights(module, None, queries, qkv=module.split(module.qkv(x)))
    assert torch.equal(given, some["weights"])


@torch.no_grad()
def test_nothing_that_is_shown_is_a_combined_row():
    """Gates of both signs: rows times gates would be negative somewhere, and nothing of that shape is."""
    module, x = make(PLACES["graph"])
    module.gates.hop_gate.copy_(torch.tensor([1.0, -2.0, 0.5, -1.0, 1.5]))
    steps, _ = shown(module, x)
    square = {name for name, step in steps.items() if step.shape[-2:] == (17, 17)}
    assert square == {"scores", "weights"} and all((steps[name] >= 0).all() for name in square)
    assert steps["weights"].shape[1] == H * 4
    combined = steps["weights"].unflatten(1, (H, 4)) * steps["hop_gates"][:, 1:, None, None]
    assert (combined.sum(2) < 0).any()


@pytest.mark.parametrize("name", ["qkv", "scores", "weights", "hop_gates", "context"])
@torch.no_grad()
def test_what_a_tap_puts_in_its_place_is_what_counts(name):
    module, x = make(PLACES["graph"])
    module.gates.hop_gate[0] = 0  # else a token's own value passes by
    output = module(x) - module.proj.bias
    given = module.explicit(x, lambda step, tensor: 2 * tensor if step == name else None) - module.proj.bias
    if name == "qkv":
        assert not torch.allclose(given, output)
    else:
        torch.testing.assert_close(given, output if name == "scores" else 2 * output)


def test_the_feature_map_is_one_plus_elu_and_never_0():
    x = torch.linspace(-30, 30, 601, dtype=torch.float64)
    torch.testing.assert_close(feature_map(x), 1 + F.elu(x), rtol=1e-12, atol=1e-12)
    low = torch.tensor([-80.0], requires_grad=True)
    assert feature_map(low) > 0 and 1 + F.elu(low) == 0
    assert torch.autograd.grad(feature_map(low), low)[0] > 0


def test_gates_begin_alike_and_are_not_decayed():
    network = VisionTransformer(depth=1, attention=partial(Subtree, num_hops=2))
    gates = network.blocks[0].attn.gates
    expected = torch.tensor([[1, 1 / 12, 1 / 12]]).expand(12, 3)
    torch.testing.assert_close(gates(), expected)
    _, undecayed = (group["params"] for group in decay_groups(network, 0.05))
    assert {id(p) for p in gates.parameters()} <= {id(p) for p in undecayed}


def test_a_vit_is_placed_on_its_grid():
    network = VisionTransformer(depth=2, attention=partial(Subtree, num_hops=1), global_pool="avg")
    assert all(block.attn.walk.num_nodes == 64 for block in network.blocks)
    first = network.blocks[0].attn
    weights = attention_weights(first, torch.randn(1, 64, 192))
    far = ~network.geometry.neighbours(torch.arange(64))
    assert weights.shape == (1, 12, 64, 64) and not weights[:, :, far].any()
    again = VisionTransformer(depth=2, attention=partial(Subtree, num_hops=1), global_pool="avg")
    again.load_state_dict(network.state_dict())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(network.eval()(images), again.eval()(images))


@torch.no_grad()
def test_under_autocast_the_walk_is_exact():
    module, x = make(PLACES["grid"], torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        coarse, (steps, step_by_step) = module(x), shown(module, x)
    assert coarse.dtype == step_by_step.dtype == torch.bfloat16 and steps["weights"].dtype == torch.float32
    torch.testing.assert_close(coarse, step_by_step, rtol=0.02, atol=0.05)
    torch.testing.assert_close(coarse.float(), module(x), rtol=0.05, atol=0.1)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_hops": 0}, "num_hops of Subtree is 0: it must be from 1 to 256"),
        ({"neighbours": 6}, "neighbours of Subtree is 6: it must be 4 or 8"),
        ({"combine": "mean"}, "combine of Subtree is 'mean': it must be concat or sum"),
    ],
)
def test_wrong_values_get_a_sentence(options, sentence):
    with pytest.raises(InputError, match=sentence):
        Subtree(C, H, **options)


def test_without_a_place_it_says_so():
    with pytest.raises(InputError, match="call place"):
        Subtree(C, H)(torch.randn(1, 4, C))
    with pytest.raises(InputError, match="needs a Grid or a Graph"):
        Subtree(C, H).place(Sequence(4))


def test_heads_can_not_be_cut_out():
    with pytest.raises(InputError, match="heads can't be cut out of Subtree"):
        make(PLACES["grid"])[0].keep_heads([0])
