import os
import zipfile

import pytest

from vitlocal.data.archive import Archive
from vitlocal.errors import InputError

FILES = {
    "top/b.JPEG": b"bee",
    "top/a.jpeg": b"ay",
    "top/._a.jpeg": b"mac",
    "top/sub/c.jpeg": b"see",
    "words.txt": b"w",
}


@pytest.fixture
def folder(tmp_path):
    for name, content in FILES.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "folder"


@pytest.fixture
def archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "archive.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("top/", b"")
        for name, content in FILES.items():
            file.writestr(name, content)
    return tmp_path / "archive.zip"


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_folder_and_zip_are_read_alike(kind, request):
    with Archive(request.getfixturevalue(kind)) as archive:
        assert archive.names == sorted(FILES)
        assert archive.images("top/", (".jpeg",)) == ["top/a.jpeg", "top/b.JPEG", "top/sub/c.jpeg"]
        assert {name: archive.read(name) for name in archive.names} == FILES
        with pytest.raises(InputError, match=r"missing\.jpeg"):
            archive.read("missing.jpeg")


def test_folder_fingerprint_follows_every_file(folder):
    prints = [Archive(folder).fingerprint]
    assert Archive(folder).fingerprint == prints[0]
    (folder / "top/b.JPEG").write_bytes(b"longer")
    prints.append(Archive(folder).fingerprint)
    os.utime(folder / "top/b.JPEG", ns=(0, 0))
    prints.append(Archive(folder).fingerprint)
    (folder / "new").touch()
    prints.append(Archive(folder).fingerprint)
    (folder / "new").rename(folder / "renamed")
    prints.append(Archive(folder).fingerprint)
    assert len(set(prints)) == 5


def test_zip_fingerprint_follows_size_and_time(archive):
    first = Archive(archive).fingerprint
    os.utime(archive, ns=(0, 0))
    assert Archive(archive).fingerprint != first


def test_what_cannot_be_read_is_named(tmp_path, archive, folder):
    with pytest.raises(InputError, match=r"there is no .*nothing\.zip"):
        Archive(tmp_path / "nothing.zip")
    content = archive.read_bytes()
    (tmp_path / "cut.zip").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"cut\.zip can't be read as a folder or a zip archive"):
        Archive(tmp_path / "cut.zip")
    (folder / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="dangling"):
        Archive(folder)


def test_damaged_member_is_named(tmp_path):
    path = tmp_path / "damaged.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("good", b"good")
        file.writestr("bad", b"content")
    path.write_bytes(path.read_bytes().replace(b"content", b"CONTENT"))
    with Archive(path) as archive:
        assert archive.read("good") == b"good"
        with pytest.raises(InputError, match=r"bad in .*damaged\.zip can't be read"):
            archive.read("bad")


@pytest.mark.parametrize(
    "name",
    [
        *("../evil", "a/../../evil", "a/..", "..", "/evil", "//evil"),
        *("..\\evil", "a\\..\\..\\evil", "\\evil", "C:/evil", "C:evil"),
    ],
)
def test_members_that_point_outside_are_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as file:
        file.writestr("good", b"good")
        file.writestr(name, b"evil")
    with pytest.raises(InputError) as error:
        Archive(tmp_path / "evil.zip")
    assert f"a member {name!r}, which points outside of it" in str(error.value)


@pytest.mark.parametrize("name", ["..a", "a..", "a/..b/c", "a...b/c", ".hidden/x", "ab:c", "a b/c"])
def test_names_with_dots_are_names(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "good.zip", "w") as file:
        file.writestr(name, b"good")
    with Archive(tmp_path / "good.zip") as archive:
        assert archive.read(name) == b"good"


def test_encrypted_and_unknown_members_are_named(archive):
    whole = archive.read_bytes()
    entry = whole.rindex(b"PK\x01\x02")  # of words.txt in the central directory
    for offset, value in ((8, 1), (10, 77)):  # the flag of encryption, and a method that does not exist
        content = bytearray(whole)
        content[entry + offset] = value
        content[len(whole[: whole.index(b"words.txt")]) - 30 + offset - 2] = value
        archive.write_bytes(content)
        with Archive(archive) as opened, pytest.raises(InputError, match=r"words\.txt in .* can't be read"):
            opened.read("words.txt")


def test_what_is_no_file_is_left_out(folder):
    os.mkfifo(folder / "pipe.jpeg")
    assert "pipe.jpeg" not in Archive(folder).names


def test_names_that_are_not_utf8(folder):
    (folder / os.fsdecode(b"\xff.jpeg")).touch()
    with pytest.raises(InputError, match="whose name is not UTF-8: rename it"):
        Archive(folder)


def test_links_in_a_circle(folder):
    (folder / "top/loop").symlink_to(folder)
    with pytest.raises(InputError, match="Too many levels of symbolic links"):
        Archive(folder)


def test_huge_files_are_not_read(folder):
    with (folder / "huge").open("wb") as file:
        file.truncate(2**40)  # takes no room
    with Archive(folder) as archive, pytest.raises(InputError, match=f"huge in .* has {2**40} bytes"):
        archive.read("huge")
