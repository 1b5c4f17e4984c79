"""Networks of other libraries by name on the command line: trained, observed, resumed and put to use."""

import csv

import pytest
import timm
import torch
import transformers
import yaml

from vitlocal.cli import main
from vitlocal.errors import InputError
from vitlocal.models import Timm, make_network, network_settings
from vitlocal.runs import open_run

QUIET = [
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--trainer.precision=32-true",
    "--model.warmup_epochs=9",  # throughout: the rate does not depend on where training ends
    "--data.batch_size=8",
]


@pytest.fixture
def fit(tmp_path, monkeypatch, npz_file):
    monkeypatch.chdir(tmp_path)
    # Of timm's smallest, with patches that fit into images of 8x8.
    make = timm.create_model
    small = {"patch_size": 2, "depth": 2}
    monkeypatch.setattr(timm, "create_model", lambda name, **given: make(name, **small, **given))

    def run(network, *words, folder="."):
        data = ["--config=npz.yaml", f"--data.path={npz_file}", "--config=modern.yaml"]
        words = [
            f"--model.network={network}",
            *QUIET,
            "--trainer.logger=false",
            f"--trainer.default_root_dir={folder}",
            *words,
        ]
        main(["fit", *data, *words])
        return next((tmp_path / folder).glob("lightning_logs/*/version_0"))

    return run


def heads(run):
    with (run / "heads.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_timm_is_trained_resumed_validated_exported_and_inspected(fit, npz_file, capsys):
    straight = fit("timm:test_vit", "--trainer.max_epochs=2")
    assert straight.parent.name == "blobs-modern-timm-name=test_vit"
    assert [row["epoch"] for row in heads(straight)] == [epoch for epoch in "012" for _ in range(4)]
    assert len({row["mad"] for row in heads(straight)}) > 6
    fit("timm:test_vit", "--trainer.max_epochs=1", folder="parts")
    resumed = fit("timm:test_vit", "--trainer.max_epochs=2", "--ckpt_path=last", folder="parts")
    assert heads(resumed) == heads(straight)
    module = open_run(straight).load_module()
    assert (
        isinstance(module.network, Timm) and "network.model.blocks.0.attn.qkv.weight" in module.state_dict()
    )
    main(
        [
            "validate",
            "--config=npz.yaml",
            f"--data.path={npz_file}",
            f"--ckpt_path={straight / 'checkpoints' / 'best.ckpt'}",
        ]
    )
    main(["export", f"--ckpt_path={straight}", "--output=net.onnx"])
    main(["inspect", str(straight), "--max_images=4", "--maps=1"])
    assert (straight / "inspect" / "heads.csv").is_file()
    with pytest.raises(SystemExit):
        main(["quantize", f"--ckpt_path={straight}", "--int8=false"])
    assert "is a Timm: only vitlocal's VisionTransformer can be quantized" in capsys.readouterr().err


def test_a_name_in_a_file(fit, tmp_path):
    (tmp_path / "net.yaml").write_text("model:\n  network: timm:test_vit\n")
    run = fit("timm:test_vit", "--config=net.yaml", "--trainer.max_epochs=0")
    said = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["network"]
    assert said["class_path"] == "vitlocal.models.Timm" and said["init_args"]["name"] == "test_vit"


def test_a_folder_of_transformers(fit, tmp_path):
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 2}
    config = transformers.ViTConfig(image_size=8, patch_size=4, num_labels=7, **sizes)
    source = transformers.ViTForImageClassification(config)
    source.save_pretrained(tmp_path / "vit")
    run = fit(f"transformers:{tmp_path / 'vit'}", "--trainer.max_epochs=1", "--model.lr=0")
    trained = open_run(run).load_module().network.model
    assert trained.classifier.out_features == 3
    for name, parameter in source.vit.named_parameters():
        assert torch.equal(trained.vit.get_parameter(name), parameter), name
    assert len(heads(run)) == 2 * 2 * 2


@pytest.mark.parametrize(
    ("network", "facts", "said"),
    [
        (
            "timm:test_vit",
            {"img_size": (24, 20)},
            "patches of 16x16 pixels, into which images of 24x20",
        ),
        ("timm:swin_tiny_patch4_window7_224", {}, "SwinTransformer: give a plain Vision Transformer"),
        ("timm:resnet18", {}, "timm:resnet18 can't be made|ResNet: give a plain"),
        (
            "torchvision:vit_b_16",
            {"in_chans": 1},
            "vit_b_16 takes square images in colour, not of",
        ),
        ("torchvision:vit_b_16", {"img_size": (32, 64)}, "takes square images in colour, not of 32x64"),
    ],
)
def test_networks_and_images_that_do_not_fit(network, facts, said):
    with pytest.raises(InputError, match=said):
        make_network(
            network_settings(network), **({"img_size": (32, 32), "in_chans": 3, "num_classes": 3} | facts)
        )
