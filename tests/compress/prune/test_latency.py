"""A table of latencies: what is measured, written, read and refused."""

import json
from dataclasses import asdict, replace

import pytest

from vitlocal import hardware
from vitlocal.compress.prune import latency
from vitlocal.compress.prune.runtime import Setting
from vitlocal.errors import InputError
from vitlocal.models import VisionTransformer

SETTING = Setting("cpu", 2, "32-true", 1)
WANTED = {"attention": [2, 1, 0], "mlp": [32, 8, 0]}


@pytest.fixture(scope="module")
def network():
    return VisionTransformer(img_size=8, embed_dim=16, depth=2, num_heads=2).eval()


@pytest.fixture(scope="module")
def table(network):
    return latency.measure(network, (3, 8, 8), WANTED, SETTING, repeats=3)


def test_every_count_has_a_time_and_none_has_0(table):
    assert table.machine == hardware.machine("cpu") and table.tokens == (5, 16, 8)
    assert {kind: sorted(of) for kind, of in table.parts.items()} == {"attention": [1, 2], "mlp": [8, 32]}
    assert all(value > 0 for of in table.parts.values() for value in of.values())
    assert table.of("mlp", 8) == table.parts["mlp"][8] and table.of("attention", 0) == 0
    # The network is its parts, two layers of each, and what can't be pruned.
    whole = table.rest + 2 * (table.of("attention", 2) + table.of("mlp", 32))
    assert table.network == pytest.approx(whole) and table.rest > 0


def test_what_is_measured_is_a_layer_with_so_much_of_one_branch(network):
    block = latency._alone(network, "attention", 1)
    assert block.mlp is None and block.attn.num_heads == 1
    block = latency._alone(network, "mlp", 8)
    assert block.attn is None and block.mlp.fc2.in_features == 8
    assert network.blocks[0].attn.num_heads == 2  # as it was


def test_what_is_written_is_read(network, table, tmp_path):
    latency.write(table, tmp_path / "latencies.json")
    assert latency.read(tmp_path / "latencies.json", network, WANTED, SETTING) == table


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"machine": "another"},
            r"measured on another machine \(another; this is .*remove it to measure here",
        ),
        ({"setting": asdict(replace(SETTING, threads=7))}, "measured with threads 7, not 1: remove it"),
        ({"setting": asdict(replace(SETTING, batch_size=9))}, "measured with batch_size 9, not 2"),
        (
            {"setting": asdict(replace(SETTING, precision="bf16-mixed"))},
            "measured with precision bf16-mixed, not 32-true",
        ),
        ({"setting": asdict(replace(SETTING, device="cuda"))}, "measured with device cuda, not cpu"),
        (
            {"setting": asdict(replace(SETTING, runtime="onnx"))},
            "measured with runtime onnx, not eager: remove it to measure anew, or give the runtime",
        ),
        ({"tokens": [5, 16, 4]}, "of a network of other sizes: remove it to measure this one"),
        ({"parts": {"attention": {"1": 1.0, "2": 2.0}, "mlp": {"32": 1.0}}}, "of a network of other sizes"),
        ({"setting": {"device": "cpu"}}, "is no table of latencies"),
        ({"parts": []}, "is no table of latencies"),
    ],
)
def test_the_table_of_another_is_refused(network, table, tmp_path, change, sentence):
    path = tmp_path / "latencies.json"
    path.write_text(json.dumps(asdict(table) | change))
    with pytest.raises(InputError, match=sentence):
        latency.read(path, network, WANTED, SETTING)


@pytest.mark.parametrize("content", ["", "[]", "{}", "\udcff"])
def test_a_damaged_table_is_refused(network, tmp_path, content):
    path = tmp_path / "latencies.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match="is no table of latencies: give one that prune wrote"):
        latency.read(path, network, WANTED, SETTING)


def test_a_device_that_is_not_there_is_refused(network):
    with pytest.raises(InputError, match="device is nowhere, which can't be used"):
        latency.measure(network, (3, 8, 8), WANTED, replace(SETTING, device="nowhere"), 1)
