"""Monitors on a network whose layers differ: layers and heads keep their numbers, with the whole's values."""

import pytest
import torch

from vitlocal.activations.collector import OutlierCollector
from vitlocal.activations.monitor import COLUMNS, head_rows
from vitlocal.activations.monitor import rows as outlier_rows
from vitlocal.activations.monitor import scalars as outlier_scalars
from vitlocal.heads import summary
from vitlocal.heads.collector import HeadCollector
from vitlocal.models import VisionTransformer

SIZES = {"img_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 4}
KEPT, HIDDEN = [[], [1, 3], [0], [0, 1, 2, 3]], [48, 0, 5, 48]
NUMBERS = [(1, 1), (1, 3), (2, 0), (3, 0), (3, 1), (3, 2), (3, 3)]


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = VisionTransformer(**SIZES, kept_heads=KEPT, mlp_hidden=HIDDEN).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network


@torch.no_grad()
def collected(kind, network):
    collector, images = kind(network, torch.device("cpu")), torch.randn(6, 3, 8, 8)
    with collector.batch(images):
        network(images)
    return collector, collector.compute()


def test_heads_keep_their_numbers(network):
    collector, layers = collected(HeadCollector, network)
    rows = summary.rows(layers, collector.places, 7)
    assert [(row["layer"], row["head"]) for row in rows] == NUMBERS
    values = summary.scalars(layers, collector.uniform, collector.geometry, collector.places)
    assert {name.partition("mad/")[2] for name in values if "/mad/layer" in name and "head" in name} == {
        f"layer_{layer}/head_{head}" for layer, head in NUMBERS
    }
    assert f"{values['locality/mad/layer_1/head_3']:.6g}" == rows[1]["mad"]
    # The first third of four layers is two of them, of which one has attention.
    assert values["locality/mad_min_early"] == min(layers[0]["mad"])


def test_a_layer_without_an_mlp_has_none_in_its_row(network):
    collector, layers = collected(OutlierCollector, network)
    rows = outlier_rows(layers, collector.places, 7)
    assert [row["layer"] for row in rows] == [1, 2, 3]
    assert not any(name.startswith("mlp") for name in rows[0]) and set(rows[1]) | {"epoch"} == set(COLUMNS)
    heads = head_rows(layers, collector.places, 7)
    assert [(row["layer"], row["head"]) for row in heads] == NUMBERS
    values = outlier_scalars(layers, collector.places)
    assert "outliers/kurtosis/layer_1/mlp" not in values and "outliers/kurtosis/layer_2/mlp" in values
    assert f"{values['outliers/update/layer_1/head_3']:.6g}" == heads[1]["update"]
