import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as TF

from vitlocal.data import ImageFolder, UnlabelledImages
from vitlocal.errors import InputError


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(("b/x.png", "a/y.jpg", "z.png")):
        path = tmp_path / "pics" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (20, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    (tmp_path / "pics/._z.png").write_bytes(b"hidden")
    (tmp_path / "pics/notes.heic").write_bytes(b"x")
    return tmp_path / "pics"


def test_images_are_those_of_an_image_folder(folder, tmp_path, caplog):
    data = UnlabelledImages(str(folder), image_size=(8, 10), resize="pad", batch_size=2)
    assert data.name == "pics"
    with caplog.at_level("INFO", "lightning.pytorch"):
        data.prepare_data()
        data.setup("predict")
    assert caplog.text.count("left out 2 files") == 1
    loader = data.predict_dataloader()
    batches = list(loader)
    assert loader.dataset.names == ["a/y.jpg", "b/x.png", "z.png"]
    assert [batch["index"].tolist() for batch in batches] == [[0, 1], [2]]
    assert [batch["label"].tolist() for batch in batches] == [[-1, -1], [-1]]
    for split in ("train/x", "val/x", "predict"):
        for name in loader.dataset.names:
            (tmp_path / "pets" / split / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "pets" / split / name).write_bytes((folder / name).read_bytes())
    pets = ImageFolder(str(tmp_path / "pets"), image_size=(8, 10), resize="pad")
    pets.setup()
    (expected,) = pets.predict_dataloader()
    assert torch.equal(torch.cat([batch["image"] for batch in batches]), expected["image"])
    assert not (tmp_path / "pics.vitlocal").exists()


def test_a_model_of_grey_images_gets_grey_ones(folder):
    images = {}
    for channels in (1, 3):
        data = UnlabelledImages(str(folder), image_size=(8, 8), in_channels=channels)
        data.setup("predict")
        (images[channels],) = (batch["image"] for batch in data.predict_dataloader())
    assert images[1].shape == (3, 1, 8, 8)
    assert torch.equal(images[1], TF.rgb_to_grayscale(images[3]))


def test_they_are_for_prediction_alone(folder):
    data = UnlabelledImages(str(folder), image_size=(8, 8))
    for stage in ("fit", "validate", "test"):
        with pytest.raises(InputError, match="is a folder of images to predict"):
            data.setup(stage)


def test_wrong_arguments(folder, tmp_path):
    for wrong in ({"image_size": (0, 8)}, {"image_size": (8, 8), "in_channels": 2}):
        with pytest.raises(InputError, match="give at least 1 pixel a side"):
            UnlabelledImages(str(folder), **wrong)
    with pytest.raises(InputError, match="there is no such folder"):
        UnlabelledImages(str(tmp_path / "nothing"), image_size=(8, 8)).setup()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="there is no image in"):
        UnlabelledImages(str(tmp_path / "empty"), image_size=(8, 8)).setup()
