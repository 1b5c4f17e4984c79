"""A folder or a zip archive, read alike; a tar archive, unpacked."""

import hashlib
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from types import TracebackType

from vitlocal.errors import InputError

MAX_FILE = 2**28
"""Bytes of a file that is read whole; what claims more is no image of a data set."""
OUTSIDE = re.compile(r"[/\\]|[A-Za-z]:|(.*[/\\])?\.\.([/\\]|$)", re.DOTALL)
"""Matches names that are absolute, on any system, or go up."""


class Archive:
    """The files below a folder or in a zip archive; use it in a ``with`` statement.

    Args:
        path: the folder or the archive.

    Attributes:
        names: paths of the files in it, ``/`` between folders, sorted.
        fingerprint: changes when the archive, or any file of the folder, is changed.

    Raises:
        InputError: there is nothing at ``path``, or a file that is no whole zip archive, or an archive with
            a member that points outside of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        try:
            if path.is_dir():
                self.names, self.fingerprint = _scan(path)
                return
            status = path.stat()
            self._zip = zipfile.ZipFile(path)
        except FileNotFoundError as error:
            raise InputError(
                f"there is no {error.filename}: put the data set there, or mend the link"
            ) from error
        # Damage raises many kinds of errors in zipfile, not only BadZipFile.
        except (OSError, ValueError, RuntimeError, struct.error, zipfile.BadZipFile) as error:
            raise InputError(
                f"{path} can't be read as a folder or a zip archive ({error}): download or copy it again"
            ) from error
        self.names = sorted({name for name in self._zip.namelist() if not name.endswith("/")})
        for name in self.names:
            if OUTSIDE.match(name):
                self._zip.close()
                raise InputError(f"{path} has a member {name!r}, which points outside of it: don't trust it")
        self.fingerprint = f"{status.st_size} {status.st_mtime_ns}"

    def __enter__(self) -> "Archive":
        """Nothing to do: the archive is open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the archive."""
        if self._zip is not None:
            self._zip.close()

    def images(self, folder: str, suffixes: tuple[str, ...]) -> list[str]:
        """Names of the image files below a folder, in order.

        Args:
            folder: the folder, with its slash at the end.
            suffixes: endings of image files, in lower case.

        Returns:
            Names, without those of hidden files, such as macOS's ``._`` companions of images, or of files in
            hidden folders, such as ``.ipynb_checkpoints``.
        """
        return [
            name
            for name in self.names
            if name.startswith(folder)
            and name.lower().endswith(suffixes)
            and not hidden(name.removeprefix(folder))
        ]

    def read(self, name: str) -> bytes:
        """The content of one of the files.

        Raises:
            InputError: it is not there, damaged, or far too large.
        """
        try:
            size = self._size(name)
            if size <= MAX_FILE:
                return (self.path / name).read_bytes() if self._zip is None else self._zip.read(name)
        except (KeyError, FileNotFoundError) as error:
            raise InputError(f"{self.path} holds no {name}: get the data set again") from error
        # Besides damage: encryption or an unknown compression (RuntimeError), corrupt LZMA or bzip2 data.
        except (
            OSError,
            EOFError,
            ValueError,
            RuntimeError,
            MemoryError,
            struct.error,
            lzma.LZMAError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise InputError(
                f"{name} in {self.path} can't be read ({error}): get the data set again"
            ) from error
        raise InputError(f"{name} in {self.path} has {size} bytes, over {MAX_FILE}: replace or remove it")

    def _size(self, name: str) -> int:
        """Bytes of a file; of a member what it claims, and zipfile unpacks no more than that."""
        return (self.path / name).stat().st_size if self._zip is None else self._zip.getinfo(name).file_size


def hidden(name: str) -> bool:
    """Whether a file's name, or that of a folder on the way to it, begins with a dot."""
    return "/." in f"/{name}"


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the folder that a tar archive holds, whole or not at all.

    Args:
        archive: a tar archive, compressed or not, of files and folders only.
        folder: where its folder of the same name goes; one process at a time.

    Raises:
        InputError: the archive is damaged, holds no such folder or a member that points outside, or
            ``folder`` can't be written.
    """
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # a killed process leaves one
    try:
        with tarfile.open(archive) as file:
            file.extractall(temporary, filter=_inside)
        (temporary / folder.name).rename(folder)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise InputError(
            f"{archive} can't be unpacked to {folder} ({error}): make room there, or get the archive again"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _inside(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    # Stricter than tarfile's own filter, which makes absolute names relative and allows some links.
    if OUTSIDE.match(member.name) or not (member.isfile() or member.isdir()):
        kind = "link or device" if not (member.isfile() or member.isdir()) else "path that points outside"
        raise InputError(f"the archive has a member {member.name!r}, a {kind}: don't trust it")
    return tarfile.data_filter(member, folder)


def _scan(folder: Path) -> tuple[list[str], str]:
    paths = (
        (Path(parent) / name, (Path(parent) / name).stat())
        for parent, _, files in os.walk(folder, onerror=_raise, followlinks=True)
        for name in files
    )
    # A pipe or a device could be read for ever.
    found = sorted(
        (path.relative_to(folder).as_posix(), status)
        for path, status in paths
        if stat.S_ISREG(status.st_mode)
    )
    digest = hashlib.sha256()
    for name, status in found:
        try:
            digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        except UnicodeEncodeError as error:
            raise InputError(f"{folder} has a file {name!r}, whose name is not UTF-8: rename it") from error
    return [name for name, _ in found], digest.hexdigest()


def _raise(error: OSError) -> None:
    raise error
