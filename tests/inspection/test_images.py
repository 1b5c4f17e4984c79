import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from vitlocal.data import NPZ, Digits, ImageFolder
from vitlocal.errors import InputError
from vitlocal.geometry import Grid
from vitlocal.inspection.images import of_data, of_folder
from vitlocal.models.subject import Subject


def subject(size, channels=3):
    return Subject(nn.Identity(), "toy", size, Grid(1, 1), False, (0.25,) * channels, (0.5,) * channels, True)


def noise(channels, height, width):
    return torch.randint(0, 256, (channels, height, width), dtype=torch.uint8)


@pytest.mark.parametrize("shape", [(3, 20, 30), (3, 30, 20), (3, 5, 7), (1, 16, 16), (3, 11, 29)])
def test_fit_resizes_as_torchvision_and_cuts_the_centre_out(shape):
    image = noise(*shape)
    fitted = subject((16, 16)).fit(image)
    usual = v2.Compose([v2.Resize(16), v2.CenterCrop(16)])
    assert fitted.dtype == torch.uint8 and fitted.shape == (3, 16, 16)
    difference = fitted.int() - usual(image.expand(3, -1, -1)).int()
    # torchvision cuts the longer side down to whole pixels, here it is rounded: less than a pixel's shift.
    exact = (16 * max(shape[1:])) % min(shape[1:]) == 0
    assert not exact or not difference.any()


@pytest.mark.parametrize("shape", [(3, 20, 30), (1, 9, 100), (3, 100, 9)])
def test_fit_to_other_than_square(shape):
    assert subject((16, 24)).fit(noise(*shape)).shape == (3, 16, 24)


def test_fit_leaves_what_fits_and_makes_grey():
    image = noise(3, 8, 8)
    assert torch.equal(subject((8, 8)).fit(image), image)
    grey = subject((8, 8), channels=1).fit(image)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)  # ITU-R 601
    assert grey.shape == (1, 8, 8)
    # torchvision takes 0.2989 for red, and cuts the fraction off.
    assert ((image * weights).sum(0) - grey[0]).abs().max() <= 1 + 0.0001 * 255


def test_a_subject_normalises():
    image = noise(3, 4, 4)[None]
    torch.testing.assert_close(subject((4, 4))(image), (image / 255 - 0.25) / 0.5)


def test_images_of_data_are_those_that_the_monitor_chooses(npz_file):
    data = NPZ(path=str(npz_file))
    every = dict(of_data(data, 100))
    some = dict(of_data(data, 5))
    order = torch.randperm(13, generator=torch.Generator().manual_seed(0))
    assert list(some) == [f"image {index} of blobs" for index in sorted(order[:5].tolist())]
    assert len(every) == 13 and all(torch.equal(image, every[name]) for name, image in some.items())
    with np.load(npz_file) as arrays:
        expected = torch.from_numpy(arrays["val_images"]).permute(0, 3, 1, 2)
    assert torch.equal(torch.stack(list(every.values())), expected)


def test_images_held_out_of_the_training_ones():
    data = Digits(val_fraction=0.1)
    names = [name for name, _ in of_data(data, 3)]
    positions = data.val_dataloader().dataset.positions
    assert all(int(name.split()[1]) in positions for name in names)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "more").mkdir()
    for name in ("b.png", "a.PNG", "more/c.png"):
        Image.fromarray(noise(3, 8, 8).permute(1, 2, 0).numpy()).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_a_folder_of_images(folder):
    found = dict(of_folder(folder, (8, 8), "crop", 100))
    assert list(found) == ["a.PNG", "b.png", "more/c.png"]
    with Image.open(folder / "b.png") as image:
        assert torch.equal(found["b.png"], torch.from_numpy(np.array(image)).permute(2, 0, 1))
    assert len(list(of_folder(folder, (8, 8), "crop", 2))) == 2


@pytest.mark.parametrize("resize", ["crop", "pad", "squash"])
def test_a_folder_is_seen_as_in_training(tmp_path, resize):
    for split, label in (("train", "a"), ("train", "b"), ("val", "a")):
        (tmp_path / split / label).mkdir(parents=True)
        Image.fromarray(noise(3, 20, 9).permute(1, 2, 0).numpy()).save(tmp_path / split / label / "x.png")
    data = ImageFolder(str(tmp_path), image_size=(8, 12), resize=resize)
    trained = [image for _, image in of_data(data, 1)]
    ((name, seen),) = of_folder(tmp_path / "val", (8, 12), resize, 1)
    assert name == "a/x.png" and torch.equal(seen, trained[0])


def test_hidden_and_other_files_of_a_folder_are_counted(folder, caplog):
    (folder / "._a.PNG").write_bytes(b"no image")
    (folder / "c.heic").write_bytes(b"x")
    with caplog.at_level("INFO", "lightning.pytorch"):
        assert len(list(of_folder(folder, (8, 8), "crop", 100))) == 3
    assert "left out 3 files" in caplog.text and "1 .heic, 1 .txt, 1 hidden" in caplog.text


def test_a_wrong_file_is_named_and_left_out(folder, capsys):
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "more" / "cut.png").write_bytes((folder / "b.png").read_bytes()[:60])
    assert len(list(of_folder(folder, (8, 8), "crop", 100))) == 3
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vitlocal")]
    assert len(said) == 2
    assert said[0].startswith("vitlocal: left out: ") and "broken.jpg can't be decoded" in said[0]
    assert "cut.png can't be decoded" in said[1]


def test_folders_without_images(tmp_path):
    with pytest.raises(InputError, match="there is no such folder"):
        list(of_folder(tmp_path / "none", (8, 8), "crop", 100))
    with pytest.raises(InputError, match="no image in it"):
        list(of_folder(tmp_path, (8, 8), "crop", 100))
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match="no image in it"):
        list(of_folder(tmp_path, (8, 8), "crop", 100))
