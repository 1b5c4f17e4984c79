"""Classification of nodes: its loss, its metrics, early stopping, resuming, and what the monitor writes."""

import csv
import json
import re
import shutil

import networkx as nx
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vitlocal.cli import main
from vitlocal.data import Karate
from vitlocal.errors import InputError
from vitlocal.models import STAGNN
from vitlocal.tasks import NodeClassification

KARATE = nx.karate_club_graph()
QUICK = ["--config=karate.yaml", "--locality.every_n_epochs=2", "--trainer.enable_model_summary=false"]


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def fit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*words, command="fit"):
        main([command, *QUICK, *words])
        return max(tmp_path.glob("lightning_logs/karate-none-node_classification/version_*"))

    return run


def test_a_run_resumes_exactly_and_leaves_its_tables(fit, tmp_path):
    words = ["--trainer.max_epochs=5", "--model.network.num_hops=2"]
    straight = fit(*words)
    whole = torch.load(straight / "checkpoints" / "last.ckpt", weights_only=True)
    written = [(straight / f"{name}.csv").read_bytes() for name in ("metrics", "heads")]
    (straight / "checkpoints" / "last.ckpt").unlink()  # the one before is that of the fourth epoch
    assert fit(*words, "--ckpt_path=last") == straight
    resumed = torch.load(straight / "checkpoints" / "last.ckpt", weights_only=True)
    assert resumed["global_step"] == whole["global_step"] == 5
    for name, weight in whole["state_dict"].items():
        assert torch.equal(resumed["state_dict"][name], weight), name
    assert [(straight / f"{name}.csv").read_bytes() for name in ("metrics", "heads")] == written

    rows = table(straight / "heads.csv")
    assert [row["epoch"] for row in rows] == [epoch for epoch in "024" for _ in range(4 * 2)]
    assert {(row["head"], row["hop"]) for row in rows} == {(h, k) for h in "0123" for k in "12"}
    for row in rows:
        masses = [float(row[f"mass_at_{hops}"]) for hops in range(3)]
        assert sum(masses) == pytest.approx(1, abs=1e-4)
        assert float(row["mad"]) == pytest.approx(masses[1] + 2 * masses[2], abs=1e-4)
        assert float(row["self_mass"]) == pytest.approx(masses[0], abs=1e-4)
    known = json.loads((straight / "geometry.json").read_text())
    balls = [nx.single_source_shortest_path_length(KARATE, node, 2) for node in KARATE]
    expected = np.mean([np.mean(list(ball.values())) for ball in balls])
    assert known["uniform"]["mad"] == pytest.approx(expected) and known["geometry"]["kind"] == "Graph"
    losses = [float(row["train/loss"]) for row in table(straight / "metrics.csv")]
    assert len(losses) == 5 and losses[-1] < losses[0]
    events = EventAccumulator(str(straight), size_guidance={"scalars": 0}).Reload()
    assert len(events.Scalars("locality/gate/layer_0/hop_2")) == 3
    shutil.rmtree(tmp_path / "lightning_logs")


def test_the_best_is_tested_from_the_command_line(fit, capsys):
    fit("--trainer.max_epochs=2", "--locality=null")
    fit("--locality=null", "--ckpt_path=best", command="test")
    assert "test/acc1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--model=Classification"],
            "are a graph and model is .*Classification: give --model=NodeClassification",
        ),
        (["--protocol.crop_flip=CropFlip"], "protocol is of images, and the data are a graph"),
        (["--data=Digits"], "are images and model is .*NodeClassification: give --model=Classification"),
        (["--model.network=STAG"], "network is 'STAG': it must be VisionTransformer, STAGNN"),
        (["--model.patience=0"], "model.patience is 0"),
        (["--locality.mixed_images=3"], "nodes of a graph are no images"),
        (["--data.split_seed=-1"], "split_seed=-1"),
    ],
)
def test_what_does_not_go_together_is_refused_in_a_sentence(words, sentence, fit, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        fit(*words)
    assert caught.value.code
    said = capsys.readouterr().err
    assert re.search(sentence, said) and "Traceback" not in said
    assert not list(tmp_path.glob("lightning_logs/*/version_*"))


def fitted(make_trainer, **options):
    torch.manual_seed(0)
    task = NodeClassification(**options)
    trainer = make_trainer(max_epochs=3)
    trainer.fit(task, Karate())
    return task, trainer


@pytest.mark.parametrize("metric", ["accuracy", "auroc"])
def test_loss_and_metrics_are_of_the_nodes_of_their_part(make_trainer, metric):
    task, trainer = fitted(make_trainer, metric=metric)
    (found,) = trainer.test(task, Karate(), verbose=False)
    data = Karate()
    data.setup()
    nodes = data.nodes["test"]
    with torch.no_grad():
        logits, label = task.eval()(data.features)[nodes], data.labels[nodes]
    loss = F.cross_entropy(logits, label)
    if metric == "auroc":
        loss = F.binary_cross_entropy_with_logits(logits, F.one_hot(label, 2).float())
        expected = roc_auc_score(label, logits.softmax(1)[:, 1])
        assert found["test/auroc_macro"] == pytest.approx(expected)
    assert found["test/loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert found["test/acc1"] == pytest.approx((logits.argmax(1) == label).double().mean().item())


def test_training_stops_without_a_better_metric_and_says_what_was_best(make_trainer, caplog):
    task = NodeClassification(lr=0.0, patience=3)
    trainer = make_trainer(max_epochs=50)
    with caplog.at_level("INFO"):
        trainer.fit(task, Karate())
    assert trainer.current_epoch == 4
    best = trainer.callback_metrics["val/acc1"]
    assert f"vitlocal: the best val/acc1 is {best:.4f}, after 1 of 4 epochs" in caplog.text


def test_weight_decay_leaves_gates_alone(make_trainer):
    task, trainer = fitted(make_trainer, weight_decay=0.1)
    (decayed, undecayed) = trainer.optimizers[0].param_groups
    gates = {id(gate) for gate in task.network.attn.gates.parameters()}
    assert {id(p) for p in undecayed["params"]} == gates and len(gates) == 2
    assert decayed["weight_decay"] == 0.1 and undecayed["weight_decay"] == 0
    assert len(decayed["params"]) + 2 == len(list(task.parameters()))


def test_a_checkpoint_knows_its_classes_and_is_placed_on_a_graph_again(make_trainer, tmp_path):
    task, trainer = fitted(make_trainer)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = NodeClassification.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    results = [make_trainer().test(one, Karate(), verbose=False)[0] for one in (task, again)]
    assert results[0] == results[1] and again.hparams["class_names"] == ("Mr. Hi", "Officer")
    with pytest.raises(InputError, match="the model has num_features 37 but the graph has 36"):
        make_trainer().test(again, Karate(eigenvectors=2), verbose=False)


def test_rivals_are_trained_by_the_same_task(make_trainer):
    pytest.importorskip("torch_geometric")
    for name in ("GCN", "GAT"):
        task, trainer = fitted(make_trainer, network=name)
        assert type(task.network).__name__ == name and trainer.global_step == 3
        assert trainer.callback_metrics["val/acc1"] >= 0


def test_without_a_graph_it_says_so(make_trainer):
    with pytest.raises(InputError, match="num_features is not known: give data that are a graph"):
        make_trainer().fit(NodeClassification(), [])
    with pytest.raises(InputError, match="call place"):
        STAGNN(3, 2)(torch.randn(4, 3))
