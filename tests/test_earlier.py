"""Settings of earlier releases: of a checkpoint, a configuration, the command line and a study's cells."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from tests import blobs
from vitlocal import cli, config_files
from vitlocal.cli.resolve import resolve
from vitlocal.models import ClippedSoftmax
from vitlocal.runs import open_run
from vitlocal.study import settings

SINK = Path(__file__).parent.parent / "docs" / "runs" / "sink"

EARLIER = {
    "patch_size": 4, "width": 16, "depth": 2, "heads": 2, "mlp_ratio": 2.0, "pool": "mean", "dropout": 0.0,
    "stochastic_depth": 0.0, "lr": 0.02, "weight_decay": 0.05, "warmup_epochs": 0, "compile": False,
    "attention": "clipped_softmax", "clip_gamma": None, "clip_alpha": 0.3, "clip_zeta": 1.0, "gate": "linear",
    "gate_pi_init": 0.5, "gate_hidden": 4, "patch_norm": False, "init": "lee", "pos_embed": "learned",
    "schedule": "cosine", "macro_metrics": False,
}  # fmt: skip
"""What the last release with these names wrote of such a model, in a configuration."""

FACTS = {"image_size": (8, 8), "in_channels": 3, "num_classes": 3, "mean": (0.5,) * 3, "std": (0.2,) * 3}
WORDS = ("--model.network.global_pool=avg", "--model.network.init=lee", "--model.network.attention.alpha=0.3")


def test_a_checkpoint_and_a_configuration_of_an_earlier_release(tmp_path, npz_file):
    run = blobs.fit(tmp_path, npz_file, "--model.network.attention=ClippedSoftmax", *WORDS)
    assert run.parent.name == "blobs-baseline-pool=mean-clipped_softmax-init=lee"  # as it was called then
    path = run / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    config = yaml.safe_load((run / "config.yaml").read_text())
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    expected = open_run(path).load_module().eval()
    content["hyper_parameters"] = EARLIER | FACTS | {"mean": expected.hparams["mean"]}
    content["hyper_parameters"] |= {"std": expected.hparams["std"], "_instantiator": "x"}
    torch.save(content, path)
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"model": EARLIER | dict.fromkeys(FACTS)}))
    module = open_run(run).load_module()
    assert all(type(block.attn) is ClippedSoftmax for block in module.network.blocks)
    module = open_run(path).load_module().eval()
    assert torch.equal(module(images), expected(images))
    # The same settings, so the same run: it resumes.
    more = ("--ckpt_path=last", f"--trainer.default_root_dir={tmp_path}", "--trainer.max_epochs=3")
    cli.main(["fit", "--config", str(run / "config.yaml"), *more])
    assert (run / "metrics.csv").read_text().count("\n") == 4
    resumed = torch.load(path, weights_only=True)["hyper_parameters"]
    assert resumed["network"]["init_args"]["attention"]["init_args"]["alpha"] == 0.3


def test_the_command_line_takes_earlier_names():
    words = "--model.width=96 --model.heads 6 --model.attention=clipped_softmax --model.clip_alpha=0.5"
    network = resolve([*words.split(), "--model.pool=mean"])["model"]["init_args"]["network"]["init_args"]
    assert (network["embed_dim"], network["num_heads"], network["global_pool"]) == (96, 6, "avg")
    assert network["attention"]["class_path"].endswith("ClippedSoftmax")
    assert network["attention"]["init_args"]["alpha"] == 0.5


@pytest.mark.parametrize("cell", sorted(SINK.glob("cells/*/*/*")), ids=lambda cell: cell.parent.name)
def test_cells_of_an_earlier_release_have_the_fingerprint_of_the_same_settings_now(cell):
    (config,) = cell.glob("lightning_logs/*/version_*/config.yaml")
    known = json.loads((cell / "cell.json").read_text())["fingerprint"]
    assert "width" in config.read_text()
    assert settings.fingerprint(settings.flat(config_files.read(config))) == known


def test_attention_s_arguments_and_the_pool_have_their_earlier_names_in_a_fingerprint():
    model = {"attention": "clipped_softmax", "clip_alpha": 0.3, "pool": "mean", "width": 96}
    of_now = {"model": {"network": {
        "class_path": "vitlocal.models.VisionTransformer",
        "init_args": {"embed_dim": 96, "global_pool": "avg", "attention": {
            "class_path": "vitlocal.models.ClippedSoftmax", "init_args": {"alpha": 0.3, "zeta": 1.0}}},
    }}}  # fmt: skip
    earlier = {f"model.{name}": json.dumps(value) for name, value in model.items()}
    assert settings.fingerprint(settings.flat(of_now)) == settings.fingerprint(earlier)
