import re

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets, transforms

from vitlocal.data import ImageFolder
from vitlocal.errors import InputError


def picture(path, seed, size=(20, 14), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def pets(tmp_path):
    root = tmp_path / "pets"
    for seed, name in enumerate(("cat/a.png", "cat/b.jpg", "dog/a.png", "dog/deep/b.bmp", "ant/a.png")):
        picture(root / "train" / name, seed, mode="L" if seed == 1 else "RGB")
    picture(root / "val/dog/x.png", 10, size=(9, 30))
    picture(root / "val/cat/x.png", 11)
    (root / "train/cat/notes.txt").write_text("no image")
    (root / "train/cat/._a.png").write_bytes(b"no image either")
    (root / "train/.hidden").mkdir()
    return root


def test_pixels_and_labels_are_torchvisions(pets):
    data = ImageFolder(f"{pets}/", image_size=12)
    assert data.name == "pets"
    data.prepare_data()
    assert data.class_names == ("ant", "cat", "dog")
    assert (data.image_size, data.in_channels) == ((12, 12), 3)
    transform = transforms.Compose(
        [transforms.Resize(12), transforms.CenterCrop(12), transforms.PILToTensor()]
    )
    (pets / "train/cat/._a.png").unlink()
    (pets / "train/.hidden").rmdir()
    splits = data.load()
    train = datasets.ImageFolder(str(pets / "train"), transform)
    assert len(splits.train) == len(train) == 5
    for name, image, label in zip(splits.train.names, splits.train.images, splits.train.labels, strict=True):
        position = [path for path, _ in train.samples].index(str(pets / name))
        expected, expected_label = train[position]
        assert (image == expected.numpy()).all()
        assert label == expected_label
    (batch,) = data.val_dataloader()
    assert batch["label"].tolist() == [1, 2]
    (tested,) = data.test_dataloader()
    assert (tested["image"] == batch["image"]).all()
    unit = splits.train.images / 255
    assert data.mean == pytest.approx(unit.mean(axis=(0, 2, 3)))
    assert data.std == pytest.approx(unit.std(axis=(0, 2, 3)))


def test_optional_folders(pets):
    picture(pets / "test/ant/t.png", 20)
    picture(pets / "predict/one.png", 21)
    picture(pets / "predict/two.png", 22)
    data = ImageFolder(str(pets), image_size=8)
    data.setup()
    (batch,) = data.test_dataloader()
    assert batch["label"].tolist() == [0]
    (batch,) = data.predict_dataloader()
    assert batch["label"].tolist() == [-1, -1]
    assert data.predict_dataloader().dataset.images.names == ["predict/one.png", "predict/two.png"]


def test_images_of_another_shape(pets):
    shapes = {}
    for resize in ("crop", "pad", "squash"):
        data = ImageFolder(str(pets), image_size=(8, 10), resize=resize)
        data.prepare_data()
        assert (data.image_size, data.resize) == ((8, 10), resize)
        shapes[resize] = next(iter(data.val_dataloader()))["image"][0]
    with Image.open(pets / "val/cat/x.png") as image:
        small = image.resize((10, 7), Image.Resampling.BILINEAR)
        assert (shapes["pad"][:, :7].permute(1, 2, 0).numpy() == np.asarray(small)).all()
        assert not shapes["pad"][:, 7].any()
        stretched = image.resize((10, 8), Image.Resampling.BILINEAR)
        assert (shapes["squash"].permute(1, 2, 0).numpy() == np.asarray(stretched)).all()
    assert len({tuple(image.flatten().tolist()) for image in shapes.values()}) == 3


def test_what_is_left_out_is_counted_in_one_line(pets, caplog):
    (pets / "val/cat/photo.HEIC").write_bytes(b"x")
    (pets / "train/dog/deep/other.heic").write_bytes(b"x")
    (pets / "train/dog/README").write_bytes(b"x")
    (pets / "labels.csv").write_text("beside the splits")
    picture(pets / "train/loose.png", 40)
    picture(pets / "train/cat/.ipynb_checkpoints/a-checkpoint.png", 41)
    data = ImageFolder(str(pets), image_size=8)
    with caplog.at_level("INFO", "lightning.pytorch"):
        data.prepare_data()
        data.setup()
    (line,) = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert "left out 7 files" in line and str(pets) in line
    assert "2 .heic, 1 .txt, 2 hidden, 1 outside of a class, 1 without a suffix" in line
    assert len(data.train_dataloader().dataset) == 5


def test_nothing_is_said_where_nothing_is_left_out(pets, caplog):
    (pets / "train/cat/notes.txt").unlink()
    (pets / "train/cat/._a.png").unlink()
    with caplog.at_level("INFO", "lightning.pytorch"):
        ImageFolder(str(pets), image_size=8).prepare_data()
    assert "left out" not in caplog.text


def test_held_out_without_val(pets):
    for name in ("dog/x.png", "cat/x.png"):
        (pets / "val" / name).unlink()
        (pets / "val" / name).parent.rmdir()
    (pets / "val").rmdir()
    for seed, name in enumerate(("ant/b.png", "ant/c.png")):
        picture(pets / "train" / name, 30 + seed)
    with pytest.raises(InputError, match="no validation or test images"):
        ImageFolder(str(pets), image_size=8).setup()
    data = ImageFolder(str(pets), image_size=8, val_fraction=0.5)
    data.setup()
    (batch,) = data.val_dataloader()
    assert set(batch["label"].tolist()) == {0, 1, 2}


def test_wrong_folders_are_explained(pets, tmp_path):
    def refused(message, path=pets):
        with pytest.raises(InputError, match=message):
            ImageFolder(str(path), image_size=8).setup()

    refused("there is no folder .*nothing/train", tmp_path / "nothing")
    (tmp_path / "empty/train").mkdir(parents=True)
    refused("train holds no folders", tmp_path / "empty")
    (pets / "val/bird").mkdir()
    refused("val/bird/? is no class of .*train")
    (pets / "val/bird").rmdir()
    (pets / "val/ant").mkdir()
    refused("val/ant/? holds no image")
    (pets / "val/ant").rmdir()
    (pets / "train/cat/a.png").write_bytes(b"no image")
    refused(r"train/cat/a\.png in .*pets can't be decoded")


def test_arguments_out_of_range():
    for size in (0, (8, 0), (-1, 8)):
        with pytest.raises(InputError, match=re.escape(f"image_size={size}: give at least 1 pixel")):
            ImageFolder("x", image_size=size)
    with pytest.raises(InputError, match="resize=stretch: give one of crop, pad, squash"):
        ImageFolder("x", resize="stretch")
