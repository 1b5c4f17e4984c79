import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitlocal.data import TinyImageNet
from vitlocal.errors import InputError

ROOT = "tiny-imagenet-200"
WNIDS = ["n03", "n01", "n02"]


def jpeg(seed, mode="RGB"):
    shape = (64, 64, 3) if mode == "RGB" else (64, 64)
    small = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).save(buffer, "JPEG")
    return buffer.getvalue()


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
