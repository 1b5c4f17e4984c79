import csv
import math

import numpy as np
import pytest
import torch
from lightning.pytorch import seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from tests.activations.test_outliers import slow
from tests.heads.toy import ToyModule, loader
from vitlocal import cli
from vitlocal.activations import OutlierMonitor
from vitlocal.activations.figures import outlier_figure
from vitlocal.activations.monitor import COLUMNS, HEAD_COLUMNS, HEADLINES
from vitlocal.data import NPZ
from vitlocal.errors import InputError
from vitlocal.geometry import Grid
from vitlocal.heads import LocalityMonitor
from vitlocal.models import Gated, VisionTransformer
from vitlocal.tasks import Classification

TRAIN, VAL, DEPTH, HEADS, WIDTH = 8, 10, 2, 2, 16
DEVIATIONS = 2.0  # so that activations as small as these have outliers


class OfItsOwn(nn.Module):
    """An attention module that shares nothing with ours but the contract."""

    def __init__(self, width, heads):
        super().__init__()
        self.num_heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def register_qkv_hook(self, hook):
        return self.qkv.register_forward_hook(lambda _, args, output: hook(*args, self.split(output)))

    def split(self, qkv):
        return qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)

    def forward(self, x):
        return self.explicit(x, lambda name, tensor: None)

    def explicit(self, x, tap, queries=None, qkv=None):
        query, key, value = qkv = self.split(self.qkv(x)) if qkv is None else qkv
        weights = (query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)).softmax(-1)
        context = (weights @ value).transpose(1, 2).flatten(2)
        for name, tensor in {"qkv": qkv, "weights": weights, "context": context}.items():
            tap(name, tensor)
        return self.proj(context)


class Hidden(nn.Module):
    """An attention module that shows no more than its weights."""

    def __init__(self, width, heads):
        super().__init__()
        self.num_heads, self.qk = heads, nn.Linear(width, 2 * width)

    def probabilities(self, x):
        query, key = self.qk(x).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return (query @ key.transpose(-2, -1)).softmax(-1).float()

    def forward(self, x):
        return self.explicit(x, lambda name, tensor: None)

    def explicit(self, x, tap, queries=None):
        weights = self.probabilities(x)
        tap("weights", weights)
        return weights.mean(1) @ x


@pytest.fixture
def module():
    torch.manual_seed(0)
    module = ToyModule()
    module.network = VisionTransformer(
        img_size=(8, 6),
        in_chans=1,
        num_classes=3,
        patch_size=2,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=HEADS,
    )
    with torch.no_grad():
        for parameter in module.network.blocks.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        module.network.blocks[1].mlp.fc2.bias[5] = 6
    return module


@pytest.fixture
def fit(make_trainer, module):
    def run(*monitors, **options):
        trainer = make_trainer(callbacks=[*monitors], **options)
        trainer.fit(module, loader(TRAIN, first=100), loader(VAL, batch_size=4))
        return trainer

    return run


def reference(module, images):
    """For each layer its outputs by name, its input, and what its heads add, from the parameters."""
    seen, hooks = [], []
    for block in module.network.blocks:
        layer = {}
        seen.append(layer)
        places = {"attention": block.attn, "mlp": block.mlp, "block": block}
        for name, part in places.items():
            hooks.append(
                part.register_forward_hook(
                    lambda part, inputs, output, layer=layer, name=name: layer.update(
                        {name: output.double(), f"{name}_input": inputs[0].double()}
                    )
                )
            )
    module.eval()
    with torch.no_grad():
        module(images)
    for hook in hooks:
        hook.remove()
    return seen


def slow_heads(attention, x, stream):
    """Share of nothing and relative update of each head, (2, H), in float64 and image by image."""
    weight, bias = attention.qkv.weight.detach().double(), attention.qkv.bias.detach().double()
    gated, size = isinstance(attention, Gated), WIDTH // HEADS
    sums = np.zeros((2, HEADS))
    for image, tokens in zip(x, stream, strict=True):
        query, key, value = (image @ weight.T + bias).split(WIDTH, dim=1)
        for head in range(HEADS):
            own = slice(size * head, size * (head + 1))
            weights = (query[:, own] @ key[:, own].T / math.sqrt(size)).softmax(1)
            if gated:
                gate = attention.gate.layers[0]
                logit = image @ gate.weight[0, head].detach().double() + gate.bias[head].detach().double()
                weights = weights * logit.sigmoid()[:, None]
            norms = value[:, own].norm(dim=1)
            sums[0, head] += 1 - weights[:, norms >= 0.5 * norms.mean()].sum(1).mean()
            alone = torch.zeros(len(image), WIDTH, dtype=torch.float64)
            alone[:, own] = weights @ value[:, own]
            update = alone @ attention.proj.weight.detach().double().T
            sums[1, head] += update.norm(dim=1).mean() / tokens.norm(dim=1).mean()
    return sums / len(x)


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def check(module, images, folder, epoch, suffix=""):
    """Both tables' rows of an epoch against the network as it is."""
    rows = [row for row in read(folder / f"outliers{suffix}.csv") if row["epoch"] == str(epoch)]
    head_rows = [row for row in read(folder / f"do_nothing{suffix}.csv") if row["epoch"] == str(epoch)]
    layers = reference(module, images)
    assert [row["layer"] for row in rows] == [str(layer) for layer in range(DEPTH)]
    assert [(row["layer"], row["head"]) for row in head_rows] == [
        (str(layer), str(head)) for layer in range(DEPTH) for head in range(HEADS)
    ]
    counted = 0
    for number, (row, layer) in enumerate(zip(rows, layers, strict=True)):
        for name in ("attention", "mlp", "block"):
            images_of = [slow(image, DEVIATIONS) for image in layer[name]]
            assert float(row[f"{name}_inf_norm"]) == pytest.approx(np.mean([x[0] for x in images_of]), 1e-4)
            assert float(row[f"{name}_kurtosis"]) == pytest.approx(np.mean([x[1] for x in images_of]), 1e-4)
            outliers = np.mean([len(x[2]) for x in images_of])
            assert float(row[f"{name}_outliers"]) == pytest.approx(outliers, rel=1e-4)
            counted += outliers
        attention = module.network.blocks[number].attn
        expected = slow_heads(attention, layer["attention_input"], layer["block_input"])
        own = head_rows[HEADS * number : HEADS * (number + 1)]
        for place, kind in enumerate(("do_nothing", "update")):
            found = [float(row[kind]) for row in own]
            np.testing.assert_allclose(found, expected[place], rtol=1e-4, atol=1e-6)
    assert counted > 1
    return rows, head_rows


@pytest.mark.parametrize("kind", ["softmax", "gated", "of its own"])
def test_tables_hold_what_the_layers_did(fit, module, tmp_path, kind):
    for block in module.network.blocks if kind != "softmax" else ():
        block.attn = (
            Gated(WIDTH, HEADS, gate="all_heads_linear") if kind == "gated" else OfItsOwn(WIDTH, HEADS)
        )
        with torch.no_grad():
            for parameter in block.attn.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    images = loader(VAL).dataset.images
    before = {name: value.clone() for name, value in module.state_dict().items()}
    trainer = fit(OutlierMonitor(deviations=DEVIATIONS))
    assert list(read(tmp_path / "outliers.csv")[0]) == list(COLUMNS)
    assert list(read(tmp_path / "do_nothing.csv")[0]) == list(HEAD_COLUMNS)
    rows, head_rows = check(module, images, tmp_path, 1)
    assert {row["step"] for row in rows} == {"2"}
    logged = trainer.callback_metrics
    expected = {
        "outliers/inf_norm_max": max(float(row["block_inf_norm"]) for row in rows),
        "outliers/kurtosis_mean": np.mean([float(row["block_kurtosis"]) for row in rows]),
        "outliers/count": sum(float(row["block_outliers"]) for row in rows),
        "outliers/do_nothing_mean": np.mean([float(row["do_nothing"]) for row in head_rows]),
        "outliers/kurtosis/layer_1/mlp": float(rows[1]["mlp_kurtosis"]),
        "outliers/update/layer_1/head_0": float(head_rows[2]["update"]),
    }
    for name, value in expected.items():
        assert logged[name].item() == pytest.approx(value, rel=1e-4), name
    module.load_state_dict(before)
    check(module, images, tmp_path, 0)


def test_locality_is_the_same_with_and_without(make_trainer, module, tmp_path):
    """Both have hooks on the same layers: none may run for one of them only."""
    val = loader(VAL)
    tables = []
    for other in ([], [OutlierMonitor(max_images=3, deviations=DEVIATIONS)]):
        for order in (slice(None), slice(None, None, -1)):
            callbacks = [LocalityMonitor(), *other][order]
            make_trainer(callbacks=callbacks).validate(module, val, verbose=False)
            tables.append((tmp_path / "heads.csv").read_text())
    assert len(set(tables)) == 1
    chosen = torch.randperm(VAL, generator=torch.Generator().manual_seed(0))[:3]
    check(module, val.dataset.images[chosen], tmp_path, 0)


def test_training_is_the_same_with_and_without(make_trainer, module):
    state, losses = {name: value.clone() for name, value in module.state_dict().items()}, []
    for callbacks in ([], [OutlierMonitor()]):
        seed_everything(3, verbose=False)
        module.load_state_dict(state)
        module.losses = []
        trainer = make_trainer(max_epochs=2, callbacks=callbacks)
        # Shuffled: validation draws from the generator that the training order is drawn from.
        trainer.fit(module, loader(TRAIN, shuffle=True), loader(VAL, shuffle=True))
        losses.append(module.losses)
    assert len(losses[0]) == 4 and losses[0] == losses[1]
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.network.modules())


@pytest.mark.parametrize("ours", [True, False])
def test_every_n_epochs_and_chosen_images(fit, module, tmp_path, ours):
    module.lr = 0
    for block in module.network.blocks if not ours else ():
        block.attn = OfItsOwn(WIDTH, HEADS)
    fit(
        OutlierMonitor(every_n_epochs=2, before_training=False, max_images=3, deviations=DEVIATIONS),
        max_epochs=2,
    )
    assert {row["epoch"] for row in read(tmp_path / "outliers.csv")} == {"2"}
    chosen = torch.randperm(VAL, generator=torch.Generator().manual_seed(0))[:3]
    check(module, loader(VAL).dataset.images[chosen], tmp_path, 2)


def test_evaluation_after_fit_leaves_the_tables_of_the_training(fit, module, tmp_path):
    trainer = fit(OutlierMonitor(deviations=DEVIATIONS))
    before = (tmp_path / "outliers.csv").read_text()
    test = loader(5, first=20)
    (values,) = trainer.test(module, test, verbose=False)
    assert (tmp_path / "outliers.csv").read_text() == before
    check(module, test.dataset.images, tmp_path, 1, "_test")
    assert {name for name in values if name.startswith("outliers/")} == set(HEADLINES)


def test_without_values_the_table_of_heads_is_left_out(fit, module, tmp_path):
    for block in module.network.blocks:
        block.attn = Hidden(WIDTH, HEADS)
    trainer = fit(OutlierMonitor())
    assert len(read(tmp_path / "outliers.csv")) == 2 * DEPTH
    assert not (tmp_path / "do_nothing.csv").exists()
    assert "outliers/do_nothing_mean" not in trainer.callback_metrics
    assert "outliers/count" in trainer.callback_metrics
    (values,) = trainer.validate(module, loader(VAL), verbose=False)
    assert {name for name in values if name.startswith("outliers/")} == set(HEADLINES[:3])


def test_figures_in_tensorboard(fit, tmp_path):
    fit(OutlierMonitor(deviations=DEVIATIONS), logger=TensorBoardLogger(tmp_path, "logs", version=0))
    events = EventAccumulator(str(tmp_path / "logs/version_0"), {"images": 0}).Reload()
    tags = [f"outliers/{name}" for name in ("attention", "block", "mlp")]
    assert sorted(events.Tags()["images"]) == tags
    assert all([image.step for image in events.Images(tag)] == [0, 1] for tag in tags)
    curve = [event.value for event in events.Scalars("outliers/kurtosis/layer_0/mlp")]
    rows = read(tmp_path / "logs/version_0/outliers.csv")
    assert curve == pytest.approx([float(row["mlp_kurtosis"]) for row in rows[::DEPTH]], rel=1e-4)


@pytest.mark.parametrize("prefix", [0, 1])
def test_the_figure_has_each_count_in_its_place(prefix):
    rng = np.random.default_rng(0)
    counts = [(torch.tensor(rng.random(9)), torch.tensor(rng.random(prefix + 6))) for _ in range(3)]
    for of in counts:
        for values in of:
            values.clamp_(min=0.1)
    counts[1][1][prefix + 4] = 0
    axes = outlier_figure(dict(enumerate(counts)), Grid(2, 3, num_prefix_tokens=prefix)).axes
    left, patches = axes[0].images[0].get_array(), axes[1 + prefix].images[0].get_array()
    np.testing.assert_array_equal(left, [by_dimension for by_dimension, _ in counts])
    if prefix:
        np.testing.assert_array_equal(axes[1].images[0].get_array(), [[of[0]] for _, of in counts])
    for layer, (_, of) in enumerate(counts):
        shown = patches[3 * layer : 3 * layer + 2]
        np.testing.assert_array_equal(shown.filled(0), of[prefix:].view(2, 3))
    assert patches.mask[4, 1] and patches.mask[2].all()  # no outlier there; the line between two layers


@pytest.mark.parametrize("images", [13, 1])
def test_two_processes(make_trainer, tmp_path, images):
    """13: unequal shares, with padding; 1: a process without any image."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 8), ("val", images)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count) % 3
    np.savez(tmp_path / "noise.npz", **arrays)
    tables = []
    for options in ({}, {"strategy": "ddp_fork", "devices": 2}):
        seed_everything(0, verbose=False)
        folder = tmp_path / str(len(tables))
        monitor = OutlierMonitor(deviations=DEVIATIONS)
        trainer = make_trainer(callbacks=[monitor], default_root_dir=folder, **options)
        task = Classification({"embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS})
        trainer.validate(task, NPZ(path=str(tmp_path / "noise.npz"), batch_size=8), verbose=False)
        table = read(folder / "outliers.csv") + read(folder / "do_nothing.csv")
        tables.append([float(value) for row in table for value in row.values()])
    assert len(tables[0]) == DEPTH * (len(COLUMNS) + HEADS * len(HEAD_COLUMNS))
    assert tables[1] == pytest.approx(tables[0], rel=2e-5, abs=1e-6)


def test_on_the_command_line(npz_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["fit", "--config=npz.yaml", f"--data.path={npz_file}", "--data.batch_size=8"]
    words += [
        "--model.network.embed_dim=16",
        "--model.network.depth=2",
        "--model.network.num_heads=2",
        "--model.warmup_epochs=0",
    ]
    words += ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    words += ["--checkpoint=null"]
    for extra in ([], ["--outliers=OutlierMonitor", "--outliers.deviations=3"]):
        cli.main([*words, *extra])
    without, observed = sorted(tmp_path.glob("lightning_logs/*/version_*"))
    names = {"outliers.csv", "do_nothing.csv"}
    assert names.isdisjoint(path.name for path in without.iterdir())
    assert names <= {path.name for path in observed.iterdir()}
    assert {row["epoch"] for row in read(observed / "outliers.csv")} == {"0", "1"}
    assert (without / "metrics.csv").read_text() == (observed / "metrics.csv").read_text()
    assert (without / "heads.csv").read_text() == (observed / "heads.csv").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"every_n_epochs": 0}, "outliers.every_n_epochs is 0"),
        ({"max_images": 0}, "outliers.max_images is 0"),
        ({"deviations": 0.0}, "outliers.deviations is 0"),
        ({"small_value": math.nan}, "outliers.small_value is nan"),
    ],
)
def test_wrong_arguments_are_named(options, words):
    with pytest.raises(InputError, match=words):
        OutlierMonitor(**options)


def test_a_network_without_blocks(make_trainer):
    with pytest.raises(InputError, match="ToyNetwork has no blocks to observe outliers in"):
        make_trainer(callbacks=[OutlierMonitor()]).fit(ToyModule(), loader(TRAIN), loader(VAL))
