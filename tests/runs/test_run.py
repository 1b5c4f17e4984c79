"""A run is opened by its folder or by a checkpoint, and gives what it holds."""

import csv

import pytest
import torch

import vitlocal
from tests import blobs
from vitlocal.data import NPZ
from vitlocal.errors import InputError
from vitlocal.runs import open_run
from vitlocal.runs.datasets import make_data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run on ``tests/blobs.py``."""
    place = tmp_path_factory.mktemp("run")
    return blobs.fit(place, blobs.write(place / "blobs.npz"))


def test_a_run_gives_what_it_holds(folder):
    run = vitlocal.open_run(folder)
    assert run.folder == folder
    assert list(run.checkpoints) == ["best.ckpt", "last.ckpt", "last.previous.ckpt"]
    assert run.checkpoint == folder / "checkpoints" / "best.ckpt"
    assert run.config["model"]["init_args"]["network"]["init_args"]["embed_dim"] == 16
    assert (
        run.hyperparameters["image_size"] == (8, 8)
        and run.hyperparameters["network"]["init_args"]["embed_dim"] == 16
    )
    data = run.load_data()
    assert isinstance(data, NPZ) and data.name == "blobs"
    data.setup()
    module = run.load_module().eval()
    batch = next(iter(data.val_dataloader()))
    with torch.no_grad():
        assert module(batch["image"]).shape == (8, 3)
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert run.table("metrics")["val/acc1"].tolist() == [float(row["val/acc1"]) for row in rows]


def test_a_checkpoint_opens_its_run(folder):
    run = open_run(folder / "checkpoints" / "last.ckpt")
    assert run.folder == folder and run.checkpoint.name == "last.ckpt"
    assert run.config == open_run(folder).config


def test_a_checkpoint_apart_from_its_run(folder, tmp_path):
    alone = tmp_path / "alone.ckpt"
    alone.write_bytes((folder / "checkpoints" / "best.ckpt").read_bytes())
    run = open_run(str(alone))
    assert (
        run.folder == tmp_path
        and run.config == {}
        and run.hyperparameters["network"]["init_args"]["depth"] == 2
    )
    with pytest.raises(InputError, match="isn't known on which images"):
        run.load_data()


def test_what_is_no_run(tmp_path):
    with pytest.raises(InputError, match="there is no run or checkpoint"):
        open_run(tmp_path / "nowhere")
    with pytest.raises(InputError, match="there is no checkpoint in"):
        _ = open_run(tmp_path).checkpoint
    with pytest.raises(InputError, match=r"heads\.csv is missing"):
        open_run(tmp_path).table("heads")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("Digitz", "data is 'Digitz': it must be CIFAR10, CIFAR100, Digits"),
        ("modern.yaml", "modern.yaml has no key data"),
        ({"class_path": "NPZ"}, "path"),
        ({"class_path": "NPZ", "init_args": {"path": "x", "batch_size": "many"}}, "many"),
        ({"class_path": "os.mkdir"}, "os.mkdir"),
        ({"class_path": "Digits", "init_args": {"batch_size": 0}}, "batch_size=0: give at least 1"),
    ],
)
def test_what_is_no_data_set(given, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        make_data(given)
    assert "\n" not in str(caught.value)
