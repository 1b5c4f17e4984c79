"""The monitor in modules of other projects: their networks, their batches, their loaders."""

import copy
import csv
import json
import pickle

import pytest
import timm
import torch
import transformers
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, TensorDataset
from torchvision.models import VisionTransformer as TorchvisionViT

from vitlocal.activations import OutlierMonitor
from vitlocal.errors import InputError
from vitlocal.geometry import Grid
from vitlocal.heads import LocalityMonitor, find_attention, head_statistics
from vitlocal.heads.functional import uniform_statistics
from vitlocal.observing.batches import Numbering, images_of
from vitlocal.observing.hooks import find_network

IMAGES = torch.randn(10, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(10) % 3
GRID = Grid(4, 4, num_prefix_tokens=1)


def timm_network(**options):
    torch.manual_seed(0)
    network = timm.create_model("test_vit", img_size=16, patch_size=4, num_classes=3, **options)
    for name, parameter in network.named_parameters():  # random weights attend to all alike
        if "qkv.weight" in name:
            parameter.data *= 10
    return network


class Mine(LightningModule):
    """A project's own: nothing of vitlocal in it, and batches of any kind."""

    def __init__(self, net, unpack=lambda batch: batch):
        super().__init__()
        self.net, self.unpack, self.rate = net, unpack, 1e-3

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        images, labels = self.unpack(batch)
        return nn.functional.cross_entropy(self(images), labels)

    def validation_step(self, batch, batch_idx):
        images, labels = self.unpack(batch)
        self.log("loss", nn.functional.cross_entropy(self(images), labels))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.rate)


def fit(make_trainer, tmp_path, module, monitor, loader=None):
    loader = DataLoader(TensorDataset(IMAGES, LABELS), 4) if loader is None else loader
    trainer = make_trainer(callbacks=[monitor], default_root_dir=tmp_path)
    trainer.fit(module, loader, loader)
    return trainer


def mad(path, epoch):
    with next(path.rglob("heads.csv")).open(newline="") as file:
        return [float(row["mad"]) for row in csv.DictReader(file) if row["epoch"] == str(epoch)]


@torch.no_grad()
def expected(network, images, grid=GRID):
    """MAD of every head from the weights that timm's own unfused attention drops out of."""
    seen = []
    for block in network.eval().blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda _, __, output: seen.append(output.double()))
    network(images)
    return [head for weights in seen for head in head_statistics(weights, grid)["mad"].mean(0).tolist()]


def test_a_timm_network_and_tuples(make_trainer, tmp_path):
    module = Mine(timm_network())
    fit(make_trainer, tmp_path, module, LocalityMonitor())
    assert mad(tmp_path, 0) == pytest.approx(expected(timm_network(), IMAGES), rel=1e-4)
    assert mad(tmp_path, 1) == pytest.approx(expected(module.net, IMAGES), rel=1e-4)
    assert "loss" in module.trainer.callback_metrics


@pytest.mark.parametrize("fused", [True, False])
def test_a_switch_of_timm_s_is_left_as_it_was(fused, make_trainer, tmp_path):
    module = Mine(timm_network())
    for block in module.net.blocks:
        block.attn.fused_attn = fused
    fit(make_trainer, tmp_path, module, LocalityMonitor())
    assert mad(tmp_path, 1) == pytest.approx(expected(copy.deepcopy(module.net), IMAGES), rel=1e-4)
    assert [block.attn.fused_attn for block in module.net.blocks] == [fused] * len(module.net.blocks)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("place", ["after", "within"])
def test_after_an_exception_nothing_is_left_switched(fused, place, make_trainer, tmp_path):
    module = Mine(timm_network())
    first = module.net.blocks[0].attn
    first.fused_attn = fused
    if place == "after":  # the observed forward fails behind the first attention
        handle = module.net.blocks[1].register_forward_pre_hook(lambda *_: 1 / 0)
    else:  # the attention fails while it is taken step by step, in its second call
        calls = []

        def fail_the_second_time(*_):
            calls.append(1 / (1 - len(calls)))

        handle = first.qkv.register_forward_pre_hook(fail_the_second_time)
    with pytest.raises((ZeroDivisionError, InputError), match="division by zero"):
        fit(make_trainer, tmp_path, module, LocalityMonitor())
    handle.remove()
    assert first.fused_attn == fused and not first._forward_hooks and not module.net._forward_hooks
    with torch.no_grad():
        found, plain = module.net.eval()(IMAGES), timm_network().eval()(IMAGES)
    torch.testing.assert_close(found, plain, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["sdpa", "eager"])
def test_whichever_implementation_transformers_has(kind, make_trainer, tmp_path):
    """As transformers#30978 has it, one of them gives no weights; here they are those that eager gives."""
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=16,
        patch_size=4, num_labels=3,
    )  # fmt: skip
    torch.manual_seed(0)
    network = transformers.ViTForImageClassification._from_config(config, attn_implementation=kind)
    for name, parameter in network.named_parameters():
        if "query" in name or "q_proj" in name:
            parameter.data *= 200

    class Theirs(Mine):
        def forward(self, x):
            return self.net(x).logits

    module = Theirs(network)
    fit(make_trainer, tmp_path, module, LocalityMonitor())
    assert network.config._attn_implementation == kind
    network.set_attn_implementation("eager")
    with torch.no_grad():
        weights = network.eval()(IMAGES, output_attentions=True).attentions
    heads = [head for each in weights for head in head_statistics(each, GRID)["mad"].mean(0).tolist()]
    assert mad(tmp_path, 1) == pytest.approx(heads, rel=1e-4)


def tables(path):
    with next(path.rglob("heads.csv")).open(newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


@pytest.mark.parametrize("max_images", [None, 4])
def test_two_processes_observe_what_one_does(max_images, make_trainer, tmp_path):
    """Unequal shares of 11 images, one of which Lightning's sampler repeats; steps on all training images."""
    found = []
    for name, options in (("one", {}), ("two", {"strategy": "ddp_fork", "devices": 2})):
        folder = tmp_path / name
        folder.mkdir()
        trainer = make_trainer(
            callbacks=[LocalityMonitor(max_images=max_images)],
            default_root_dir=folder,
            max_epochs=2,
            **options,
        )
        images = torch.cat([IMAGES, IMAGES[:1].flip(-1)])
        labels = torch.arange(11) % 3
        train = DataLoader(TensorDataset(IMAGES[:8], LABELS[:8]), 4 if options else 8)
        module = Mine(timm_network())
        module.rate = 0.05
        trainer.fit(module, train, DataLoader(TensorDataset(images, labels), 3))
        found.append(tables(folder))
    assert {row["epoch"] for row in found[0]} == {0, 1, 2} and len(found[0]) == len(found[1])
    assert found[0][0]["mad"] != pytest.approx(found[0][-1]["mad"], rel=1e-3)
    for one, two in zip(*found, strict=True):
        exact = 1e-5 if one["epoch"] == 0 else 1e-3  # gradients are summed in another order
        assert one == pytest.approx(two, rel=exact, abs=1e-5)


class Single:
    """A loader of one batch; in a list, Lightning would take the batch itself for a loader."""

    def __init__(self, batch):
        self.batch = batch

    def __iter__(self):
        return iter([self.batch])


BATCHES = {
    "usual keys": ({"pixel_values": IMAGES, "labels": LABELS}, None),
    "a key": ({"x": IMAGES, "labels": LABELS}, "x"),
    "a position": ([LABELS, IMAGES], 1),
    "a function": ({"in": {"x": IMAGES}, "labels": LABELS}, lambda batch: batch["in"]["x"]),
}


@pytest.mark.parametrize(("batch", "where"), BATCHES.values(), ids=BATCHES)
def test_batches_of_all_kinds(batch, where, make_trainer, tmp_path):
    module = Mine(timm_network(), lambda _: (IMAGES, LABELS))
    fit(make_trainer, tmp_path, module, LocalityMonitor(images=where), Single(batch))
    assert mad(tmp_path, 0) == pytest.approx(expected(timm_network(), IMAGES), rel=1e-4)


def test_chosen_images_of_batches_that_do_not_say_which_they_are(make_trainer, tmp_path):
    fit(make_trainer, tmp_path, Mine(timm_network()), LocalityMonitor(max_images=3, seed=1))
    chosen = torch.randperm(10, generator=torch.Generator().manual_seed(1))[:3]
    assert mad(tmp_path, 0) == pytest.approx(expected(timm_network(), IMAGES[chosen]), rel=1e-4)


class Stream(IterableDataset):
    def __iter__(self):
        return zip(IMAGES, LABELS, strict=True)


def test_of_a_stream_the_first_images_are_chosen(make_trainer, tmp_path):
    loader = DataLoader(Stream(), 4)
    fit(make_trainer, tmp_path, Mine(timm_network()), LocalityMonitor(max_images=3), loader)
    assert mad(tmp_path, 0) == pytest.approx(expected(timm_network(), IMAGES[:3]), rel=1e-4)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_compiled_network(in_place, make_trainer, tmp_path):
    network = timm_network()
    if in_place:
        network.compile(backend="eager")
    else:
        network = torch.compile(network, backend="eager")
    fit(make_trainer, tmp_path, Mine(network), LocalityMonitor())
    assert mad(tmp_path, 0) == pytest.approx(expected(timm_network(), IMAGES), rel=1e-4)


def test_after_two_monitors_networks_are_compiled_again(make_trainer, tmp_path):
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    loader = DataLoader(TensorDataset(IMAGES, LABELS), 4)
    trainer = make_trainer(callbacks=[LocalityMonitor(), OutlierMonitor()], default_root_dir=tmp_path)
    trainer.fit(Mine(timm_network()), loader, loader)
    torch.compile(nn.Linear(1, 1), backend=backend)(torch.ones(1))
    assert compiled


def test_a_module_without_forward(make_trainer, tmp_path):
    class Bare(LightningModule):
        configure_optimizers = Mine.configure_optimizers

        def __init__(self):
            super().__init__()
            self.net, self.rate = timm_network(), 1e-3

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        validation_step = training_step

    fit(make_trainer, tmp_path, Bare(), LocalityMonitor())
    assert mad(tmp_path, 0) == pytest.approx(expected(timm_network(), IMAGES), rel=1e-4)


def test_outliers_of_torchvision_s_network(make_trainer, tmp_path):
    network = TorchvisionViT(16, 4, 2, 2, 16, 32, num_classes=3)
    fit(make_trainer, tmp_path, Mine(network), OutlierMonitor())
    with next(tmp_path.rglob("outliers.csv")).open(newline="") as file:
        (first, *_) = [row for row in csv.DictReader(file) if row["epoch"] == "1"]
    seen = []
    network.encoder.layers[0].register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.no_grad():
        network.eval()(IMAGES)
    norms = seen[0].abs().flatten(1).amax(1)
    assert float(first["block_inf_norm"]) == pytest.approx(norms.mean().item(), rel=1e-4)


@pytest.mark.parametrize("sanity_steps", [0, 2])
def test_images_of_another_size_than_the_network_was_made_for(sanity_steps, make_trainer, tmp_path):
    """As transformers' Dinov2 is run on 224 pixels though made for 518, or timm with dynamic_img_size."""
    images = torch.randn(10, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    network = timm_network(dynamic_img_size=True)
    loader = DataLoader(TensorDataset(images, LABELS), 4)
    trainer = make_trainer(
        callbacks=[LocalityMonitor(), OutlierMonitor()],
        default_root_dir=tmp_path,
        num_sanity_val_steps=sanity_steps,
        logger=TensorBoardLogger(tmp_path),
    )
    trainer.fit(Mine(network), loader, loader)
    wide = Grid(4, 6, num_prefix_tokens=1)
    assert mad(tmp_path, 0) == pytest.approx(
        expected(timm_network(dynamic_img_size=True), images, wide), rel=1e-4
    )
    facts = json.loads(next(tmp_path.rglob("geometry.json")).read_text())
    assert (facts["geometry"]["height"], facts["geometry"]["width"]) == (4, 6)
    assert facts["uniform"]["mad"] == pytest.approx(uniform_statistics(wide)["mad"])


@pytest.mark.parametrize(
    ("batch", "where", "said"),
    [
        (
            {"x": IMAGES, "y": LABELS},
            None,
            "no images were found in a batch, which is a dict with x, y: give",
        ),
        ({"x": IMAGES}, "z", "images is 'z' but a batch is a dict with x: give images="),
        ([IMAGES, LABELS], 2, "images is 2 but a batch is a list of Tensor, Tensor"),
        ([], None, "which is a list of nothing"),
        (3, None, "which is a int"),
    ],
)
def test_batches_without_images(batch, where, said):
    with pytest.raises(InputError, match=said):
        images_of(batch, where)


def test_a_step_that_runs_the_network_on_other_images(make_trainer, tmp_path):
    module = Mine(
        timm_network(), lambda batch: (torch.cat([batch[0], batch[0].flip(-1)]), batch[1].repeat(2))
    )
    with pytest.raises(InputError, match="was run on 8 images of a batch with 4"):
        fit(make_trainer, tmp_path, module, LocalityMonitor(before_training=False))


def test_a_forward_that_takes_something_else(make_trainer, tmp_path):
    class Whole(Mine):
        def forward(self, batch):
            return self.net(batch["x"])

    module = Whole(timm_network())
    with pytest.raises(
        InputError, match=r"Whole can't be run on the images of a validation batch \(TypeError"
    ):
        fit(make_trainer, tmp_path, module, LocalityMonitor())


def test_a_network_that_is_none(make_trainer, tmp_path):
    swin = timm.create_model("swin_tiny_patch4_window7_224", img_size=32, window_size=2, depths=(1, 1))
    with pytest.raises(InputError, match="Mine has no network to observe: it must hold a Vision Transformer"):
        fit(make_trainer, tmp_path, Mine(swin), LocalityMonitor())


def test_adapted_twice_it_is_adapted_once_and_can_be_pickled():
    module = Mine(timm_network())
    network = find_network(module)
    assert find_network(module) is network and pickle.loads(pickle.dumps(network)).geometry == Grid(
        4, 4, (4, 4), num_prefix_tokens=1
    )
    assert len(find_attention(network)[0][1]._forward_pre_hooks) == 1


@pytest.mark.parametrize("count", [10, 11])
def test_images_of_several_processes_are_numbered_as_in_the_data_set(count):
    data = TensorDataset(torch.arange(count))
    found = []
    for rank in range(3):
        sampler = DistributedSampler(data, 3, rank, shuffle=False)
        loader = DataLoader(data, 2, sampler=sampler)
        numbering = Numbering(loader)
        for (numbers,) in loader:
            own = numbering.of([numbers], len(numbers))
            kept = own >= 0
            assert torch.equal(own[kept], numbers[kept])
            found += own[kept].tolist()
    assert sorted(found) == list(range(count))  # none twice, though the sampler repeats some
