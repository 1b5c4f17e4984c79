"""Statistics of heads where not every query sees every token: sequences and graphs."""

import pytest
import torch

from tests.heads.slow import slow_statistics
from tests.heads.toy import random_attention
from vitlocal.geometry import Graph, Grid, Sequence
from vitlocal.heads import functional as heads


def in_sequence(attention, sequence):
    """:func:`slow_statistics` of a sequence."""
    real = sequence.length - sequence.padding

    def sees(i, j):
        return max(i, j) < real and (j <= i or not sequence.causal)

    def apart(i, j):
        farthest = max(abs(i - key) for key in range(real) if sees(i, key))
        return abs(i - j) / (max(farthest, 1) if sequence.unit == "share" else 1)

    return slow_statistics(attention, sequence, apart, lambda i, j: abs(i - j) <= 1, sees)


@pytest.mark.parametrize("class_token", ["drop", "keep"])
@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize(("causal", "unit"), [(True, "tokens"), (True, "share"), (False, "tokens")])
def test_sequences_against_loops(causal, unit, padding, prefix, class_token):
    sequence = Sequence(
        7, causal, padding, unit=unit, num_prefix_tokens=prefix, class_token=class_token
    )  # fmt: skip
    # Softmax over all: what a query does not see has to be left out by the statistics.
    attention = random_attention(2, 3, sequence.num_tokens)
    for name, value in heads.head_statistics(attention, sequence).items():
        slow = [in_sequence(head, sequence)[name] for image in attention for head in image]
        assert value.flatten().tolist() == pytest.approx(slow, rel=2e-5, abs=1e-6), name


def test_uniform_attention_over_the_past_in_closed_form():
    n = 50
    uniform = heads.uniform_statistics(Sequence(n, causal=True))
    # Query i sees i + 1 keys, i / 2 away on average, (i + 1) / 2 without itself.
    assert uniform["mad"] == pytest.approx(sum(i / 2 for i in range(n)) / n)
    assert uniform["mad_without_self"] == pytest.approx(sum((i + 1) / 2 for i in range(1, n)) / (n - 1))
    assert uniform["self_mass"] == pytest.approx(sum(1 / (i + 1) for i in range(n)) / n)
    assert uniform["window_mass"] == pytest.approx((1 + sum(2 / (i + 1) for i in range(1, n))) / n)
    assert uniform["entropy"] == 1 and uniform["self_log_odds"] == 0
    # Of its past, the farthest of which is i away, half; the first query has none.
    share = heads.uniform_statistics(Sequence(n, causal=True, unit="share"))
    assert share["mad"] == pytest.approx((n - 1) / n / 2)
    # Both ways, (n^2 - 1) / 3n: the mean distance of two numbers below n.
    assert heads.uniform_statistics(Sequence(n))["mad"] == pytest.approx((n**2 - 1) / (3 * n))


def test_padding_changes_nothing():
    attention = torch.zeros(1, 2, 9, 9)
    attention[..., :6, :6] = random_attention(1, 2, 6).tril()
    attention[..., 6:, :] = random_attention(1, 2, 9, seed=1)[..., :3, :]  # what padding looks at
    alone = heads.head_statistics(attention[..., :6, :6], Sequence(6, causal=True))
    for name, value in heads.head_statistics(attention, Sequence(9, causal=True, padding=3)).items():
        torch.testing.assert_close(value, alone[name], msg=name)
    padded, whole = (heads.uniform_statistics(Sequence(n, causal=True, padding=n - 6)) for n in (9, 6))
    assert padded == whole


# A path 0-1-2-3 and a triangle 4 5 6: two components.
TWO_PARTS = Graph(7, torch.tensor([[0, 1, 2, 4, 5, 6], [1, 2, 3, 5, 6, 4]]))


@pytest.mark.parametrize("num_hops", [None, 1])
def test_graphs_against_loops(num_hops):
    graph = Graph(7, TWO_PARTS.edges, num_hops)

    def apart(i, j):
        return abs(i - j) if max(i, j) < 4 else float(i != j)

    def sees(i, j):
        return (i < 4) == (j < 4) and (num_hops is None or apart(i, j) <= num_hops)

    attention = random_attention(2, 3, 7)
    for name, value in heads.head_statistics(attention, graph).items():
        slow = [
            slow_statistics(head, graph, apart, lambda i, j: apart(i, j) <= 1, sees)[name]
            for image in attention
            for head in image
        ]
        assert value.flatten().tolist() == pytest.approx(slow, rel=2e-5, abs=1e-6), name


def test_uniform_attention_on_a_disconnected_graph():
    uniform = heads.uniform_statistics(TWO_PARTS)
    # Means over the own part: 6/4, 1, 1 and 6/4 on the path, 2/3 in the triangle.
    assert uniform["mad"] == pytest.approx((1.5 + 1 + 1 + 1.5 + 3 * 2 / 3) / 7)
    assert uniform["self_mass"] == pytest.approx((4 / 4 + 3 / 3) / 7)
    assert uniform["window_mass"] == pytest.approx((0.5 + 0.75 + 0.75 + 0.5 + 3) / 7)
    assert uniform["entropy"] == 1


@pytest.mark.parametrize("geometry", [Grid(4, 5, num_prefix_tokens=1), Sequence(20, True, 3), TWO_PARTS])
def test_a_block_of_queries_at_a_time_gives_the_same(geometry, monkeypatch):
    attention = random_attention(2, 3, geometry.num_tokens)
    whole, uniform = heads.head_statistics(attention, geometry), heads.uniform_statistics(geometry)
    made = geometry.queries
    monkeypatch.setattr(type(geometry), "queries", lambda _, device=None: made(device, elements=50))
    for name, value in heads.head_statistics(attention, geometry).items():
        torch.testing.assert_close(value, whole[name], msg=name)
    assert heads.uniform_statistics(geometry) == pytest.approx(uniform)
