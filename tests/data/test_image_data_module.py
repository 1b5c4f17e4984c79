from typing import ClassVar

import jsonargparse
import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from vitlocal.data.base import EpochSampler, ImageDataModule
from vitlocal.data.dataset import BatchDataset, Images, Splits
from vitlocal.errors import InputError


def images(count, seed, labelled=True):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 1, 4, 6), dtype=np.uint8)
    return Images(pixels, np.arange(count) % 3 if labelled else np.full(count, -1))


TRAIN, VAL, TEST, UNKNOWN = images(30, 0), images(9, 1), images(6, 2), images(5, 3, labelled=False)


class Toys(ImageDataModule):
    name = "toys"
    photometric: ClassVar = {"class_path": "vitlocal.protocol.ColorJitter"}

    def __init__(self, val: bool = False, test: bool = True, predict: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.given = {"val": VAL if val else None, "test": TEST if test else None}
        self.given["predict"] = UNKNOWN if predict else None
        self.loads = 0

    def load(self) -> Splits:
        self.loads += 1
        return Splits(source="toys", class_names=("a", "b", "c"), train=TRAIN, **self.given)


def prepared(**kwargs):
    data = Toys(**kwargs)
    data.setup()
    return data


def collected(loader, key="index"):
    return torch.cat([batch[key] for batch in loader]).tolist()


class Probe(LightningModule):
    """Trains one weight and keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = {stage: [] for stage in ("train", "val", "test", "predict")}

    def _keep(self, stage, batch):
        self.seen[stage].append(dict(batch))
        return self.weight * batch["image"].float().mean()

    def training_step(self, batch):
        return self._keep("train", batch)

    def validation_step(self, batch):
        self._keep("val", batch)

    def test_step(self, batch):
        self._keep("test", batch)

    def predict_step(self, batch):
        self._keep("predict", batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(tmp_path, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(
        default_root_dir=tmp_path, accelerator="cpu", **{**quiet, "enable_checkpointing": False, **options}
    )


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("batch_size", 0),
        ("val_fraction", 1.0),
        ("val_fraction", -0.1),
        ("val_fraction", float("nan")),
        ("split_seed", -1),
        ("split_seed", 2**32),
        ("num_workers", -1),
    ],
)
def test_arguments_out_of_range(argument, value):
    with pytest.raises(InputError, match=f"{argument}={value}: give"):
        Toys(**{argument: value})


def test_facts_about_the_data_set():
    data = prepared()
    assert (data.num_classes, data.class_names) == (3, ("a", "b", "c"))
    assert (data.image_size, data.in_channels) == ((4, 6), 1)
    assert data.mean == pytest.approx([TRAIN.images.mean() / 255])
    assert data.std == pytest.approx([TRAIN.images.std() / 255])


def test_balanced_training_and_everything_in_order_elsewhere():
    data = prepared(balanced=True, val=True, batch_size=14)
    # 10 of the first class and 2 of each other one, as if the rest were held out.
    chosen = np.r_[0:30:3, 1:30:15, 2:30:15]
    data._datasets["train"] = BatchDataset(TRAIN, chosen)
    drawn = collected(data.train_dataloader())
    assert set(drawn) <= set(chosen.tolist())
    assert sorted(np.bincount(np.array(drawn) % 3).tolist()) == [4, 5, 5]
    assert collected(data.val_dataloader()) == list(range(9))


@pytest.mark.parametrize(
    ("given", "command", "said"),
    [
        ({}, "fit", "has no validation images: its 6 test images validate"),
        ({}, "validate", None),
        ({"val_fraction": 0.2}, "fit", None),
        ({"val": True}, "fit", None),
        ({"val": True, "test": False}, "fit", None),
        ({"val": True, "test": False}, "test", "has no test images: its 9 validation images test"),
        ({"val": True}, "test", None),
    ],
)
def test_what_stands_in_is_said_in_one_line(tmp_path, caplog, given, command, said):
    with caplog.at_level("INFO", "lightning.pytorch"):
        getattr(trainer(tmp_path, max_epochs=1), command)(Probe(), datamodule=Toys(batch_size=8, **given))
    lines = [record.getMessage() for record in caplog.records if "images" in record.getMessage()]
    assert [line.startswith(f"vitlocal: toys {said}") for line in lines] == ([] if said is None else [True])


def test_read_once():
    data = Toys()
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    assert data.loads == 1


@pytest.mark.parametrize(
    ("given", "val", "test", "predict"),
    [
        ({}, TEST, TEST, TEST),
        ({"val": True}, VAL, TEST, TEST),
        ({"val": True, "test": False}, VAL, VAL, VAL),
        ({"predict": True}, TEST, TEST, UNKNOWN),
    ],
)
def test_which_images_serve_what(given, val, test, predict):
    data = prepared(**given)
    for loader, expected in (
        (data.val_dataloader(), val),
        (data.test_dataloader(), test),
        (data.predict_dataloader(), predict),
    ):
        assert collected(loader) == list(range(len(expected)))
        assert collected(loader, "image") == expected.images.tolist()
        assert collected(loader, "label") == expected.labels.tolist()


def test_held_out_images_validate():
    data = prepared(val=True, val_fraction=0.2, batch_size=4)
    held_out, kept = collected(data.val_dataloader()), collected(data.train_dataloader())
    assert len(held_out) == 6 and len(kept) == 24
    assert sorted(held_out + kept) == list(range(30))
    assert np.bincount(TRAIN.labels[held_out]).tolist() == [2, 2, 2]
    assert collected(data.val_dataloader(), "image") == TRAIN.images[held_out].tolist()
    assert collected(data.test_dataloader(), "image") == TEST.images.tolist()
    again = prepared(val_fraction=0.2, batch_size=7)
    assert collected(again.val_dataloader()) == held_out
    other = prepared(val_fraction=0.2, split_seed=1)
    assert collected(other.val_dataloader()) != held_out


def test_without_any_images_to_validate():
    with pytest.raises(InputError, match="toys has no validation or test images"):
        prepared(test=False)
    data = prepared(test=False, val_fraction=0.1)
    for loader in (data.test_dataloader, data.predict_dataloader):
        with pytest.raises(InputError, match="'toys' has no images to"):
            loader()


def test_val_fraction_that_leaves_a_class_out():
    with pytest.raises(InputError, match=r"val_fraction=0\.01 leaves class"):
        prepared(val_fraction=0.01)


@pytest.mark.parametrize(("batch_size", "sizes"), [(8, [8, 8, 8]), (30, [30]), (31, [30])])
def test_last_batch_is_dropped_only_if_it_is_not_the_only_one(batch_size, sizes):
    data = prepared(batch_size=batch_size)
    assert [len(batch["index"]) for batch in data.train_dataloader()] == sizes


def test_training_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch, draws):
        torch.manual_seed(seed)
        sampler = EpochSampler(BatchDataset(TRAIN))
        torch.rand(draws)
        sampler.set_epoch(epoch)
        return tuple(sampler)

    assert order(0, 0, 0) == order(0, 0, 3)
    assert len({order(0, 0, 0), order(0, 1, 0), order(1, 0, 0), order(1, 1, 0)}) == 4
    assert sorted(order(0, 0, 0)) == list(range(30))


def test_order_differs_from_epoch_to_epoch():
    loader = prepared().train_dataloader()
    first = collected(loader)
    loader.sampler.set_epoch(1)
    assert collected(loader) != first


def test_targets_are_there_in_training_only(tmp_path):
    model, data = Probe(), Toys(batch_size=8)
    trainer(tmp_path, max_epochs=1).fit(model, datamodule=data)
    trainer(tmp_path).test(model, datamodule=data, verbose=False)
    trainer(tmp_path).predict(model, datamodule=data)
    assert [len(model.seen[stage]) for stage in ("train", "val", "test", "predict")] == [3, 2, 1, 1]
    for batch in model.seen["train"]:
        assert batch["target"].dtype == torch.float32
        expected = [[float(label == k) for k in range(3)] for label in batch["label"].tolist()]
        assert batch["target"].tolist() == expected
    for stage in ("val", "test", "predict"):
        assert all(set(batch) == {"image", "label", "index"} for batch in model.seen[stage])


def test_callbacks_find_the_target(tmp_path):
    class Look(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            assert batch["target"].shape == (8, 3)
            batch["target"] = batch["target"] / 2

    model = Probe()
    trainer(tmp_path, max_epochs=1, callbacks=[Look()]).fit(model, datamodule=Toys(batch_size=8))
    assert all(batch["target"].sum() == 4 for batch in model.seen["train"])


def test_a_resumed_run_keeps_the_order(tmp_path):
    def run(epochs, checkpoint=None):
        torch.manual_seed(5)
        model = Probe()
        saver = ModelCheckpoint(tmp_path, filename=f"{epochs}", save_top_k=-1)
        runner = trainer(tmp_path, max_epochs=epochs, enable_checkpointing=True, callbacks=[saver])
        runner.fit(model, datamodule=Toys(batch_size=8), ckpt_path=checkpoint)
        return [batch["index"].tolist() for batch in model.seen["train"]]

    uninterrupted = run(2)
    assert uninterrupted[:3] != uninterrupted[3:]
    assert run(1) == uninterrupted[:3]
    assert run(2, tmp_path / "1.ckpt") == uninterrupted[3:]


def test_a_worker_process_gathers_the_same_batches():
    beside, within = prepared(num_workers=1, batch_size=4), prepared(batch_size=4)
    for key in ("index", "image", "label"):
        assert collected(beside.val_dataloader(), key) == collected(within.val_dataloader(), key)


def test_lightning_leaves_the_samplers_alone():
    """It puts its own, which repeats images, in the place of all but DistributedSamplers."""
    for loader in (prepared().train_dataloader(), prepared().val_dataloader()):
        assert isinstance(loader.sampler, torch.utils.data.distributed.DistributedSampler)


def test_described_by_plain_types():
    data = Toys(val=True, batch_size=16, val_fraction=0.25)
    described = yaml.safe_load(yaml.safe_dump(dict(data.hparams)))
    assert described == {
        "val": True,
        "test": True,
        "predict": False,
        "batch_size": 16,
        "val_fraction": 0.25,
        "split_seed": 0,
        "num_workers": 0,
        "balanced": False,
    }
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ImageDataModule, "data")
    config = parser.parse_object({"data": {"class_path": f"{__name__}.Toys", "init_args": described}})
    assert dict(parser.instantiate(config).data.hparams) == described
