"""Statistics of heads over sequences, each without its padding, against slow loops."""

import csv
import math

import pytest
import torch

from vitlocal.data import Arithmetic
from vitlocal.geometry import Sequence
from vitlocal.heads import LocalityMonitor
from vitlocal.heads.sequences import SequenceStatistics, _uniform, offset_histogram
from vitlocal.models import attention_weights
from vitlocal.tasks import SequenceModeling

SMALL = {
    "class_path": "vitlocal.models.Decoder",
    "init_args": {"embed_dim": 8, "depth": 2, "num_heads": 2},
}


def causal(count, length, seed=0):
    """Random rows that look back, and beyond each sequence's end whatever."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(count, 2, length, length, generator=generator, dtype=torch.float64)
    past = torch.ones(length, length).tril().bool()
    return scores.masked_fill(~past, -torch.inf).softmax(-1)


def slow(rows):
    """Of one head's rows (n, n) of one sequence, by loops over queries and keys."""
    n = len(rows)
    a = rows.tolist()
    later = range(1, n)
    offsets = [sum(a[i][i - d] for i in later if i >= d) / (n - 1) for d in range(n)]
    return {
        "mad": sum(a[i][j] * (i - j) for i in range(n) for j in range(i + 1)) / n,
        "mad_share": sum(a[i][j] * (i - j) / i for i in later for j in range(i + 1)) / n,
        "entropy": sum(
            -sum(a[i][j] * math.log(a[i][j]) for j in range(i + 1)) / math.log(i + 1) for i in later
        )
        / (n - 1),
        "self_mass": sum(a[i][i] for i in range(n)) / n,
        "first_mass": sum(a[i][0] for i in later) / (n - 1),
        "previous_mass": sum(a[i][i - 1] for i in later) / (n - 1),
    }, offsets


def slow_means(attention, lengths):
    """Means over sequences; the offsets' peak is that of their mean histogram."""
    heads = []
    for head in range(attention.shape[1]):
        every = [
            slow(rows[head, :n, :n]) for rows, n in zip(attention.double(), lengths.tolist(), strict=True)
        ]
        found = {name: sum(each[name] for each, _ in every) / len(every) for name in every[0][0]}
        histogram = [0.0] * int(lengths.max())
        for _, offsets in every:
            for d, mass in enumerate(offsets):
                histogram[d] += mass / len(every)
        peak = max(range(len(histogram)), key=histogram.__getitem__)
        heads.append(found | {"offset_peak": peak, "offset_peak_mass": histogram[peak]})
    return heads


def test_statistics_are_those_of_slow_loops_and_padding_does_not_count():
    attention, lengths = causal(5, 9), torch.tensor([9, 4, 6, 9, 2])
    metric = SequenceStatistics(2, Sequence(9, causal=True))
    metric.update(attention[:3], lengths[:3])
    metric.update(attention[3:], lengths[3:])
    found, expected = metric.compute(), slow_means(attention, lengths)
    for head in range(2):
        for name, value in expected[head].items():
            assert found[name][head].item() == pytest.approx(value, rel=1e-9), name
    spoilt = attention.clone()
    for row, n in zip(spoilt, lengths.tolist(), strict=True):
        row[:, n:] = 7.0
    again = SequenceStatistics(2, Sequence(9, causal=True))
    again.update(spoilt, lengths)
    for name, value in again.compute().items():
        torch.testing.assert_close(value, found[name], msg=name)


def test_a_head_that_looks_three_back_has_its_peak_there():
    rows = torch.zeros(1, 1, 8, 8)
    for i in range(8):
        rows[0, 0, i, max(i - 3, 0)] = 1
    histogram = offset_histogram(rows)[0, 0]
    assert histogram.argmax() == 3 and histogram.sum().item() == pytest.approx(1)
    assert histogram[3].item() == pytest.approx(5 / 7)


@pytest.mark.parametrize("length", [2, 9, 40])
def test_uniform_attention_to_the_past_has_its_closed_forms(length):
    found, histogram = _uniform(length, "tokens")
    assert found["mad"] == pytest.approx((length - 1) / 4)
    assert found["entropy"] == pytest.approx(1)
    harmonic = sum(1 / k for k in range(2, length + 1))
    for name in ("first_mass", "previous_mass"):
        assert found[name] == pytest.approx(harmonic / (length - 1))
    assert found["mad_share"] == pytest.approx((length - 1) / 2 / length)
    assert histogram.argmax() in (0, 1) and histogram.sum().item() == pytest.approx(1)


def test_the_monitor_writes_them(tmp_path, make_trainer):
    data = Arithmetic(
        operators=3, p=3, train_size=8, val_size=30, test_size=5, batch_size=8, path=str(tmp_path)
    )
    module = SequenceModeling(SMALL, lr=0.0, warmup_epochs=0)
    make_trainer(callbacks=[LocalityMonitor(before_training=False)], num_sanity_val_steps=0).fit(module, data)
    with next(tmp_path.rglob("heads.csv")).open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 4
    tokens = torch.from_numpy(data._datasets["val"].tokens.astype("int64"))
    network = module.network.eval()
    found = []
    hooks = [
        block.attn.register_forward_pre_hook(
            lambda attention, inputs: found.append(attention_weights(attention, inputs[0]))
        )
        for block in network.blocks
    ]
    with torch.no_grad():
        network(tokens)
    assert len(hooks) == len(found) == 2
    lengths = (tokens != 0).sum(1)
    assert len(lengths.unique()) > 1
    expected = [head for weights in found for head in slow_means(weights, lengths)]
    for row, head in zip(table, expected, strict=True):
        for name, value in head.items():
            assert float(row[name]) == pytest.approx(value, rel=1e-4, abs=1e-5), name
