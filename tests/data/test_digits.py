from importlib.resources import files

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import cdist
from sklearn.datasets import load_digits

from vitlocal.data import Digits


@pytest.fixture(scope="module")
def data():
    data = Digits()
    data.prepare_data()
    return data


def test_shipped_file_is_scikit_learns():
    with np.load(files("vitlocal.data").joinpath("digits.npz")) as arrays:
        assert set(arrays) == {"images", "labels"}
        assert arrays["images"].dtype == arrays["labels"].dtype == np.uint8
        reference = load_digits()
        assert np.array_equal(arrays["images"], reference.images)
        assert np.array_equal(arrays["labels"], reference.target)


def test_facts(data):
    assert (data.name, data.num_classes, data.class_names) == ("digits", 10, tuple("0123456789"))
    assert (data.image_size, data.in_channels) == ((32, 32), 1)
    images = data.load().train.images / 255
    assert data.mean == pytest.approx([images.mean()])
    assert data.std == pytest.approx([images.std()])
    assert data.photometric["init_args"] == {"policy": "cifar10"}


def test_every_digit_is_resized_and_in_one_split(data):
    """Against Pillow's resize of scikit-learn's images, within rounding."""
    reference = load_digits()
    scaled = [Image.fromarray((image * 255 / 16).astype(np.float32)) for image in reference.images]
    resized = np.stack([np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR)) for image in scaled])
    splits = data.load()
    assert (len(splits.train), len(splits.test)) == (1437, 360)
    for digit in range(10):
        theirs = resized[reference.target == digit].reshape(-1, 32 * 32)
        test, train = (part.images[part.labels == digit] for part in (splits.test, splits.train))
        assert abs(len(test) - len(theirs) / 5) < 1
        distance = cdist(np.concatenate([test, train]).reshape(-1, 32 * 32), theirs, "chebyshev")
        assert distance.min(axis=1).max() <= 0.501
        assert sorted(distance.argmin(axis=1)) == list(range(len(theirs)))


def test_always_the_same_split(data):
    again = Digits(split_seed=7).load()
    assert (again.test.images == data.load().test.images).all()
