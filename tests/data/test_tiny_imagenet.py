import io
import shutil
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data import official
from tests.data.bad_server import BadServer
from tests.data.official import jpeg
from vitlocal.data import TinyImageNet
from vitlocal.data import archive as archives
from vitlocal.errors import InputError

ROOT = "tiny-imagenet-200"
WNIDS = ["n03", "n01", "n02"]


def official_files():
    files = {
        "wnids.txt": b"n03\nn01\nn02\n",
        "words.txt": b"n01\tgoldfish, Carassius auratus\nn02\tbullfrog\nn99\tother\n",
        "val/val_annotations.txt": b"val_0.JPEG\tn02\t0\t0\t63\t63\nval_1.JPEG\tn03\t0\t0\t63\t63\n",
        "val/images/val_0.JPEG": jpeg(100),
        "val/images/val_1.JPEG": jpeg(101, "L"),
        "test/images/test_0.JPEG": jpeg(200),
    }
    for number, wnid in enumerate(WNIDS):
        files[f"train/{wnid}/{wnid}_boxes.txt"] = b"x\t0\t0\t63\t63\n"
        for index in range(4):
            mode = "L" if (number, index) == (1, 2) else "RGB"
            files[f"train/{wnid}/images/{wnid}_{index}.JPEG"] = jpeg(10 * number + index, mode)
    return files


def write_zip(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"{ROOT}/{name}", content)
    return str(path)


@pytest.fixture
def archive(tmp_path):
    return write_zip(tmp_path / "tiny.zip", official_files())


@pytest.mark.parametrize("source", ["zip", "folder", "parent"])
def test_official_layout(archive, tmp_path, source):
    path = Path(archive)
    if source != "zip":
        shutil.unpack_archive(archive, tmp_path / "unpacked")
        path = tmp_path / "unpacked" / (ROOT if source == "folder" else "")
    data = TinyImageNet(path=str(path), batch_size=4)
    data.prepare_data()
    assert (data.name, data.num_classes) == ("tiny_imagenet", 3)
    assert data.class_names == ("n03", "goldfish", "bullfrog")
    assert (data.image_size, data.in_channels) == ((64, 64), 3)
    files, splits = official_files(), data.load()
    assert splits.train.labels.tolist() == [1] * 4 + [2] * 4 + [0] * 4
    assert splits.test.labels.tolist() == [2, 0]
    assert splits.predict.labels.tolist() == [-1]
    for split in (splits.train, splits.test, splits.predict):
        for name, pixels in zip(split.names, split.images, strict=True):
            image = Image.open(io.BytesIO(files[name.removeprefix(f"{ROOT}/")]))
            assert (np.asarray(image.convert("RGB")) == pixels.transpose(1, 2, 0)).all()
    unit = splits.train.images.astype(np.float64) / 255
    assert data.mean == pytest.approx(unit.mean(axis=(0, 2, 3)))
    assert data.std == pytest.approx(unit.std(axis=(0, 2, 3)))
    (batch,) = data.val_dataloader()
    assert batch["label"].tolist() == [2, 0]
    (batch,) = data.predict_dataloader()
    assert batch["label"].tolist() == [-1]


def test_decoded_once(archive, capsys):
    TinyImageNet(path=archive).prepare_data()
    assert "decoding train images: 100%" in capsys.readouterr().err
    again = TinyImageNet(path=archive, val_fraction=0.25)
    again.setup()
    assert capsys.readouterr().err == ""
    assert len(again.val_dataloader().dataset) == 3


def test_part_of_the_set(tmp_path):
    files = {
        name: content for name, content in official_files().items() if name.startswith(("wnids", "train"))
    }
    data = TinyImageNet(path=write_zip(tmp_path / "part.zip", files), val_fraction=0.25)
    data.setup()
    assert data.class_names == tuple(WNIDS)
    assert len(data.train_dataloader().dataset) == 9


def changed(**changes):
    files = official_files()
    for name, content in changes.items():
        if content is None:
            files = {key: value for key, value in files.items() if not key.startswith(name)}
        else:
            files[name] = content
    return files


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wnids.txt": None}, "holds no wnids.txt"),
        ({"train/": None}, "has no images in tiny-imagenet-200/train/"),
        ({"train/n01/images": None}, r"class 1 \('goldfish'\) has no training image"),
        ({"wnids.txt": b"n03\nn01\n"}, "class 'n02' of .*n02_0.JPEG in .* is not in wnids.txt"),
        ({"val/val_annotations.txt": None}, "holds no tiny-imagenet-200/val/val_annotations.txt"),
        ({"val/val_annotations.txt": b"val_0.JPEG\tn02\t0\t0\t1\t1\n"}, "val_1.JPEG in .* has no line"),
        ({"val/val_annotations.txt": b"val_0.JPEG\tn77\nval_1.JPEG\tn01\n"}, "class 'n77' of .*val_0.JPEG"),
        ({"train/n02/images/n02_1.JPEG": jpeg(0)[:900]}, "n02_1.JPEG in .* can't be decoded"),
    ],
)
def test_wrong_layout_is_explained(tmp_path, changes, message):
    path = write_zip(tmp_path / "wrong.zip", changed(**changes))
    with pytest.raises(InputError, match=message):
        TinyImageNet(path=path).setup()


def test_missing_or_cut_archive(tmp_path, archive):
    with pytest.raises(InputError, match=r"there is no .*nothing\.zip"):
        TinyImageNet(path=str(tmp_path / "nothing.zip")).setup()
    content = Path(archive).read_bytes()
    Path(archive).write_bytes(content[:-100])
    with pytest.raises(InputError, match="download or copy it again"):
        TinyImageNet(path=archive).setup()


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """A small official archive, ``made.zip``, which the module takes for the real one."""
    remote = official.tiny_imagenet(tmp_path / "made.zip")
    monkeypatch.setattr(TinyImageNet, "remote", remote)
    return remote


def test_download(remote, tmp_path):
    path = tmp_path / "data" / remote.name
    with BadServer((tmp_path / "made.zip").read_bytes()) as server:
        sources = [server.url("wrong_bytes"), server.url("good")]
        data = TinyImageNet(path=str(path), sources=sources)
        data.prepare_data()
        assert [fault for fault, _ in server.requests] == ["wrong_bytes", "good"]
        TinyImageNet(path=str(path), sources=sources).prepare_data()
        assert len(server.requests) == 2
    assert path.read_bytes() == (tmp_path / "made.zip").read_bytes()
    assert data.class_names == ("n01", "n02")
    assert len(data.train_dataloader().dataset) == 8


@pytest.mark.parametrize("download", [True, False])
def test_without_a_download_the_place_is_named(remote, tmp_path, download):
    sources = ["http://127.0.0.1:9/tiny.zip"]  # nobody listens there
    path = tmp_path / "data" / remote.name
    data = TinyImageNet(path=str(path), sources=sources, download=download)
    with pytest.raises(InputError) as error:
        data.prepare_data()
    wanted = f"put {remote.name} with MD5 {remote.md5} into {tmp_path / 'data'} by hand"
    assert wanted in str(error.value)
    assert ("Connection refused" if download else "download=false") in str(error.value)


def test_other_names_are_not_downloaded(remote, tmp_path):
    with BadServer(b"x") as server:
        data = TinyImageNet(path=str(tmp_path / "sample.zip"), sources=[server.url("good")])
        with pytest.raises(InputError, match=r"there is no .*sample\.zip"):
            data.prepare_data()
        assert server.requests == []


def test_published_facts():
    remote = TinyImageNet.remote
    assert (remote.name, remote.size) == ("tiny-imagenet-200.zip", 248100043)
    assert remote.md5 == "90528d7ca1a48142e341f4ef8d21d0de"
    assert remote.sources == ("http://cs231n.stanford.edu/tiny-imagenet-200.zip",)


def png_claiming(width, height):
    """A PNG file whose header claims a size that its few bytes of pixels do not have."""
    buffer = io.BytesIO()
    Image.new("L", (2, 2)).save(buffer, "PNG")
    content = bytearray(buffer.getvalue())
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    return bytes(content)


def long_png(width):
    buffer = io.BytesIO()
    Image.new("L", (width, 1)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png_claiming(10_000, 10_000), "can't be decoded .*decompression bomb"),
        (png_claiming(60_000, 60_000), "can't be decoded .*decompression bomb"),
        (png_claiming(2_000_000, 1), "can't be decoded .*truncated"),
        (long_png(2_000_000), "is 2000000x1, too long to cover 64x64"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n", "can't be decoded .*cannot identify"),
    ],
    ids=["large", "huge", "long claim", "long", "postscript"],
)
def test_absurd_images_are_named(tmp_path, content, message):
    name = "train/n02/images/n02_1.JPEG"
    path = write_zip(tmp_path / "wrong.zip", changed(**{name: content}))
    with pytest.raises(InputError, match=rf"n02_1\.JPEG in .* {message}"):
        TinyImageNet(path=path).setup()


def test_a_member_that_unpacks_to_too_much_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_FILE", 50_000)
    name = "train/n02/images/n02_1.JPEG"
    path = write_zip(tmp_path / "bomb.zip", changed(**{name: bytes(60_000)}))
    with pytest.raises(InputError, match=r"n02_1\.JPEG in .*bomb\.zip has 60000 bytes, over 50000"):
        TinyImageNet(path=path).setup()
