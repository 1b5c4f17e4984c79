import io
import re
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from vitlocal.data import NPZ, BatchDataset, npz, npz_file
from vitlocal.errors import InputError


def arrays(channels=None, size=(6, 5), labels=2, **changes):
    rng = np.random.default_rng(0)
    made = {}
    for split, count in (("train", 12), ("val", 6), ("test", 9)):
        shape = (count, *size) if channels is None else (count, *size, channels)
        made[f"{split}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
        values = (np.arange(count) % 3).astype(np.uint8)
        made[f"{split}_labels"] = values[:, None] if labels == 2 else values
    made |= changes
    return {name: array for name, array in made.items() if array is not None}


def saved(tmp_path, **options):
    path = tmp_path / "bloodmnist.npz"
    np.savez(path, **arrays(**options))
    return str(path)


@pytest.mark.parametrize("channels", [None, 1, 3])
@pytest.mark.parametrize("labels", [1, 2])
def test_medmnist_layout(tmp_path, channels, labels):
    given = arrays(channels, labels=labels)
    data = NPZ(saved(tmp_path, channels=channels, labels=labels), batch_size=50)
    assert data.name == "bloodmnist"
    data.prepare_data()
    assert (data.num_classes, data.class_names) == (3, ("0", "1", "2"))
    assert (data.image_size, data.in_channels) == ((6, 5), channels or 1)
    unit = given["train_images"].reshape(-1, channels or 1) / 255
    assert data.mean == pytest.approx(unit.mean(axis=0))
    assert data.std == pytest.approx(unit.std(axis=0))
    for split, loader in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        (batch,) = loader
        assert batch["label"].tolist() == given[f"{split}_labels"].ravel().tolist()
        for ours, theirs in zip(batch["image"].numpy(), given[f"{split}_images"], strict=True):
            for channel in range(channels or 1):
                assert (ours[channel] == (theirs if channels is None else theirs[..., channel])).all()


def test_optional_parts(tmp_path):
    names = np.array(["red", "green", "blue", "never"])
    train_only = {f"{split}_{kind}": None for split in ("val", "test") for kind in ("images", "labels")}
    data = NPZ(saved(tmp_path, **train_only, class_names=names[:3]), val_fraction=0.25)
    data.setup()
    assert data.class_names == ("red", "green", "blue")
    assert len(data.val_dataloader().dataset) == 3
    with pytest.raises(InputError, match="no images to test"):
        data.test_dataloader()
    data = NPZ(saved(tmp_path, class_names=names[:3].astype("S"), val_images=None, val_labels=None))
    data.setup()
    assert data.class_names == ("red", "green", "blue")
    assert len(data.val_dataloader().dataset) == 9


def test_mean_follows_the_file(tmp_path):
    path = saved(tmp_path)
    first = NPZ(path)
    first.prepare_data()
    (cache,) = Path(f"{path}.vitlocal").iterdir()
    kept = cache.read_text()
    same = NPZ(path)
    same.setup()
    assert (same.mean, same.std) == (first.mean, first.std)
    assert cache.read_text() == kept
    dark = np.random.default_rng(1).integers(0, 9, (24, 6, 5), dtype=np.uint8)
    other = NPZ(saved(tmp_path, train_images=dark, train_labels=np.arange(24) % 3))
    other.setup()
    assert other.mean == pytest.approx([dark.mean() / 255])
    assert len(list(Path(f"{path}.vitlocal").iterdir())) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": None}, "has no array 'train_images', only test_images, test_labels"),
        ({"val_labels": None}, "has no array 'val_labels'"),
        ({"train_images": np.zeros((12, 6, 5))}, "'train_images' in .* is float64 of shape (12, 6, 5)"),
        ({"train_images": np.zeros((12, 6, 5, 4), np.uint8)}, "give uint8 (N, H, W) or (N, H, W, C)"),
        ({"train_images": np.zeros((12, 9, 6, 5, 3), np.uint8)}, "of shape (12, 9, 6, 5, 3)"),
        ({"train_images": np.array([None] * 12)}, "can't be read"),
        ({"train_labels": np.zeros((12, 14), np.uint8)}, "of shape (6,): give 14 integers, one a class"),
        ({"train_labels": np.zeros(12)}, "'train_labels' in .* is float64"),
        ({"train_labels": np.array(0)}, "is int64 of shape ()"),
        ({"train_labels": np.arange(11) % 3}, "holds 12 images but int64 labels of shape (11,)"),
        ({"train_labels": np.arange(12) % 3 - 1}, "labels from -1 to 1"),
        ({"train_labels": np.arange(12) % 3 + 1}, "class 0 ('0') has no training image"),
        ({"train_labels": np.full(12, 2**40)}, f"has label {2**40} but only 12 training images"),
        ({"test_labels": np.full(9, 3)}, "class 3 ('3') has no training image"),
        ({"test_images": np.zeros((9, 7, 5), np.uint8)}, "give all splits one shape"),
        ({"class_names": np.array(["a", "b"])}, "with 2 classes they must lie from 0 to 1"),
        ({"class_names": np.arange(3)}, "'class_names' in .* is int64"),
        ({"class_names": np.array([b"\xff", b"a", b"b"])}, "is not UTF-8"),
    ],
)
def test_wrong_arrays_are_explained(tmp_path, changes, message):
    pattern = re.escape(message).replace(re.escape(".*"), ".*")
    with pytest.raises(InputError, match=pattern):
        NPZ(saved(tmp_path, **changes)).setup()


def test_wrong_files_are_explained(tmp_path):
    with pytest.raises(InputError, match=r"there is no file .*nothing\.npz"):
        NPZ(str(tmp_path / "nothing.npz")).setup()
    np.save(tmp_path / "single.npy", np.zeros(3))
    with pytest.raises(InputError, match="holds a single array"):
        NPZ(str(tmp_path / "single.npy")).setup()
    whole = Path(saved(tmp_path)).read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"text"):
        (tmp_path / "cut.npz").write_bytes(content)
        with pytest.raises(InputError, match=r"cut\.npz can't be read"):
            NPZ(str(tmp_path / "cut.npz")).setup()


def compressed(path, **options):
    np.savez_compressed(path, **arrays(**options))
    return str(path)


def test_more_than_the_memory_is_not_unpacked(tmp_path, monkeypatch):
    path = compressed(tmp_path / "small.npz")
    size = sum(member.file_size for member in zipfile.ZipFile(path).infolist())
    monkeypatch.setattr(npz_file, "memory_limit", lambda: size)
    NPZ(path).setup()
    monkeypatch.setattr(npz_file, "memory_limit", lambda: size - 1)
    with pytest.raises(InputError, match=f"unpacks to {size} bytes, more than the {size - 1} of memory"):
        NPZ(path).setup()
    # What is stored as it is needs none.
    NPZ(saved(tmp_path)).setup()


@pytest.mark.parametrize("channels", [None, 1, 3])
@pytest.mark.parametrize(("write", "copies"), [(np.savez, 0), (np.savez_compressed, 1)])
def test_at_most_one_copy_of_the_images_is_in_memory(tmp_path, channels, write, copies):
    shape = (2000, 64, 64) if channels is None else (2000, 64, 64, channels)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    labels = np.arange(2000) % 2
    write(tmp_path / "large.npz", train_images=images, train_labels=labels)
    data = NPZ(str(tmp_path / "large.npz"))
    tracemalloc.start()
    splits = data.load()
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Beside it there are the labels, and a chunk that is brought into order.
    room = 0.15 * images.nbytes + 2 * npz.IMAGES_A_CHUNK * images[0].nbytes * (copies and channels == 3)
    assert copies * images.nbytes <= peak <= copies * images.nbytes + room
    assert copies * images.nbytes <= kept <= (copies + 0.1) * images.nbytes
    given = images[:, None] if channels is None else images.transpose(0, 3, 1, 2)
    assert (splits.train.images == given).all()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_batches_of_mapped_and_of_unpacked_images(tmp_path, write, order):
    images = np.asarray(arrays(3)["train_images"], order=order)
    write(tmp_path / "x.npz", **arrays(3, train_images=images))
    dataset = BatchDataset(NPZ(str(tmp_path / "x.npz")).load().train)
    batch = dataset.__getitems__([7, 0, 7])["image"]
    assert batch.is_contiguous() and batch.shape == (3, 3, 6, 5)
    for row, position in zip(batch.numpy(), (7, 0, 7), strict=True):
        assert (row.transpose(1, 2, 0) == images[position]).all()


def test_damage_within_mapped_images_is_found(tmp_path):
    path = Path(saved(tmp_path))
    content, images = path.read_bytes(), arrays()["val_images"].tobytes()
    place = content.index(images[:60])
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(InputError, match=r"bloodmnist\.npz can't be read \(Bad CRC-32 for file 'val_images"):
        NPZ(str(path)).setup()


def test_what_is_no_array_is_no_concern(tmp_path):
    path = saved(tmp_path)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("README.txt", "from somewhere")
        file.writestr("class_names", "no array either")
    data = NPZ(path)
    data.setup()
    assert data.class_names == ("0", "1", "2")


def test_an_array_that_claims_more_than_it_has(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**13, 8, 8)}
    )
    with zipfile.ZipFile(tmp_path / "claims.npz", "w") as file:
        file.writestr("train_images.npy", header.getvalue() + bytes(1000))
    with pytest.raises(InputError, match=r"claims\.npz can't be read"):
        NPZ(str(tmp_path / "claims.npz")).setup()
