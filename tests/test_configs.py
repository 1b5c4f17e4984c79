"""Every shipped YAML is parsed by its command; a data set's runs a step, under either protocol."""

import csv
import io
import zipfile

import numpy as np
import pytest
import yaml
from PIL import Image

from vitlocal import config_files
from vitlocal.cli import main
from vitlocal.data import CIFAR10, CIFAR100, Images, Splits

PROTOCOLS = ["baseline.yaml", "modern.yaml"]
STUDIES = [name for name, path in config_files.shipped().items() if "\nconditions:" in path.read_text()]
GRAPHS = ["blocks.yaml", "karate.yaml"]
SEQUENCES = ["arithmetic.yaml", "equations.yaml", "lis.yaml", "edit_distance.yaml"]
FORMS = ["direct.yaml", "chain.yaml"]
DATA = sorted(set(config_files.shipped()) - {*PROTOCOLS, *STUDIES, *GRAPHS, *SEQUENCES, *FORMS})


def random_images(count, classes):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    return Images(images, np.arange(count) % classes)


@pytest.fixture
def data_flags(tmp_path, monkeypatch, npz_file):
    """The flags that point each data YAML at a small data set; CIFAR's archives are random images."""
    for module, classes in ((CIFAR10, 10), (CIFAR100, 100)):
        names = tuple(str(label) for label in range(classes))
        images = random_images(130, classes)
        splits = Splits("random images", names, train=images, test=images)
        monkeypatch.setattr(module, "fetch", lambda self: None)
        monkeypatch.setattr(module, "load", lambda self, splits=splits: splits)
    picture = Image.fromarray(random_images(1, 1).images[0].transpose(1, 2, 0)).resize((64, 64))
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG")
    with zipfile.ZipFile(tmp_path / "tiny.zip", "w") as archive:
        archive.writestr("tiny-imagenet-200/wnids.txt", "n01\nn02\n")
        archive.writestr("tiny-imagenet-200/words.txt", "n01\tone\nn02\ttwo\n")
        archive.writestr("tiny-imagenet-200/val/val_annotations.txt", "v.JPEG\tn01\t0\t0\t1\t1\n")
        for name in ("val/images/v", "train/n01/images/a", "train/n02/images/b"):
            archive.writestr(f"tiny-imagenet-200/{name}.JPEG", jpeg.getvalue())
    for split in ("train", "val"):
        for label in ("cat", "dog"):
            (tmp_path / "pets" / split / label).mkdir(parents=True)
            picture.save(tmp_path / "pets" / split / label / "1.png")
    return {
        "digits.yaml": [],
        "cifar10.yaml": [],
        "cifar100.yaml": [],
        "tiny_imagenet.yaml": [f"--data.path={tmp_path / 'tiny.zip'}"],
        "npz.yaml": [f"--data.path={npz_file}"],
        "image_folder.yaml": [f"--data.path={tmp_path / 'pets'}"],
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("data", DATA)
def test_a_protocol_on_a_data_set_runs_a_step(data, protocol, data_flags, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1"]
    small = [
        "--model.network.depth=2",
        "--model.network.embed_dim=24",
        "--data.batch_size=4",
        "--trainer.accelerator=cpu",
    ]
    # With the logger that there is by default, which sees every hyperparameter.
    quiet = ["--trainer.enable_progress_bar=false", "--locality.maps=0"]
    main(["fit", "--config", data, *data_flags[data], "--config", protocol, *short, *small, *quiet])
    (run,) = tmp_path.glob("lightning_logs/*/version_0")
    assert run.parent.name.endswith(f"-{protocol.removesuffix('.yaml')}")
    with (run / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["train/loss"]) > 0 and float(row["val/loss"]) > 0


@pytest.mark.parametrize("data", GRAPHS)
def test_a_graph_runs_a_step(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["--data.num_nodes=200"] if data == "blocks.yaml" else []
    main(["fit", "--config", data, *small, "--trainer.max_epochs=1", "--trainer.accelerator=cpu"])
    (run,) = tmp_path.glob("lightning_logs/*/version_0")
    with (run / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["train/loss"]) > 0 and 0 <= float(row["val/acc1"]) <= 1


@pytest.mark.parametrize("data", DATA)
def test_the_order_of_protocol_and_data_does_not_matter(data, data_flags, capsys):
    printed = []
    for order in ((data, "modern.yaml"), ("modern.yaml", data)):
        configs = [word for name in order for word in ("--config", name)]
        with pytest.raises(SystemExit):
            main(["fit", *configs, *data_flags[data], "--print_config"])
        printed.append(yaml.safe_load(capsys.readouterr().out))
    assert printed[0] == printed[1]
    wanted = "ColorJitter" if data == "tiny_imagenet.yaml" else "AutoAugment"
    assert printed[0]["protocol"]["photometric"]["class_path"] == f"vitlocal.protocol.{wanted}"
    assert printed[0]["protocol"]["mixing"]["class_path"] == "vitlocal.CutMix"


def test_protocols_differ_in_the_protocol_alone(capsys):
    printed = []
    for protocol in PROTOCOLS:
        with pytest.raises(SystemExit):
            main(["fit", "--config", "cifar100.yaml", "--config", protocol, "--print_config"])
        printed.append(yaml.safe_load(capsys.readouterr().out))
    assert printed[0].pop("protocol") != printed[1].pop("protocol")
    assert printed[0] == printed[1]


@pytest.mark.parametrize("name", sorted(config_files.shipped()))
def test_a_header_gives_the_command(name):
    header = config_files.shipped()[name].read_text().split("\n\n")[0]
    command = "study" if name in STUDIES else "fit"
    assert header.startswith("# ") and f"python -m vitlocal {command}" in header and name in header


@pytest.mark.parametrize("data", SEQUENCES)
def test_sequences_have_either_form(data, capsys):
    for form in FORMS:
        with pytest.raises(SystemExit):
            main(["fit", "--config", data, "--config", form, "--print_config"])
        printed = yaml.safe_load(capsys.readouterr().out)
        assert printed["data"]["init_args"]["form"] == form.removesuffix(".yaml")
        assert printed["model"]["class_path"].endswith("SequenceModeling")
