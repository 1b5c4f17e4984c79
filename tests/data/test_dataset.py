import re

import numpy as np
import pytest
import torch

from vitlocal.data.dataset import BatchDataset, Images, Splits
from vitlocal.errors import InputError


def random_images(count=10, channels=3, height=5, width=7, classes=2, seed=0):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, channels, height, width), dtype=np.uint8)
    return Images(pixels, np.arange(count, dtype=np.int64) % classes)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("positions", [None, np.array([8, 1, 5, 3])])
def test_batch_is_what_a_loop_collects(tmp_path, mapped, positions):
    images = random_images()
    if mapped:
        np.save(tmp_path / "images.npy", images.images)
        images = Images(np.load(tmp_path / "images.npy", mmap_mode="r"), images.labels)
    dataset = BatchDataset(images, positions)
    chosen = [3, 0, 2, 0]
    batch = dataset.__getitems__(chosen)
    for row, index in enumerate(chosen):
        position = index if positions is None else int(positions[index])
        assert batch["index"][row] == position
        assert batch["label"][row] == position % 2
        assert batch["image"][row].tolist() == images.images[position].tolist()
    assert len(dataset) == (10 if positions is None else 4)
    assert (batch["image"].dtype, batch["label"].dtype, batch["index"].dtype) == (
        torch.uint8,
        torch.int64,
        torch.int64,
    )
    assert batch["image"].is_contiguous()


def test_a_changed_batch_leaves_the_images_alone():
    images = random_images()
    before = images.images.copy()
    batch = BatchDataset(images).__getitems__([0, 1, 2])
    batch["image"].zero_()
    batch["label"].zero_()
    batch["index"].zero_()
    assert (images.images == before).all()
    assert images.labels.tolist() == [0, 1] * 5
    assert BatchDataset(images).__getitems__([1])["index"].tolist() == [1]


def test_single_image():
    images = random_images()
    sample = BatchDataset(images)[4]
    assert sample["image"].shape == (3, 5, 7)
    assert (sample["label"].item(), sample["index"].item()) == (0, 4)
    with pytest.raises(IndexError):
        BatchDataset(images)[10]


def changed(**fields):
    good = random_images()
    return Images(**({"images": good.images, "labels": good.labels} | fields))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (changed(images=np.zeros((10, 3, 5, 7), dtype=np.float32)), "float32 images of shape (10, 3, 5, 7)"),
        (changed(images=np.zeros((10, 5, 7), dtype=np.uint8)), "of shape (10, 5, 7)"),
        (changed(images=np.zeros((10, 4, 5, 7), dtype=np.uint8)), "1 or 3 channels"),
        (changed(images=np.zeros((0, 3, 5, 7), dtype=np.uint8)), "at least one"),
        (
            changed(images=np.zeros((9, 3, 5, 7), dtype=np.uint8)),
            "holds 9 images but int64 labels of shape (10,)",
        ),
        (changed(images=np.zeros((10, 3, 6, 7), dtype=np.uint8)), "(C, H, W) = (3, 6, 7)"),
        (changed(labels=np.zeros(10, dtype=np.int32)), "int32 labels"),
        (changed(labels=np.full(10, 2)), "labels from 2 to 2: with 2 classes they must lie from 0 to 1"),
        (changed(labels=np.full(10, -1)), "labels from -1 to -1"),
        (changed(names=["a"]), "10 images but 1 names"),
    ],
)
def test_wrong_split_is_refused(bad, message):
    with pytest.raises(InputError, match=re.escape(message)) as error:
        Splits(source="toys", class_names=("a", "b"), train=random_images(), test=bad)
    assert "the test split of toys" in str(error.value)


def test_class_without_training_image_is_refused():
    with pytest.raises(InputError, match=r"class 2 \('c'\) has no training image in toys"):
        Splits(source="toys", class_names=("a", "b", "c"), train=random_images())


def test_only_images_to_predict_may_be_unlabelled():
    unlabelled = changed(labels=np.full(10, -1))
    splits = Splits(source="toys", class_names=("a", "b"), train=random_images(), predict=unlabelled)
    assert splits.predict is unlabelled
    with pytest.raises(InputError, match="labels from -2"):
        Splits(
            source="toys",
            class_names=("a", "b"),
            train=random_images(),
            predict=changed(labels=np.full(10, -2)),
        )
