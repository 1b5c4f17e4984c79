"""Networks of timm that are plain ViTs are pruned as vitlocal's own; others are refused."""

import pytest
import timm
import torch

from tests.blobs import write
from tests.compress.prune.test_command import SMALL, table_of, take_made_up_times
from vitlocal.cli import main
from vitlocal.compress.prune.command import prune
from vitlocal.compress.prune.plain import plain
from vitlocal.errors import InputError
from vitlocal.models import Timm
from vitlocal.models.factory import make_network
from vitlocal.runs import open_run

FACTS = {"img_size": (32, 32), "in_chans": 1, "num_classes": 5}


@torch.no_grad()
def test_it_computes_what_timms_does():
    torch.manual_seed(0)
    network = Timm("test_vit", **FACTS).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    ours, settings = plain(network, "x")
    images = torch.randn(3, 1, 32, 32)
    torch.testing.assert_close(ours(images), network(images), rtol=1e-4, atol=1e-4)
    again = make_network(settings, **FACTS)
    again.load_state_dict(ours.state_dict())
    torch.testing.assert_close(again.eval()(images), ours(images))


@pytest.mark.parametrize("name", ["test_vit2", "test_vit3", "test_vit4"])
def test_other_layers_are_refused(name):
    network = Timm(name, **FACTS).eval()
    with pytest.raises(
        InputError, match=r"x is a network of timm with other layers than .* such as registers"
    ):
        plain(network, "x")


def test_a_run_of_timm_is_pruned(tmp_path, monkeypatch):
    make = timm.create_model  # of its smallest, with patches that fit into images of 8x8
    small = {"patch_size": 2, "depth": 2}
    monkeypatch.setattr(timm, "create_model", lambda name, **given: make(name, **small, **given))
    words = [
        "fit",
        "--config=npz.yaml",
        f"--data.path={write(tmp_path / 'blobs.npz')}",
        "--config=baseline.yaml",
    ]
    words += ["--model.network=timm:test_vit", "--data.batch_size=8", "--trainer.max_epochs=1"]
    words += ["--trainer.accelerator=cpu", "--trainer.logger=false", "--trainer.enable_progress_bar=false"]
    main([*words, "--model.warmup_epochs=0", f"--trainer.default_root_dir={tmp_path}"])
    (run,) = tmp_path.glob("lightning_logs/*/version_0")
    take_made_up_times(monkeypatch, heads=4, hidden=384)
    rows = prune(run, [1.5], rival_methods=False, **SMALL)
    assert [row.method for row in rows] == ["dense", "ziplm"]
    pruned = open_run(run / "prune" / "speedup_1.5")
    settings = pruned.hyperparameters["network"]
    assert settings["class_path"] == "vitlocal.VisionTransformer"
    assert pruned.config["model"]["init_args"]["network"] == settings
    assert len(table_of(run / "prune" / "prune_heads.csv")) == 4
    assert sum(p.numel() for p in pruned.load_module().network.parameters()) == rows[1].parameters
