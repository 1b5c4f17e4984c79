import csv
import json
import math
import re
from itertools import combinations

import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from torch import nn
from torch.utils.data import DataLoader

from tests.heads.toy import DEPTH, HEADS, ToyData, ToyModule, loader
from vitlocal.errors import InputError
from vitlocal.geometry import Grid
from vitlocal.heads import LocalityMonitor
from vitlocal.heads.functional import STATISTICS
from vitlocal.heads.summary import HEADLINES

TRAIN, VAL = 12, 10


def statistics(module, images):
    """MAD, entropy and self mass of every layer and head, (layers, heads), by loops."""
    maps = []
    hooks = [
        layer.register_forward_hook(lambda layer, inputs, output: maps.append(layer.probabilities(*inputs)))
        for layer in module.network.layers
    ]
    module.eval()
    with torch.no_grad():
        module(images)
    for hook in hooks:
        hook.remove()
    places = [(row, column) for row in range(2) for column in range(3)]
    mad, entropy, own = (torch.zeros(len(maps), HEADS, dtype=torch.float64) for _ in range(3))
    for layer, probabilities in enumerate(maps):
        for image in probabilities.double():
            for head in range(HEADS):
                for i, centre in enumerate(places):
                    row = image[head, 1 + i, 1:] / image[head, 1 + i, 1:].sum()
                    share = 1 / (len(images) * len(places))
                    far = sum(a * math.dist(centre, place) for a, place in zip(row, places, strict=True))
                    mad[layer, head] += share * far / math.hypot(1, 2)
                    entropy[layer, head] -= share * torch.xlogy(row, row).sum() / math.log(6)
                    own[layer, head] += share * row[i]
    return {"mad": mad, "entropy": entropy, "self_mass": own}


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def column(rows, epoch, name):
    """One column of an epoch as (layers, heads); rows are in order of layer and head."""
    values = [float(row[name]) for row in rows if row["epoch"] == str(epoch)]
    return torch.tensor(values, dtype=torch.float64).view(-1, HEADS)


class Snapshots(Callback):
    """The statistics of the network as it is when training starts and after each epoch."""

    def __init__(self, images):
        self.images, self.taken = images, []

    def take(self, module):
        training = module.training
        self.taken.append(statistics(module, self.images))
        module.train(training)

    def on_train_start(self, trainer, pl_module):
        self.take(pl_module)

    def on_train_epoch_end(self, trainer, pl_module):
        self.take(pl_module)


@pytest.fixture
def module():
    torch.manual_seed(0)
    return ToyModule()


@pytest.fixture
def fit(make_trainer, module):
    """Fit the toy module; gives the trainer."""

    def run(monitor, *callbacks, val=None, **options):
        trainer = make_trainer(callbacks=[monitor, *callbacks], **{"max_epochs": 2, **options})
        trainer.fit(module, loader(TRAIN, first=100), val or loader(VAL))
        return trainer

    return run


def test_heads_csv_holds_what_the_heads_did(fit, tmp_path):
    val = loader(VAL)
    snapshots = Snapshots(val.dataset.images)
    trainer = fit(LocalityMonitor(), snapshots, val=val)
    rows = read(tmp_path / "heads.csv")
    header = "epoch,step,layer,head,mad,entropy,self_mass,mad_without_self,class_mass,mad_raw,"
    header += "window_mass,self_log_odds,class_log_odds"
    assert list(rows[0]) == header.split(",")
    places = [(row["epoch"], row["step"], row["layer"], row["head"]) for row in rows]
    assert places == [
        (str(epoch), str(3 * epoch), str(layer), str(head))
        for epoch in range(3)
        for layer in range(DEPTH)
        for head in range(HEADS)
    ]
    for epoch, expected in enumerate(snapshots.taken):
        for name, values in expected.items():
            torch.testing.assert_close(column(rows, epoch, name), values, rtol=1e-4, atol=1e-6)
    # Training moved the heads: comparing different epochs would have failed.
    assert (snapshots.taken[0]["mad"] - snapshots.taken[2]["mad"]).abs().max() > 1e-3

    logged, last = trainer.callback_metrics, snapshots.taken[-1]
    for name in ("mad", "entropy"):
        expected = {
            f"locality/{name}_min": last[name].min(),
            f"locality/{name}_min_early": last[name][:2].min(),  # of 4 layers, a third rounded up
            f"locality/{name}/layer_3/min": last[name][3].min(),
            f"locality/{name}/layer_1/mean": last[name][1].mean(),
            f"locality/{name}/layer_1/max": last[name][1].max(),
            f"locality/{name}/layer_2/head_1": last[name][2, 1],
        }
        for key, value in expected.items():
            assert logged[key].item() == pytest.approx(value.item(), rel=1e-4), key
    assert logged["locality/self_mass/layer_0/mean"].item() == pytest.approx(
        last["self_mass"][0].mean().item(), rel=1e-4
    )
    assert logged["locality/entropy/uniform"].item() == 1
    distances = torch.cdist(*[torch.cartesian_prod(torch.arange(2.0), torch.arange(3.0))] * 2)
    assert logged["locality/mad/uniform"].item() == pytest.approx(distances.mean().item() / math.sqrt(5))
    assert trainer.progress_bar_metrics.keys() >= {"locality/mad_min"}


@pytest.mark.parametrize(
    ("options", "unit", "step", "largest"),
    [({}, "grid", (1, 1), math.hypot(1, 2)), ({"unit": "pixels"}, "pixels", (4, 2), 1)],
)
def test_geometry_and_uniform_values_beside_the_table(fit, tmp_path, options, unit, step, largest):
    trainer = fit(LocalityMonitor(**options), max_epochs=1)
    content = json.loads((tmp_path / "geometry.json").read_text())
    places = [(row * step[0], column * step[1]) for row in range(2) for column in range(3)]
    mad = sum(math.dist(a, b) for a in places for b in places) / 36 / largest
    assert content["geometry"] == Grid(2, 3, (4, 2), unit=unit, num_prefix_tokens=1).describe()
    assert content["uniform"].keys() == {*STATISTICS}
    assert content["uniform"]["mad"] == pytest.approx(mad)
    assert content["uniform"]["class_mass"] == pytest.approx(1 / 7)
    assert trainer.callback_metrics["locality/mad/uniform"].item() == pytest.approx(mad)


@pytest.mark.parametrize("num_sanity_val_steps", [0, 2])
def test_training_is_the_same_with_and_without(make_trainer, num_sanity_val_steps):
    losses = []
    for monitored in (False, True):
        seed_everything(3)
        module = ToyModule()
        module.network.layers[1].eval()  # as a frozen part would be
        trainer = make_trainer(
            max_epochs=2,
            num_sanity_val_steps=num_sanity_val_steps,
            callbacks=[LocalityMonitor()] if monitored else None,
        )
        # Shuffled: validation draws from the generator that dropout and the training order draw from.
        trainer.fit(module, loader(TRAIN, shuffle=True), loader(VAL, shuffle=True))
        losses.append(module.losses)
        assert module.training and not module.network.layers[1].training
    assert len(losses[0]) == 6 and losses[0] == losses[1]


def test_untrained_heads_where_the_first_epoch_has_no_validation(fit, tmp_path):
    fit(LocalityMonitor(), check_val_every_n_epoch=2)
    assert {row["epoch"] for row in read(tmp_path / "heads.csv")} == {"0", "2"}


def test_every_n_epochs(fit, tmp_path):
    class Logged(Callback):
        epochs = ()

        def on_train_epoch_end(self, trainer, pl_module):
            if "locality/mad_min" in trainer.callback_metrics:
                self.epochs += (trainer.current_epoch + 1,)

    logged = Logged()
    fit(LocalityMonitor(every_n_epochs=2, before_training=False), logged, max_epochs=4)
    assert {row["epoch"] for row in read(tmp_path / "heads.csv")} == {"2", "4"}
    assert set(logged.epochs) >= {2, 4} and 1 not in logged.epochs


def chosen_images(rows, epoch, module, images, count):
    """The only ``count`` images, by position, whose mean MADs are those in the table."""
    each = torch.stack([statistics(module, image[None])["mad"] for image in images])
    wanted = column(rows, epoch, "mad")
    found = [
        subset
        for subset in combinations(range(len(images)), count)
        if torch.allclose(each[list(subset)].mean(0), wanted, rtol=1e-4, atol=1e-6)
    ]
    assert len(found) == 1
    return found[0]


def test_the_same_chosen_images_every_time(fit, module, tmp_path):
    val = loader(VAL, first=50)  # indices 50 to 59, as of a part that is held out
    module.lr = 0
    subsets = set()
    for seed in range(2):
        fit(LocalityMonitor(max_images=3, seed=seed), val=val)
        rows = read(tmp_path / "heads.csv")
        of_seed = {chosen_images(rows, epoch, module, val.dataset.images, 3) for epoch in range(3)}
        assert len(of_seed) == 1
        subsets |= of_seed
    assert len(subsets) == 2


def test_images_are_chosen_among_those_that_limited_validation_serves(fit, module, tmp_path):
    val = loader(VAL)
    fit(LocalityMonitor(max_images=3), val=val, limit_val_batches=1)
    rows = read(tmp_path / "heads.csv")
    assert max(chosen_images(rows, 2, module, val.dataset.images, 3)) < 4


def test_chosen_images_that_no_batch_holds(fit):
    class Renumbered(ToyData):
        def __getitem__(self, position):
            return super().__getitem__(position) | {"index": torch.tensor(1000 + position)}

    with pytest.raises(InputError, match="chose images that no batch held"):
        fit(LocalityMonitor(max_images=2), val=DataLoader(Renumbered(4)))


def test_several_validation_loaders_count_together(fit, module, tmp_path):
    first, second = loader(VAL, first=3), loader(4, first=7)
    module.validation_step = lambda batch, batch_idx, dataloader_idx=0: module(batch["image"])
    fit(LocalityMonitor(), val=[first, second])
    expected = statistics(module, torch.cat([first.dataset.images, second.dataset.images]))
    torch.testing.assert_close(
        column(read(tmp_path / "heads.csv"), 2, "mad"), expected["mad"], rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("function", ["validate", "test"])
def test_evaluation_alone(make_trainer, fit, module, function, tmp_path):
    fit(
        LocalityMonitor(),
        ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1),
        enable_checkpointing=True,
    )
    folder, val = tmp_path / "evaluated", loader(VAL, first=1)
    trainer = make_trainer(default_root_dir=folder, callbacks=[LocalityMonitor(every_n_epochs=9)])
    (values,) = getattr(trainer, function)(module, val, ckpt_path=tmp_path / "epoch=0.ckpt", verbose=False)
    rows = read(folder / "heads.csv")
    assert {(row["epoch"], row["step"]) for row in rows} == {("1", "3")}  # those of the checkpoint
    expected = statistics(module, val.dataset.images)["mad"]
    torch.testing.assert_close(column(rows, 1, "mad"), expected, rtol=1e-4, atol=1e-6)
    assert values["locality/mad_min"] == pytest.approx(expected.min().item(), rel=1e-4)
    assert {name for name in values if name.startswith("locality/")} == set(HEADLINES)  # a short table


def test_evaluation_after_fit_leaves_the_table_of_the_training(fit, module, tmp_path):
    trainer = fit(LocalityMonitor())
    before = (tmp_path / "heads.csv").read_text()
    trainer.test(module, loader(4), verbose=False)
    trainer.validate(module, loader(VAL), verbose=False)
    assert (tmp_path / "heads.csv").read_text() == before
    assert {row["epoch"] for row in read(tmp_path / "heads_test.csv")} == {"2"}
    assert (
        column(read(tmp_path / "heads_validate.csv"), 2, "mad").tolist()
        == column(read(tmp_path / "heads.csv"), 2, "mad").tolist()
    )


def test_resumed_training_continues_the_table(make_trainer, fit, module, tmp_path):
    fit(
        LocalityMonitor(),
        ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1),
        enable_checkpointing=True,
    )
    before = read(tmp_path / "heads.csv")
    resumed = make_trainer(max_epochs=3, callbacks=[LocalityMonitor()])
    resumed.fit(module, loader(TRAIN, first=100), loader(VAL), ckpt_path=tmp_path / "epoch=0.ckpt")
    rows = read(tmp_path / "heads.csv")
    assert [row["epoch"] for row in rows] == [str(epoch) for epoch in range(4) for _ in range(DEPTH * HEADS)]
    assert rows[: 2 * DEPTH * HEADS] == before[: 2 * DEPTH * HEADS]


def test_checkpoints_can_follow_the_least_distance(fit, tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, monitor="locality/mad_min", mode="min", filename="{epoch}")
    fit(LocalityMonitor(), checkpoint, enable_checkpointing=True, max_epochs=3)
    rows = read(tmp_path / "heads.csv")
    least = min(column(rows, epoch, "mad").min().item() for epoch in (1, 2, 3))
    assert checkpoint.best_model_score.item() == pytest.approx(least, rel=1e-4)


def test_csv_logger(fit, tmp_path):
    logger = CSVLogger(tmp_path, "logs", version=0)
    fit(LocalityMonitor(), logger=logger)
    logged = read(tmp_path / "logs/version_0/metrics.csv")
    rows = read(tmp_path / "logs/version_0/heads.csv")
    by_step = {row["step"]: row for row in logged if row["locality/mad/layer_0/head_1"]}
    assert by_step.keys() == {"0", "2", "5"}  # Lightning counts an epoch's last step from 0
    for step, epoch in (("0", 0), ("2", 1), ("5", 2)):
        assert float(by_step[step]["locality/mad/layer_0/head_1"]) == pytest.approx(
            column(rows, epoch, "mad")[0, 1].item(), rel=1e-4
        )


def test_tensorboard(fit, make_trainer, module, tmp_path):
    logger = TensorBoardLogger(tmp_path, "logs", version=0)
    fit(LocalityMonitor(maps=2), logger=logger)
    events = EventAccumulator(str(tmp_path / "logs/version_0"), {"images": 0, "tensors": 0}).Reload()
    tags = events.Tags()
    rows = read(tmp_path / "logs/version_0/heads.csv")
    curve = [event.value for event in events.Scalars("locality/entropy/layer_2/head_0")]
    assert curve == pytest.approx(
        [column(rows, epoch, "entropy")[2, 0].item() for epoch in range(3)], rel=1e-4
    )
    figures = ["locality/mad", "locality/entropy", "locality/mad_over_training"]
    figures += ["locality/attention/image_0", "locality/attention/image_1"]
    assert sorted(tags["images"]) == sorted(figures)
    assert all([image.step for image in events.Images(tag)] == [0, 2, 5] for tag in figures)

    (layout,) = events.Tensors("custom_scalars__config__")
    parsed = Layout.FromString(layout.tensor_proto.string_val[0])
    every = {chart.title: chart for category in parsed.category for chart in category.chart}
    assert len(every) == 2 * (2 * DEPTH + 1)
    (band,) = every["mad: layer 2, band"].margin.series
    of_layer = "locality/mad/layer_2"
    assert (band.value, band.lower, band.upper) == (f"{of_layer}/mean", f"{of_layer}/min", f"{of_layer}/max")
    assert {band.value, band.lower, band.upper} <= set(tags["scalars"])
    charts = {title: chart.multiline.tag for title, chart in every.items()}
    for name in ("mad", "entropy"):
        expected = {
            f"locality/{name}/layer_1/head_0",
            f"locality/{name}/layer_1/head_1",
            f"locality/{name}/uniform",
        }
        assert matching(charts[f"{name}: layer 1"], tags["scalars"]) == expected
        expected = {f"locality/{name}_min", f"locality/{name}_min_early", f"locality/{name}/uniform"}
        if name == "mad":  # never without what the head of the minimum looks at
            expected |= {"locality/self_mass_of_mad_min", "locality/class_mass_of_mad_min"}
        assert matching(charts[f"{name}: minimum"], tags["scalars"]) == expected


def matching(patterns, tags):
    """As TensorBoard's custom-scalars page finds a chart's tags."""
    return {tag for pattern in patterns for tag in tags if re.match(pattern, tag)}


def test_no_maps(fit, tmp_path):
    fit(LocalityMonitor(maps=0), logger=TensorBoardLogger(tmp_path, "logs", version=0), max_epochs=1)
    events = EventAccumulator(str(tmp_path / "logs/version_0")).Reload()
    assert sorted(events.Tags()["images"]) == [
        "locality/entropy",
        "locality/mad",
        "locality/mad_over_training",
    ]


def test_a_development_run_leaves_no_file(fit, tmp_path):
    fit(LocalityMonitor(), fast_dev_run=True)
    assert not list(tmp_path.rglob("heads*.csv"))


def test_no_hooks_are_left_after_an_error(make_trainer, module):
    def fail(batch, batch_idx):
        raise RuntimeError("stop")

    module.validation_step = fail
    with pytest.raises(RuntimeError, match="stop"):
        make_trainer(callbacks=[LocalityMonitor()]).validate(module, loader(VAL), verbose=False)
    assert not any(layer._forward_hooks for layer in module.network.layers)


def test_bfloat16_training(fit, module, tmp_path):
    fit(LocalityMonitor(), precision="bf16-mixed")
    expected = statistics(module, loader(VAL).dataset.images)
    rows = read(tmp_path / "heads.csv")
    torch.testing.assert_close(column(rows, 2, "mad"), expected["mad"], rtol=0.03, atol=0.01)


def test_two_processes(fit, module, tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, monitor="locality/mad_min", filename="best", save_last=True)
    val = loader(VAL, batch_size=2)
    untrained = statistics(module, val.dataset.images)
    fit(
        LocalityMonitor(),
        checkpoint,
        val=val,
        max_epochs=1,
        strategy="ddp_spawn",
        devices=2,
        enable_checkpointing=True,
    )
    rows = read(tmp_path / "heads.csv")
    module.load_state_dict(torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"])
    for epoch, expected in enumerate([untrained, statistics(module, val.dataset.images)]):
        for name, values in expected.items():
            torch.testing.assert_close(column(rows, epoch, name), values, rtol=1e-4, atol=1e-6)
    assert (tmp_path / "best.ckpt").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"every_n_epochs": 0}, "every_n_epochs is 0"),
        ({"max_images": 0}, "max_images is 0"),
        ({"unit": "miles"}, "unit is 'miles'"),
        ({"class_token": "maybe"}, "class_token is 'maybe'"),
        ({"maps": -1}, "maps is -1"),
    ],
)
def test_wrong_arguments_are_named(options, words):
    with pytest.raises(InputError, match=words):
        LocalityMonitor(**options)


def test_a_unit_that_the_network_has_not_is_refused_before_the_first_step(fit, module):
    with pytest.raises(InputError, match="unit is 'hops': a Grid's must be one of grid, patches, pixels"):
        fit(LocalityMonitor(unit="hops", before_training=False))
    assert not module.losses


def test_a_network_without_attention(fit, module):
    module.network.layers = nn.ModuleList()
    with pytest.raises(InputError, match="ToyNetwork has no attention to observe"):
        fit(LocalityMonitor())
