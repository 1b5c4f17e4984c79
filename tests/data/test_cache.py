import io

import numpy as np
import pytest
from PIL import Image

from vitlocal.data.archive import Archive
from vitlocal.data.cache import Listing, decode, decoded_images, statistics_file
from vitlocal.errors import InputError


def encode(image, kind="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


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


def decoded(folder, size=8, listing=LISTING):
    with Archive(folder) as archive:
        return decoded_images(archive, listing, "train", size)


@pytest.mark.parametrize(("width", "height"), [(31, 20), (20, 31), (64, 64), (7, 9)])
def test_shorter_side_is_resized_and_the_centre_cut_out(width, height):
    image = noise(width, height)
    short = min(width, height)
    whole = image.resize((16 * width // short, 16 * height // short), Image.Resampling.BILINEAR)
    left, top = round((whole.width - 16) / 2), round((whole.height - 16) / 2)
    expected = np.asarray(whole.crop((left, top, left + 16, top + 16))).transpose(2, 0, 1)
    assert (decode(encode(image), 16, "x") == expected).all()


def test_fitting_image_keeps_its_pixels():
    image = noise(16, 16)
    assert (decode(encode(image), 16, "x").transpose(1, 2, 0) == np.asarray(image)).all()


def test_grey_and_palette_images_become_rgb():
    grey = noise(8, 8, mode="L")
    assert (decode(encode(grey), 8, "x") == np.asarray(grey)[None].repeat(3, axis=0)).all()
    palette = noise(8, 8).quantize(4)
    expected = np.asarray(palette.convert("RGB")).transpose(2, 0, 1)
    assert (decode(encode(palette), 8, "x") == expected).all()


def test_undecodable_images_are_named():
    deep = Image.fromarray(np.full((8, 8), 40000, dtype=np.uint16))
    with pytest.raises(InputError, match=r"deep\.png has more than 8 bits"):
        decode(encode(deep), 8, "deep.png")
    jpeg = encode(noise(64, 64), "JPEG")
    for content in (jpeg[: len(jpeg) // 2], b"", b"no image"):
        with pytest.raises(InputError, match=r"^bad\.jpg can't be decoded \([^<>]*\): replace or remove it$"):
            decode(content, 8, "bad.jpg")


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


def test_sizes_and_listings_do_not_meet(folder):
    with Archive(folder) as archive:
        files = {
            statistics_file(archive, listing, size)
            for listing in (LISTING, Listing(["0.png"], [0]))
            for size in (8, 4)
        }
    assert len(files) == 4
    assert decoded(folder, size=4).images.shape == (3, 3, 4, 4)
    assert decoded(folder, size=8).images.shape == (3, 3, 8, 8)
    assert len(kept(folder)) == 2


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
