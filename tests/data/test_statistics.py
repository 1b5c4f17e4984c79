import json

import numpy as np
import pytest

from vitlocal.data import statistics
from vitlocal.data.statistics import cached_statistics, channel_statistics

IMAGES = np.random.default_rng(0).integers(0, 200, (50, 3, 6, 9), dtype=np.uint8)
IMAGES[:, 1] //= 2


@pytest.mark.parametrize("values_a_chunk", [1, 1000, 2**22])
@pytest.mark.parametrize("mapped", [False, True])
def test_equal_numpy_over_everything(tmp_path, monkeypatch, mapped, values_a_chunk):
    monkeypatch.setattr(statistics, "VALUES_A_CHUNK", values_a_chunk)
    images = IMAGES
    if mapped:
        np.save(tmp_path / "images.npy", IMAGES)
        images = np.load(tmp_path / "images.npy", mmap_mode="r")
    mean, std = channel_statistics(images)
    unit = IMAGES.astype(np.float64) / 255
    assert mean == pytest.approx(unit.mean(axis=(0, 2, 3)), rel=1e-12)
    assert std == pytest.approx(unit.std(axis=(0, 2, 3)), rel=1e-12)
    assert all(type(value) is float for value in (*mean, *std))


def test_constant_channel_can_be_divided_by():
    images = IMAGES.copy()
    images[:, 2] = 51
    mean, std = channel_statistics(images)
    assert mean[2] == pytest.approx(0.2)
    assert std[2] == 1.0
    assert std[0] == pytest.approx(images[:, 0].std() / 255)


def test_kept_values_are_used_and_other_keys_are_not(tmp_path):
    path = tmp_path / "cache" / "mean_std-one.json"
    first = cached_statistics(IMAGES, path)
    assert first == channel_statistics(IMAGES)
    path.write_text(json.dumps({"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}))
    assert cached_statistics(IMAGES, path) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    other = tmp_path / "cache" / "mean_std-two.json"
    assert cached_statistics(IMAGES, other) == first
    assert list((tmp_path / "cache").iterdir()) == [other]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[1, 2]",
        "{}",
        "[" * 100_000,
        '{"mean": [0.5], "std": [0.5]}',
        '{"mean": 1, "std": 1}',
        '{"mean": [NaN, 0, 0], "std": [1, 1, 1]}',
        '{"mean": [0, 0, 0], "std": [1, 1, 0]}',
        f'{{"mean": [{10**400}, 0, 0], "std": [1, 1, 1]}}',
    ],
    ids=lambda content: content[:30],
)
def test_damaged_file_is_made_anew(tmp_path, content):
    path = tmp_path / "mean_std-one.json"
    path.write_text(content)
    assert cached_statistics(IMAGES, path) == channel_statistics(IMAGES)
    assert len(json.loads(path.read_text())["mean"]) == 3


def test_where_nothing_can_be_written_they_are_computed(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.warns(UserWarning, match="could not be kept"):
        computed = cached_statistics(IMAGES, tmp_path / "file" / "mean_std-one.json")
    assert computed == channel_statistics(IMAGES)
