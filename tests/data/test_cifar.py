import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from tests.data import official as layouts
from tests.data.bad_server import BadServer
from vitlocal.data import CIFAR10, CIFAR100
from vitlocal.data.archive import unpack
from vitlocal.errors import InputError

BOTH = [(CIFAR10, datasets.CIFAR10), (CIFAR100, datasets.CIFAR100)]


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Make a tiny archive in the official layout; the module and torchvision are told its facts."""

    def make(module, reader, **options):
        made = layouts.cifar(reader, tmp_path, **options)
        for name, value in made.reader.items():
            monkeypatch.setattr(reader, name, value)
        monkeypatch.setattr(module, "archive_size", made.size)
        return made

    return make


@pytest.fixture(params=BOTH)
def official(request, make):
    module, reader = request.param
    made = make(module, reader)
    return module, reader, made.archive, made.parts


@pytest.fixture
def put(tmp_path):
    """Put an archive into the data folder, and give that."""

    def put(archive):
        (tmp_path / "data").mkdir()
        archive.rename(tmp_path / "data" / archive.name)
        return str(tmp_path / "data")

    return put


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


def test_download(official, tmp_path):
    module, reader, archive, _ = official
    with BadServer(archive.read_bytes()) as server:
        sources = [server.url("missing"), server.url("truncates"), server.url("redirects")]
        data = module(path=str(tmp_path / "data"), sources=sources)
        data.prepare_data()
        assert [fault for fault, _ in server.requests] == ["missing", "truncates", "redirects", "good"]
        module(path=str(tmp_path / "data"), sources=sources).prepare_data()
        assert len(server.requests) == 4
    assert data.mean == data.published_statistics.mean
    assert data.std == data.published_statistics.std
    assert visible(tmp_path / "data") == [reader.base_folder, reader.filename]
    other_process = module(path=str(tmp_path / "data"))
    other_process.setup("fit")
    assert len(other_process.val_dataloader().dataset) == data.num_classes


def test_the_official_url_is_the_default(official, tmp_path, monkeypatch):
    module, reader, archive, _ = official
    with BadServer(archive.read_bytes()) as server:
        monkeypatch.setattr(reader, "url", server.url("good"))
        module(path=str(tmp_path / "data")).prepare_data()
        assert server.requests == [("good", 0)]


@pytest.mark.parametrize("download", [True, False])
def test_missing_archive_is_named(official, tmp_path, download):
    module, reader, _, _ = official
    data = module(path=str(tmp_path / "data"), download=download)
    with pytest.raises(InputError) as error:
        data.prepare_data()
    for part in (str(tmp_path / "data"), reader.filename, reader.tgz_md5):
        assert part in str(error.value)


@pytest.mark.parametrize("download", [True, False])
def test_changed_archive_is_not_read(official, put, download):
    module, _, archive, _ = official
    content = bytearray(archive.read_bytes())
    content[-1] ^= 1
    archive.write_bytes(content)
    folder = put(archive)
    with pytest.raises(InputError, match="does not have the MD5"):
        module(path=folder, download=download).prepare_data()


def visible(folder):
    return sorted(item.name for item in Path(folder).iterdir() if item.suffix != ".lock")


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("number", range(7))
def test_nothing_is_unpickled_before_its_md5_is_found_right(make, put, tmp_path, number):
    reader = datasets.CIFAR10
    names = [name for name, _ in [*reader.train_list, *reader.test_list]] + [reader.meta["filename"]]
    bomb = pickle.dumps(Bomb(tmp_path / "gone off"))
    folder = put(make(CIFAR10, reader, changes={names[number]: bomb}).archive)
    with pytest.raises(InputError, match="with MD5"):
        CIFAR10(path=folder).prepare_data()
    with pytest.raises(InputError, match="remove it, and it is unpacked again"):
        CIFAR10(path=folder).prepare_data()
    with pytest.raises(InputError, match="with MD5"):
        CIFAR10(path=folder, download=False).setup()
    assert not (tmp_path / "gone off").exists()
    pickle.loads(bomb)
    assert (tmp_path / "gone off").exists()


def member(name, kind=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "evil",
    [
        member("../evil"),
        member("cifar-10-batches-py/../../evil"),
        member("/tmp/vitlocal-evil"),
        member("C:\\evil"),
        member("..\\evil"),
        member("cifar-10-batches-py/evil", tarfile.SYMTYPE, "/etc/passwd"),
        member("cifar-10-batches-py/evil", tarfile.SYMTYPE, "data_batch_1"),
        member("cifar-10-batches-py/evil", tarfile.LNKTYPE, "../../evil"),
        member("cifar-10-batches-py/evil", tarfile.FIFOTYPE),
        member("cifar-10-batches-py/evil", tarfile.CHRTYPE),
    ],
    ids=lambda evil: f"{evil.name} {evil.type.decode()} {evil.linkname}",
)
def test_members_that_point_outside_are_refused(make, put, evil):
    made = make(CIFAR10, datasets.CIFAR10, members=[evil])
    folder = put(made.archive)
    with pytest.raises(InputError) as error:
        CIFAR10(path=folder).prepare_data()
    assert f"{evil.name!r}" in str(error.value)
    assert visible(folder) == [made.archive.name]
    assert not (Path(folder).parent / "evil").exists()
    assert not Path("/tmp/vitlocal-evil").exists()


def test_interrupted_unpacking_does_not_look_complete(official, put, monkeypatch):
    module, reader, archive, _ = official
    folder = put(archive)

    def interrupted(self, path, **options):
        (Path(path) / reader.base_folder).mkdir(parents=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(tarfile.TarFile, "extractall", interrupted)
        with pytest.raises(KeyboardInterrupt):
            module(path=folder).prepare_data()
    assert visible(folder) == [archive.name]
    # What a killed process leaves is removed.
    (Path(folder) / f".{reader.base_folder}.tmp" / "rest").mkdir(parents=True)
    module(path=folder).prepare_data()
    assert visible(folder) == [reader.base_folder, archive.name]


def test_truncated_archive_is_not_unpacked(make):
    made = make(CIFAR10, datasets.CIFAR10)
    content = made.archive.read_bytes()
    for size in (0, 100, len(content) // 2):
        made.archive.write_bytes(content[:size])
        with pytest.raises(InputError, match="can't be unpacked"):
            unpack(made.archive, made.archive.parent / "cifar-10-batches-py")
    assert visible(made.archive.parent) == [made.archive.name]


def test_changed_batch_is_not_read(official, tmp_path):
    module, reader, archive, _ = official
    with tarfile.open(archive) as file:
        file.extractall(tmp_path / "data", filter="data")
    batch = tmp_path / "data" / reader.base_folder / reader.train_list[0][0]
    batch.write_bytes(batch.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="with MD5"):
        module(path=str(tmp_path / "data"), download=False).setup()


@pytest.mark.parametrize(
    ("module", "mean", "std", "md5", "size"),
    [
        (
            CIFAR10,
            (0.4914, 0.4822, 0.4465),
            (0.2470, 0.2435, 0.2616),
            "c58f30108f718f92721af3b95e74349a",
            170498071,
        ),
        (
            CIFAR100,
            (0.5071, 0.4865, 0.4409),
            (0.2673, 0.2564, 0.2762),
            "eb9058c3a382ffc7106e4002c42a8d85",
            169001437,
        ),
    ],
)
def test_published_facts(module, mean, std, md5, size):
    assert module.published_statistics == (mean, std)
    assert module.reader.tgz_md5 == md5
    assert module.archive_size == size
    assert module.photometric["init_args"] == {"policy": "cifar10"}
