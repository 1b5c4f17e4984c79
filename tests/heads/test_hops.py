"""heads.csv, scalars and figures of heads that look at several hops."""

import csv
from functools import partial

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vitlocal.heads import LocalityMonitor, head_statistics
from vitlocal.heads.collector import HeadCollector
from vitlocal.heads.summary import columns, rows, scalars
from vitlocal.models import Softmax, Subtree, VisionTransformer, attention_weights
from vitlocal.tasks import Classification

SMALL = {"img_size": (8, 8), "in_chans": 1, "patch_size": 2, "embed_dim": 16, "depth": 2, "num_heads": 2}
HOPS = 3


LOOKS_FAR = partial(Subtree, num_hops=HOPS)


def network(attention=LOOKS_FAR):
    torch.manual_seed(0)
    made = VisionTransformer(**SMALL, attention=attention).eval()
    for block in made.blocks:
        for parameter in block.attn.parameters():
            torch.nn.init.normal_(parameter, std=0.7)
    return made


@torch.no_grad()
def collected(made, images):
    collector = HeadCollector(made, torch.device("cpu"))
    with collector.batch(images):
        made(images)
    return collector, collector.compute()


@torch.no_grad()
def test_each_head_and_hop_has_a_row_of_its_own_statistics():
    made, images = network(), torch.randn(3, 1, 8, 8)
    tokens = []
    for block in made.blocks:
        block.attn.register_forward_pre_hook(lambda module, inputs: tokens.append(inputs[0]))
    collector, layers = collected(made, images)
    table = rows(layers, collector.places, step=7)
    assert columns(layers)[:7] == ("epoch", "step", "layer", "head", "hop", "gate", "own_gate")
    which = [(row["layer"], row["head"], row["hop"]) for row in table]
    assert which == [(layer, head, hop) for layer in (0, 1) for head in (0, 1) for hop in (1, 2, 3)]
    for layer, block in enumerate(made.blocks):
        weights = attention_weights(block.attn, tokens[layer]).unflatten(1, (2, HOPS))
        gates = block.attn.gates()
        for head, hop in ((0, 1), (1, 3)):
            (row,) = (r for r in table if (r["layer"], r["head"], r["hop"]) == (layer, head, hop))
            alone = head_statistics(weights[:, head, hop - 1 : hop], made.geometry)
            for name, values in alone.items():
                assert float(row[name]) == pytest.approx(values.mean().item(), rel=1e-5, abs=1e-6), name
            assert float(row["gate"]) == pytest.approx(gates[head, hop].item(), rel=1e-5)
            assert float(row["own_gate"]) == pytest.approx(gates[0, 0].item(), rel=1e-5)
    assert {row["gate"][0] for row in table} >= {"-"}  # of either sign


@torch.no_grad()
def test_scalars_are_of_a_head_and_hop_and_gates_of_heads_add_up():
    collector, layers = collected(network(), torch.randn(2, 1, 8, 8))
    values = scalars(layers, collector.uniform, collector.geometry, collector.places)
    assert collector.places[0].names[3] == "head_1/hop_1"
    assert values["locality/mad/layer_1/head_1/hop_1"] == layers[1]["mad"][3]
    gates = collector._attention[1].gates
    for hop in range(1 + HOPS):
        assert values[f"locality/gate/layer_1/hop_{hop}"] == pytest.approx(
            gates.hop_gate[hop].item(), rel=1e-5
        )
    assert values["locality/gate/layer_1/head_0/hop_2"] == pytest.approx(gates()[0, 2].item(), rel=1e-5)
    assert not [name for name in values if "/hop/" in name or "own_gate" in name]


@torch.no_grad()
def test_other_kinds_have_the_table_they_had():
    collector, layers = collected(network(Softmax), torch.randn(2, 1, 8, 8))
    assert not {"hop", "gate", "own_gate"} & {*columns(layers)}
    assert (
        list(rows(layers, collector.places, 0)[0])[:2] == ["step", "layer"]
        and len(rows(layers, collector.places, 0)) == 4
    )
    names = scalars(layers, collector.uniform, collector.geometry, collector.places)
    assert "locality/mad/layer_1/head_1" in names and not [name for name in names if "gate" in name]


def test_a_run_writes_them_and_draws_gates_by_epoch(tmp_path, make_trainer, small_data):
    made = {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 2}
    task = Classification(partial(VisionTransformer, attention=partial(Subtree, num_hops=HOPS), **made))
    logger = TensorBoardLogger(tmp_path, name="", version="run")
    trainer = make_trainer(max_epochs=2, callbacks=[LocalityMonitor()], logger=logger)
    trainer.fit(task, small_data)
    with (tmp_path / "run" / "heads.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 3 * 2 * 2 * HOPS and [row["hop"] for row in table[:4]] == ["1", "2", "3", "1"]
    assert {row["gate"] for row in table if row["epoch"] == "0"} == {"0.5"}
    events = EventAccumulator(str(tmp_path / "run"), size_guidance={"scalars": 0}).Reload()
    drawn = events.Scalars("locality/gate/layer_0/hop_3")
    assert len(drawn) == 3 and drawn[0].value == 1 != drawn[-1].value
    last = [float(row["gate"]) for row in table if row["epoch"] == "2" and row["layer"] == "0"]
    assert drawn[-1].value == pytest.approx(last[2] + last[5], rel=1e-4)
    assert "locality/mad_over_training" in events.Tags()["images"]
