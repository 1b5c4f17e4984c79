"""A folder or a zip archive, read alike."""

import hashlib
import os
import zipfile
import zlib
from pathlib import Path
from types import TracebackType

from vitlocal.errors import InputError


class Archive:
    """The files below a folder or in a zip archive; use it in a ``with`` statement.

    Args:
        path: the folder or the archive.

    Attributes:
        names: paths of the files in it, ``/`` between folders, sorted.
        fingerprint: changes when the archive, or any file of the folder, is changed.

    Raises:
        InputError: there is nothing at ``path``, or a file that is no whole zip archive.
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
        except (OSError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{path} can't be read as a folder or a zip archive ({error}): download or copy it again"
            ) from error
        self.names = sorted(name for name in self._zip.namelist() if not name.endswith("/"))
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
            Names, without those of hidden files, such as macOS's ``._`` companions of images.
        """
        return [
            name
            for name in self.names
            if name.startswith(folder)
            and name.lower().endswith(suffixes)
            and not name.rpartition("/")[2].startswith(".")
        ]

    def read(self, name: str) -> bytes:
        """The content of one of the files.

        Raises:
            InputError: it is not there, or damaged.
        """
        try:
            return (self.path / name).read_bytes() if self._zip is None else self._zip.read(name)
        except KeyError as error:
            raise InputError(f"{self.path} holds no {name}: get the data set again") from error
        # RuntimeError: an encrypted member or an unknown compression.
        except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(
                f"{name} in {self.path} can't be read ({error}): get the data set again"
            ) from error


def _scan(folder: Path) -> tuple[list[str], str]:
    names = sorted(
        (Path(parent) / name).relative_to(folder).as_posix()
        for parent, _, files in os.walk(folder, followlinks=True)
        for name in files
    )
    digest = hashlib.sha256()
    for name in names:
        status = (folder / name).stat()
        digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return names, digest.hexdigest()
