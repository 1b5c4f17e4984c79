import hashlib
import pickle
import tarfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
from torchvision import datasets

from vitlocal.data import CIFAR10, CIFAR100
from vitlocal.errors import InputError

UNREACHABLE = "http://127.0.0.1:9/archive.tar.gz"


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture(params=[(CIFAR10, datasets.CIFAR10, 10), (CIFAR100, datasets.CIFAR100, 100)])
def official(request, tmp_path, monkeypatch):
    """A tiny archive in the official layout, at ``archive``; torchvision is told its MD5s."""
    module, reader, classes = request.param
    rng = np.random.default_rng(0)
    made = tmp_path / "made" / reader.base_folder
    key = "labels" if classes == 10 else "fine_labels"

    def part(count):
        return {
            "data": rng.integers(0, 256, (count, 3072), dtype=np.uint8),
            key: [index % classes for index in range(count)],
        }

    parts = {name: part(classes) for name, _ in [*reader.train_list, *reader.test_list]}
    md5 = {name: write(made / name, content) for name, content in parts.items()}
    names = [f"class {index}" for index in range(classes)]
    meta = write(made / reader.meta["filename"], {reader.meta["key"]: names})
    archive = tmp_path / reader.filename
    with tarfile.open(archive, "w:gz") as file:
        file.add(made, reader.base_folder)
    monkeypatch.setattr(reader, "train_list", [[name, md5[name]] for name, _ in reader.train_list])
    monkeypatch.setattr(reader, "test_list", [[name, md5[name]] for name, _ in reader.test_list])
    monkeypatch.setattr(reader, "meta", {**reader.meta, "md5": meta})
    monkeypatch.setattr(reader, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(reader, "url", UNREACHABLE)
    return module, reader, archive, parts


def test_archive_put_there_is_read_without_the_network(official, tmp_path):
    module, reader, archive, parts = official
    (tmp_path / "data").mkdir()
    archive.rename(tmp_path / "data" / archive.name)
    data = module(path=str(tmp_path / "data"), download=False)
    data.prepare_data()
    classes = 10 if module is CIFAR10 else 100
    assert data.name == f"cifar{classes}"
    assert data.class_names == tuple(f"class {index}" for index in range(classes))
    assert (data.num_classes, data.image_size, data.in_channels) == (classes, (32, 32), 3)
    pixels = {
        split: np.concatenate([parts[name]["data"] for name, _ in listed]).reshape(-1, 3, 32, 32)
        for split, listed in (("train", reader.train_list), ("test", reader.test_list))
    }
    splits = data.load()
    for split, images in (("train", splits.train), ("test", splits.test)):
        assert (images.images == pixels[split]).all()
        assert images.images.flags.c_contiguous
        assert images.labels.tolist() == list(range(classes)) * (len(images) // classes)
    pil, label = reader(tmp_path / "data", train=False)[3]
    sample = data.test_dataloader().dataset[3]
    assert (np.asarray(pil).transpose(2, 0, 1) == sample["image"].numpy()).all()
    assert sample["label"] == label


def test_download(official, tmp_path, monkeypatch):
    module, reader, archive, _ = official
    handler = partial(SimpleHTTPRequestHandler, directory=archive.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(reader, "url", f"http://127.0.0.1:{server.server_port}/{archive.name}")
        data = module(path=str(tmp_path / "data"))
        data.prepare_data()
        server.shutdown()
    assert data.mean == data.published_statistics.mean
    assert data.std == data.published_statistics.std
    other_process = module(path=str(tmp_path / "data"))
    other_process.setup("fit")
    assert len(other_process.val_dataloader().dataset) == data.num_classes


@pytest.mark.parametrize("download", [True, False])
def test_missing_archive_is_named(official, tmp_path, download):
    module, reader, _, _ = official
    data = module(path=str(tmp_path / "data"), download=download)
    with pytest.raises(InputError) as error:
        data.prepare_data()
    for part in (str(tmp_path / "data"), reader.filename, reader.tgz_md5):
        assert part in str(error.value)


def test_changed_archive_is_not_read(official, tmp_path):
    module, _, archive, _ = official
    (tmp_path / "data").mkdir()
    content = bytearray(archive.read_bytes())
    content[-1] ^= 1
    (tmp_path / "data" / archive.name).write_bytes(content)
    with pytest.raises(InputError, match="with MD5"):
        module(path=str(tmp_path / "data")).prepare_data()


def test_changed_batch_is_not_read(official, tmp_path):
    module, reader, archive, _ = official
    with tarfile.open(archive) as file:
        file.extractall(tmp_path / "data", filter="data")
    batch = tmp_path / "data" / reader.base_folder / reader.train_list[0][0]
    batch.write_bytes(batch.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="with MD5"):
        module(path=str(tmp_path / "data"), download=False).setup()


@pytest.mark.parametrize(
    ("module", "mean", "std", "md5"),
    [
        (CIFAR10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), "c58f30108f718f92721af3b95e74349a"),
        (CIFAR100, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), "eb9058c3a382ffc7106e4002c42a8d85"),
    ],
)
def test_published_facts(module, mean, std, md5):
    assert module.published_statistics == (mean, std)
    assert module.reader.tgz_md5 == md5
    assert module.photometric["init_args"] == {"policy": "cifar10"}
