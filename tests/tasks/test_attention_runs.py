"""Runs with each attention, from the command line: trained, resumed exactly, observed and inspected."""

import csv
from functools import partial

import pytest
import torch

from vitlocal.cli import main
from vitlocal.inspection.command import inspect
from vitlocal.models import ClippedSoftmax, Gated, Subtree, VisionTransformer
from vitlocal.runs import open_run
from vitlocal.runs.trained import trained_subject
from vitlocal.tasks import Classification
from vitlocal.tasks.schedule import decay_groups

KINDS = {
    "clipped": ["--model.network.attention=ClippedSoftmax"],
    "gated": [
        "--model.network.attention=Gated",
        "--model.network.attention.gate=mlp",
        "--model.network.patch_norm=true",
    ],
    "subtree": ["--model.network.attention=Subtree", "--model.network.attention.num_hops=2"],
}
MAPS = {"clipped": 4, "gated": 4, "subtree": 8}
"""Rows of heads.csv an epoch: two layers of two heads, of which each looks at two hops or at all."""
SMALL = [
    "--model.network.embed_dim=16",
    "--model.network.depth=2",
    "--model.network.num_heads=2",
    "--data.batch_size=8",
]
QUIET = [
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--trainer.precision=32-true",
]


@pytest.fixture
def fit(tmp_path, monkeypatch, npz_file):
    monkeypatch.chdir(tmp_path)

    def run(*args):
        data = ["--config=npz.yaml", f"--data.path={npz_file}", "--config=modern.yaml"]
        # Warm-up throughout: the schedule does not depend on where training ends.
        rate = ["--model.lr=0.05", "--model.warmup_epochs=3", "--trainer.logger=false"]
        main(["fit", *data, *SMALL, *QUIET, *rate, "--trainer.max_epochs=3", *args])
        return max(tmp_path.glob("lightning_logs/*/version_*"))

    return run


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_resumes_exactly_and_is_inspected(kind, fit):
    words, size = KINDS[kind], MAPS[kind]
    straight = fit(*words)
    whole = torch.load(straight / "checkpoints" / "last.ckpt", weights_only=True)
    # The one before the last is that of the second epoch.
    (straight / "checkpoints" / "last.ckpt").unlink()
    assert fit(*words, "--ckpt_path=last") == straight
    resumed = torch.load(straight / "checkpoints" / "last.ckpt", weights_only=True)
    assert resumed["global_step"] == whole["global_step"]
    for name, weight in whole["state_dict"].items():
        assert torch.equal(resumed["state_dict"][name], weight), name
    rows = table(straight / "heads.csv")
    assert [row["epoch"] for row in rows] == [str(epoch) for epoch in range(4) for _ in range(size)]
    assert len({row["mad"] for row in rows if row["epoch"] == "3"}) > size / 2
    subject = trained_subject(open_run(straight / "checkpoints" / "last.ckpt"))
    made = {"clipped": ClippedSoftmax, "gated": Gated, "subtree": Subtree}[kind]
    assert all(type(block.attn) is made for block in subject.network.blocks)
    inspect(str(straight / "checkpoints" / "last.ckpt"), maps=1, data=str(straight / "config.yaml"))
    (inspected,) = straight.rglob("inspect*/heads.csv")
    for row, other in zip(table(inspected), rows[-size:], strict=True):
        for name in ("mad", "entropy", "self_mass", "mad_without_self", "class_mass", "mad_raw"):
            assert float(row[name]) == pytest.approx(float(other[name]), abs=1e-5), name


def test_a_checkpoint_from_before_these_options_loads(fit, tmp_path):
    checkpoint = fit() / "checkpoints" / "last.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    for name in ("attention", "patch_norm"):
        del content["hyper_parameters"]["network"]["init_args"][name]
    old = tmp_path / "old.ckpt"
    torch.save(content, old)
    tasks = [
        Classification.load_from_checkpoint(path, weights_only=True).eval() for path in (checkpoint, old)
    ]
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(tasks[0](images), tasks[1](images))


def test_an_option_of_another_attention_is_refused_in_a_sentence(fit, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        fit("--model.network.attention.alpha=0.5")
    said = f"{caught.value.code} {capsys.readouterr().err}"
    assert "there is no key model.network.attention.alpha" in said
    assert not list(tmp_path.glob("lightning_logs/*/version_*"))


@pytest.mark.parametrize("gate", ["linear", "mlp", "all_heads_linear"])
def test_gates_weights_are_decayed_and_their_biases_are_not(gate):
    network = VisionTransformer(
        embed_dim=24, depth=1, num_heads=2, attention=partial(Gated, gate=gate), patch_norm=True
    )
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    decayed, undecayed = ({names[id(p)] for p in group["params"]} for group in decay_groups(network, 0.05))
    assert {name.rpartition(".")[2] for name in decayed} == {"weight"}
    assert any(".gate." in name for name in decayed)
    assert {"patch_embed.norm.weight", "patch_embed.norm.bias"} <= undecayed
    assert all(name.endswith("bias") for name in undecayed if ".gate." in name)
