"""Several labels an image, as in ChestMNIST."""

import numpy as np
import pytest

from vitlocal.data import NPZ
from vitlocal.data.split import multilabel_split
from vitlocal.errors import InputError


def drawn(count, shares, seed=0):
    return (np.random.default_rng(seed).random((count, len(shares))) < shares).astype(np.uint8)


def arrays(**changes):
    rng = np.random.default_rng(1)
    made = {}
    for seed, (split, count) in enumerate((("train", 20), ("val", 9), ("test", 8))):
        made[f"{split}_images"] = rng.integers(0, 256, (count, 6, 5), dtype=np.uint8)
        made[f"{split}_labels"] = drawn(count, [0.5, 0.4, 0.3], seed)
    return made | changes


def saved(tmp_path, **changes):
    np.savez(tmp_path / "chest.npz", **arrays(**changes))
    return str(tmp_path / "chest.npz")


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool])
def test_labels_come_as_they_are(tmp_path, dtype):
    given = arrays()
    data = NPZ(saved(tmp_path, train_labels=given["train_labels"].astype(dtype)), batch_size=50)
    data.setup()
    assert data.multilabel and (data.num_classes, data.class_names) == (3, ("0", "1", "2"))
    assert (data.train_labels == given["train_labels"]).all() and data.train_labels.dtype == np.int64
    (batch,) = data.val_dataloader()
    assert batch["label"].tolist() == given["val_labels"].tolist()
    padded = data.val_dataloader().dataset.__getitems__([2, -1])
    assert padded["label"].tolist() == [given["val_labels"][2].tolist(), [-1, -1, -1]]
    assert padded["index"].tolist() == [2, -1]


def test_one_label_an_image_is_another_kind(tmp_path):
    one = {f"{split}_labels": arrays()[f"{split}_labels"][:, :1] for split in ("train", "val", "test")}
    data = NPZ(saved(tmp_path, **one))
    data.setup()
    assert not data.multilabel and data.num_classes == 2


LACKING = arrays()["val_labels"] * np.uint8([1, 0, 1])


@pytest.mark.parametrize(
    ("changes", "options", "says"),
    [
        ({"train_labels": drawn(20, [0.5] * 3) * 2}, {}, "from 0 to 2: with 3 labels an image each must lie"),
        ({"val_labels": drawn(9, [0.5] * 3).astype(int) - 1}, {}, "val split .* from -1 to 0: with 3 labels"),
        ({"train_labels": drawn(20, [0.5] * 3).astype(float)}, {}, "is float64 .* K labels an image"),
        ({"val_labels": drawn(9, [0.5] * 2)}, {}, r"int64 labels of shape \(9, 2\): give 3 integers, one a"),
        ({"val_labels": np.arange(9) % 3}, {}, r"int64 labels of shape \(9,\): give 3 integers, one a class"),
        ({"train_labels": np.arange(20) % 3}, {}, r"labels of shape \(9, 3\): give one integer label"),
        ({"class_names": np.array(["a", "b"])}, {}, r"shape \(20, 3\): give 2 integers, one a class"),
        ({"class_names": np.array(["a", "b", "c"]), "val_labels": LACKING}, {}, "no image of the val .* 'b'"),
        ({"val_labels": LACKING | np.uint8([0, 1, 0])}, {}, "every image of the val split .* label '1'"),
        ({"train_labels": arrays()["train_labels"] * np.uint8([1, 1, 0])}, {}, "no image of the train split"),
        ({"test_labels": np.zeros((8, 3), np.uint8)}, {}, None),  # tested by themselves
        (
            {"train_labels": np.eye(3, dtype=int)[[0] * 18 + [1, 2]]},
            {"val_fraction": 0.1},
            "fraction=0.1 has",
        ),
        ({}, {"balanced": True}, "data.balanced draws every class equally .* several labels each"),
    ],
)
def test_wrong_labels_are_explained(tmp_path, changes, options, says):
    data = NPZ(saved(tmp_path, **changes), **options)
    if says is None:
        data.setup()
        with pytest.raises(InputError, match=r"no image of the test split .* '0'"):
            data.test_dataloader()
        return
    with pytest.raises(InputError, match=says):
        data.setup()


@pytest.mark.parametrize("fraction", [0.1, 0.3])
def test_every_label_is_divided_in_proportion(fraction):
    labels = drawn(400, [0.6, 0.3, 0.1, 0.03])
    kept, held_out = multilabel_split(labels, fraction, 0)
    assert sorted([*kept, *held_out]) == list(range(400))
    assert (np.diff(kept) > 0).all() and (np.diff(held_out) > 0).all()
    assert abs(len(held_out) - 400 * fraction) <= 2
    off = np.abs(labels[held_out].sum(0) - fraction * labels.sum(0))
    assert (off <= 2).all()
    # At random, without regard to labels, they are divided worse.
    random = [np.random.default_rng(seed).permutation(400)[: len(held_out)] for seed in range(20)]
    assert off.sum() < min(np.abs(labels[r].sum(0) - fraction * labels.sum(0)).sum() for r in random)


def test_the_seed_chooses():
    labels = drawn(100, [0.5, 0.2])
    first, again, other = (multilabel_split(labels, 0.2, seed)[1].tolist() for seed in (3, 3, 4))
    assert first == again != other


def test_a_part_of_the_training_images_validates(tmp_path):
    data = NPZ(saved(tmp_path), val_fraction=0.25)
    data.setup()
    assert len(data.val_dataloader().dataset) + len(data.train_labels) == 20
    assert data.train_labels.any(0).all() and data.val_dataloader().dataset.labels.any(0).all()
