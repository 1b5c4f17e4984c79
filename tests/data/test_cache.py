import numpy as np
import pytest
from PIL import Image

from vitlocal.data import cache as caches
from vitlocal.data.archive import Archive
from vitlocal.data.cache import Listing, decoded_images, statistics_file
from vitlocal.errors import InputError


def noise(width, height, seed=0, mode="RGB"):
    shape = (height, width, len(mode)) if len(mode) > 1 else (height, width)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for index in range(3):
        noise(8, 8, seed=index).save(folder / f"{index}.png")
    return folder


def kept(folder):
    """What the cache of ``folder`` holds, but for its lock files."""
    return [file for file in folder.with_name("set.vitlocal").iterdir() if file.suffix != ".lock"]


LISTING = Listing(["0.png", "1.png", "2.png"], [0, 1, -1])


def decoded(folder, size=(8, 8), resize="crop", listing=LISTING):
    with Archive(folder) as archive:
        return decoded_images(archive, listing, "train", size, resize)


def test_images_are_mapped_from_the_cache(folder):
    images = decoded(folder)
    assert isinstance(images.images, np.memmap)
    assert images.labels.tolist() == [0, 1, -1]
    assert images.names == LISTING.files
    for row, name in enumerate(LISTING.files):
        with Image.open(folder / name) as image:
            assert (images.images[row].transpose(1, 2, 0) == np.asarray(image)).all()


def test_decoded_once(folder):
    decoded(folder)
    (cache,) = kept(folder)
    marked = np.load(cache)
    marked[0] = 77
    np.save(cache, marked)
    assert (decoded(folder).images[0] == 77).all()


def test_a_changed_source_is_decoded_anew(folder):
    old = decoded(folder).images.copy()
    noise(8, 8, seed=9).save(folder / "1.png")
    new = decoded(folder).images
    assert (new[[0, 2]] == old[[0, 2]]).all()
    assert (new[1] != old[1]).any()
    assert len(kept(folder)) == 1


def test_sizes_ways_and_listings_do_not_meet(folder):
    shapes = [((8, 8), "crop"), ((8, 4), "crop"), ((4, 8), "crop"), ((8, 8), "pad"), ((8, 8), "squash")]
    with Archive(folder) as archive:
        files = {
            statistics_file(archive, listing, size, resize)
            for listing in (LISTING, Listing(["0.png"], [0]))
            for size, resize in shapes
        }
    assert len(files) == 10
    for size, resize in shapes:
        assert decoded(folder, size, resize).images.shape == (3, 3, *size)
    assert len(kept(folder)) == 5


def test_what_was_decoded_in_another_way_is_not_used_again(folder, monkeypatch):
    with monkeypatch.context() as before:
        before.setattr(caches, "DECODING", "as the last release did")
        old = decoded(folder).images.copy()
        (cache,) = kept(folder)
    np.save(cache, np.zeros_like(old))
    assert (decoded(folder).images == old).all()
    assert len(kept(folder)) == 1 and kept(folder) != [cache]


def test_failed_decoding_leaves_no_cache(folder):
    (folder / "2.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"2\.png in .*set can't be decoded"):
        decoded(folder)
    assert kept(folder) == []


def test_damaged_cache_is_named(folder):
    decoded(folder)
    (cache,) = kept(folder)
    cache.write_bytes(cache.read_bytes()[:150])
    with pytest.raises(InputError, match=r"train-8px-.*\.npy can't be read .*: delete it"):
        decoded(folder)
    np.save(cache, np.zeros(3))
    with pytest.raises(InputError, match="is not the cache it should be: delete it"):
        decoded(folder)


def test_where_nothing_can_be_written_memory_is_used(folder):
    expected = decoded(folder).images.copy()
    for file in folder.with_name("set.vitlocal").iterdir():
        file.unlink()
    folder.with_name("set.vitlocal").rmdir()
    folder.with_name("set.vitlocal").write_text("in the way")
    with pytest.warns(UserWarning, match="could not be kept"):
        images = decoded(folder)
    assert not isinstance(images.images, np.memmap)
    assert (images.images == expected).all()


def test_what_can_neither_be_kept_nor_fits_is_refused(folder, monkeypatch):
    folder.with_name("set.vitlocal").write_text("in the way")
    monkeypatch.setattr(caches, "memory_limit", lambda: 3 * 3 * 8 * 8 - 1)
    with pytest.raises(InputError, match=r"can't be kept in .* 576 bytes don't fit into the memory"):
        decoded(folder)


def test_what_a_killed_process_left_is_removed(folder):
    cache = folder.with_name("set.vitlocal")
    cache.mkdir()
    (cache / ".train-8px-0123456789abcdef.4711.tmp.npy").write_bytes(b"half")
    (cache / ".train-16px-0123456789abcdef.4711.tmp.npy").write_bytes(b"another size: another process's")
    decoded(folder)
    assert sorted(file.name.split("-")[1] for file in kept(folder)) == ["16px", "8px"]
    assert len([file for file in kept(folder) if file.name.startswith("train-8px-")]) == 1


@pytest.mark.parametrize("header", [b"", b"\x93NUMPY\x01\x00\xff\xff{", b"\x93NUMPY\x09\x00v\x00"])
def test_any_damage_to_the_cache_is_named(folder, header):
    decoded(folder)
    (cache,) = kept(folder)
    cache.write_bytes(header + cache.read_bytes()[len(header) :] if header else b"")
    with pytest.raises(InputError, match=r"\.npy can't be read .*: delete it"):
        decoded(folder)
