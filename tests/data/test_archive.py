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
