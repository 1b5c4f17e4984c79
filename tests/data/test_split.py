import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from vitlocal.data.split import stratified_split
from vitlocal.errors import InputError

LABELS = np.random.default_rng(0).choice(4, size=203, p=[0.1, 0.2, 0.3, 0.4])
NAMES = ("a", "b", "c", "d")


@pytest.mark.parametrize("fraction", [0.07, 0.1, 0.25, 0.5, 0.9])
def test_every_class_gives_its_share(fraction):
    kept, held_out = stratified_split(LABELS, fraction, 0, NAMES)
    assert sorted([*kept, *held_out]) == list(range(len(LABELS)))
    assert (np.diff(kept) > 0).all()
    assert (np.diff(held_out) > 0).all()
    reference = train_test_split(LABELS, test_size=fraction, stratify=LABELS, random_state=0)
    assert (len(kept), len(held_out)) == (len(reference[0]), len(reference[1]))
    for label in range(4):
        share = fraction * np.count_nonzero(label == LABELS)
        assert abs(np.count_nonzero(LABELS[held_out] == label) - share) < 1


def test_shares_that_are_whole_numbers_are_met():
    # 0.07 * 100 is 7.000000000000001
    _, held_out = stratified_split(np.repeat([0, 1], 100), 0.07, 0, ("a", "b"))
    assert np.bincount(held_out // 100).tolist() == [7, 7]


def test_the_seed_chooses_and_nothing_else():
    np.random.seed(0)
    first = stratified_split(LABELS, 0.2, 3, NAMES)[1]
    np.random.seed(1)
    assert (first == stratified_split(LABELS, 0.2, 3, NAMES)[1]).all()
    assert set(first) != set(stratified_split(LABELS, 0.2, 4, NAMES)[1])


@pytest.mark.parametrize(
    ("fraction", "message"),
    [
        (0.05, "without a validation image: choose a larger"),
        (0.95, "without a training image: choose a smaller"),
    ],
)
def test_no_class_is_left_out(fraction, message):
    labels = np.repeat([0, 1], [4, 111])
    with pytest.raises(InputError, match=rf"class 'few' \(4 images\) {message} val_fraction"):
        stratified_split(labels, fraction, 0, ("few", "many"))
