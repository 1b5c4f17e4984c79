"""A kind of attention that is one file of somebody's own, by its class path in a YAML and no other edit."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vitlocal.cli import main
from vitlocal.runs import open_run

KIND = '''
import torch
import torch.nn.functional as F
from torch import nn

from vitlocal.models import Attention, explicit_attention


class Cosine(Attention):
    """Softmax of cosines over a temperature."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = True, proj_drop: float = 0.0,
                 *, temperature: float = 0.1) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.temperature = num_heads, dim // num_heads, temperature
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def split(self, qkv):
        query, key, value = super().split(qkv)
        return torch.stack([F.normalize(query, dim=-1), F.normalize(key, dim=-1), value])

    def forward(self, x):
        mixed = F.scaled_dot_product_attention(*self.split(self.qkv(x)), scale=1 / self.temperature)
        return self.proj(mixed.transpose(1, 2).flatten(2))

    def explicit(self, x, tap, queries=None, qkv=None):
        qkv = self.split(self.qkv(x)) if qkv is None else qkv
        context = explicit_attention(qkv, tap, queries, scale=1 / self.temperature)
        context = context.transpose(1, 2).flatten(2)
        given = tap("context", context)
        return self.proj(context if given is None else given)
'''
YAML = """
model:
  network: {attention: {class_path: cosine.Cosine, init_args: {temperature: 0.2}}}
"""


@pytest.fixture
def fit(tmp_path, monkeypatch, npz_file):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("cosine.py").write_text(KIND)
    Path("cosine.yaml").write_text(YAML)

    def run(*words, folder="."):
        small = ["--model.network.embed_dim=16", "--model.network.depth=2", "--model.network.num_heads=2"]
        given = [
            "--config=npz.yaml",
            f"--data.path={npz_file}",
            "--config=modern.yaml",
            "--config=cosine.yaml",
        ]
        rate = ["--model.warmup_epochs=9", "--data.batch_size=8", "--trainer.enable_progress_bar=false"]
        here = [
            "--trainer.accelerator=cpu",
            "--trainer.precision=32-true",
            "--trainer.logger=false",
            f"--trainer.default_root_dir={folder}",
        ]
        main(["fit", *given, *small, *rate, *here, *words])
        return next((tmp_path / folder).glob("lightning_logs/*/version_0"))

    return run


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def first_layers_mads(module, images):
    """By definition: weights of cosines between queries and keys, over the patches, times distances."""
    block, seen = module.network.blocks[0], []
    with torch.no_grad():
        hook = block.attn.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        module(images)
        hook.remove()
        query, key, _ = block.attn.qkv(seen[0]).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        weights = (F.cosine_similarity(query[..., None, :], key[..., None, :, :], dim=-1) / 0.2).softmax(-1)
    weights = weights[..., 1:, 1:] / weights[..., 1:, 1:].sum(-1, keepdim=True)  # without the class token
    places = torch.cartesian_prod(torch.arange(2.0), torch.arange(2.0))
    return (weights * torch.cdist(places, places)).sum(-1).mean((0, 2)) / 2**0.5


def test_it_trains_resumes_exactly_is_observed_and_quantized(fit, npz_file):
    straight = fit("--trainer.max_epochs=2")
    fit("--trainer.max_epochs=1", folder="parts")
    resumed = fit("--trainer.max_epochs=2", "--ckpt_path=last", folder="parts")
    rows = table(straight / "heads.csv")
    assert table(resumed / "heads.csv") == rows
    assert [row["epoch"] for row in rows] == [epoch for epoch in "012" for _ in range(4)]

    module = open_run(straight / "checkpoints" / "last.ckpt").load_module().eval()
    assert {(type(block.attn).__name__, block.attn.temperature) for block in module.network.blocks} == {
        ("Cosine", 0.2)
    }
    with np.load(npz_file) as arrays:
        images = torch.from_numpy(arrays["val_images"].transpose(0, 3, 1, 2))
    written = [float(row["mad"]) for row in rows if row["epoch"] == "2" and row["layer"] == "0"]
    assert written == pytest.approx(first_layers_mads(module, images).tolist(), abs=1e-5)

    main(
        [
            "quantize",
            f"--ckpt_path={straight}",
            "--seeds=[0]",
            "--repeats=1",
            "--calibration_batches=1",
            "--batch_size=8",
        ]
    )
    parts = {row["part"] for row in table(straight / "quantize" / "quantize.csv")}
    assert {"fp32", "w8a8", "int8"} <= parts
