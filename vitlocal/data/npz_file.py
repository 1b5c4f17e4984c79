"""Reading ``.npz`` files: arrays that are stored as they are get mapped, compressed ones are unpacked."""

import math
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vitlocal.data.memory import memory_limit
from vitlocal.errors import InputError

LENGTHS = struct.Struct("<26xHH")
"""Of a member's local header: the bytes of its name and of what comes between that and the content."""

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
CHUNK = 2**26
"""Bytes that are compared with a checksum at once."""


class NpzFile:
    """The arrays of a ``.npz`` file; use it in a ``with`` statement.

    Args:
        path: the file.

    Attributes:
        names: of the arrays.

    Raises:
        InputError: there is no such file, or it is no whole ``.npz`` file.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise InputError(f"there is no file {path}: give the path of a .npz file")
        self.path = path
        try:
            with path.open("rb") as file:
                if file.read(6) == np.lib.format.MAGIC_PREFIX:
                    raise InputError(f"{path} holds a single array: give a .npz file with train_images")
            self._zip = zipfile.ZipFile(path)
        except InputError:
            raise
        # Damage raises many kinds of errors in zipfile.
        except Exception as error:
            raise self._damaged(error) from error
        self._members = {
            member.filename.removesuffix(".npy"): member
            for member in self._zip.infolist()
            if member.filename.endswith(".npy")
        }
        self.names = sorted(self._members)

    def __enter__(self) -> "NpzFile":
        """Nothing to do: the file is open."""
        return self

    def __exit__(self, *of_error: object) -> None:
        """Close the file; what is mapped stays."""
        self._zip.close()

    def read(self, names: Sequence[str], verify: bool) -> dict[str, np.ndarray]:
        """Some of the arrays, mapped where they are stored uncompressed.

        Args:
            names: which; those that the file doesn't have are left out.
            verify: compare what is mapped with its checksum, which reads all of it.

        Raises:
            InputError: an array is damaged, or those to unpack don't fit into the memory.
        """
        members = {name: self._members[name] for name in names if name in self._members}
        mapped = {name: self._map(member, verify) for name, member in members.items()}
        self._check_size([members[name] for name, array in mapped.items() if array is None])
        return {
            name: self._unpack(members[name]) if array is None else array for name, array in mapped.items()
        }

    def _map(self, member: zipfile.ZipInfo, verify: bool) -> np.ndarray | None:
        """None if the member isn't an array that lies in the file as it is."""
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:  # which says encrypted
            return None
        try:
            with self.path.open("rb") as file:
                file.seek(member.header_offset)
                start = member.header_offset + LENGTHS.size + sum(LENGTHS.unpack(file.read(LENGTHS.size)))
                file.seek(start)
                shape, fortran, dtype = HEADERS[np.lib.format.read_magic(file)](file)
                offset = file.tell()
            if dtype.hasobject or offset + math.prod(shape) * dtype.itemsize != start + member.file_size:
                return None
            content = np.memmap(self.path, np.uint8, "r", start, member.file_size)
            array = np.memmap(self.path, dtype, "r", offset, shape, "F" if fortran else "C")
        except Exception:  # of many kinds, if it is damaged: unpacking says in which way
            return None
        if verify and _checksum(content) != member.CRC:
            raise self._damaged(zipfile.BadZipFile(f"Bad CRC-32 for file {member.filename!r}"))
        return array

    def _unpack(self, member: zipfile.ZipInfo) -> np.ndarray:
        try:
            with self._zip.open(member) as file:
                # Never pickled objects: they could run code.
                return np.lib.format.read_array(file, allow_pickle=False)
        # Damage raises many kinds of errors in zipfile and in NumPy's reader.
        except Exception as error:
            raise self._damaged(error) from error

    def _check_size(self, members: Sequence[zipfile.ZipInfo]) -> None:
        """Refuse what claims more than there is memory, before anything is unpacked."""
        size, limit = sum(member.file_size for member in members), memory_limit()
        if size > limit:
            raise InputError(
                f"{self.path} unpacks to {size} bytes, more than the {limit} of memory: write it with "
                "numpy.savez, uncompressed, to be mapped as it is, or give a smaller set"
            )

    def _damaged(self, error: Exception) -> InputError:
        return InputError(f"{self.path} can't be read ({error}): give a whole .npz file of plain arrays")


def _checksum(content: np.ndarray) -> int:
    checksum = 0
    for start in range(0, len(content), CHUNK):
        checksum = zlib.crc32(content[start : start + CHUNK].data, checksum)
    return checksum
