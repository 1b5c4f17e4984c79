"""A file of known content, from the first of several sources that gives it."""

import http.client
import time
import urllib.request
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from torchvision.datasets.utils import check_integrity
from tqdm import tqdm  # type: ignore[import-untyped]

from vitlocal.data.lock import locked
from vitlocal.errors import InputError

CHUNK = 2**16
MIN_RATE = 200_000
"""Bytes a second below which a source is left for one not yet tried."""
WORTH_ANOTHER_TURN = 2**20
"""Bytes that a source must have added for being asked again after it broke off."""


@dataclass(frozen=True)
class RemoteFile:
    """A file that is published somewhere.

    Attributes:
        name: what it is called on disk.
        size: its bytes.
        md5: its MD5, in hexadecimal.
        sources: where it is published, in the order to try.
    """

    name: str
    size: int
    md5: str
    sources: tuple[str, ...]

    def by_hand(self, folder: Path) -> str:
        """What a person can do without a download, for messages."""
        return f"put {self.name} with MD5 {self.md5} into {folder} by hand"


class _SourceError(Exception):
    """What a source did wrong; ``again``: ask it once more after the others, without hurry."""

    def __init__(self, message: str, again: bool = False) -> None:
        # Part of it comes from the source: its first line, without what would steer a terminal.
        line = message.strip().partition("\n")[0]
        printable = "".join(letter if letter.isprintable() else " " for letter in line)
        super().__init__(printable[:120].strip())
        self.again = again


def check_sources(sources: Sequence[str] | None, timeout: float) -> None:
    """Check the arguments of :func:`download` that a person gives.

    Raises:
        InputError: a source is no http, https or file URL, or ``timeout`` is not above 0.
    """
    if sources is not None and not sources:
        raise InputError("sources is empty: give at least one URL, or null for the official one")
    for source in sources or ():
        try:
            parts = urlsplit(source)
            known = parts.scheme == "file" or (parts.scheme in ("http", "https") and parts.hostname)
            if not known or (parts.port is not None and parts.port == 0):
                raise ValueError("not a http://, https:// or file:// URL")
        except ValueError as error:
            raise InputError(
                f"sources has '{source}' ({error}): give http://, https:// or file:// URLs of the whole file"
            ) from error
    if not 0 < timeout < 1e6:
        raise InputError(f"timeout={timeout}: give seconds above 0, at most a million")


def download(remote: RemoteFile, folder: Path, sources: Sequence[str] | None, timeout: float) -> Path:
    """Bring a file into a folder, unless it is there.

    The sources are tried in turn. What one of them gave before it broke off stays in ``NAME.part`` and
    is continued from the next one, or by the next run. The file gets its name when its MD5 is right. Of
    several processes one downloads, and the others wait for it.

    A source has failed when it gives no byte for ``timeout`` seconds; when it gives less than
    ``MIN_RATE`` over as long and another is still untried, that one gets its turn first.

    Args:
        remote: which file.
        folder: where to put it; made if need be.
        sources: URLs to try instead of ``remote.sources``.
        timeout: seconds of patience.

    Returns:
        The file's path.

    Raises:
        InputError: no source gives the file, it can't be written, or another file has its name.
    """
    path = folder / remote.name
    if check_integrity(path, remote.md5):
        return path
    try:
        with locked(path, f"download of {remote.name}"):
            if not path.exists():
                part = path.with_name(f"{path.name}.part")
                _from_any(remote, part, sources or remote.sources, timeout)
                part.replace(path)
                return path
            whole = check_integrity(path, remote.md5)
    except OSError as error:
        raise InputError(
            f"{path} can't be written ({error}): make room, or choose another folder; "
            "the next run continues what has come so far"
        ) from error
    if not whole:
        raise InputError(
            f"{path} does not have the MD5 {remote.md5} of the official file: "
            "remove it, and it is downloaded or can be put there again"
        )
    return path


def _from_any(remote: RemoteFile, part: Path, sources: Sequence[str], timeout: float) -> None:
    """Complete ``part``."""
    if _size(part) == remote.size and check_integrity(part, remote.md5):
        return
    turns = deque(dict.fromkeys(sources))
    said: dict[str, str] = {}
    while turns:
        source = turns.popleft()
        hurry = any(other not in said for other in turns)
        before = _size(part)
        try:
            _from_one(source, remote, part, timeout, hurry)
            return
        except _SourceError as error:
            said[source] = str(error)
            if error.again or _size(part) - before >= WORTH_ANOTHER_TURN:
                turns.append(source)
    if _size(part) == 0:
        part.unlink(missing_ok=True)
    answers = "; ".join(f"{source}: {answer}" for source, answer in said.items())
    raise InputError(
        f"{remote.name} can't be downloaded ({answers}): "
        f"{remote.by_hand(part.parent)}, or name other sources by --data.sources"
    )


def _from_one(source: str, remote: RemoteFile, part: Path, timeout: float, hurry: bool) -> None:
    """Complete ``part`` from one source; bytes that turn out wrong are thrown away."""
    start = _size(part)
    if start >= remote.size:  # as long as the file, or longer, but not the file
        start = 0
    first = _transfer(source, remote, part, start, timeout, hurry)
    if check_integrity(part, remote.md5):
        return
    part.unlink()
    if first > 0:  # perhaps what was there before was wrong, and this source is not
        _transfer(source, remote, part, 0, timeout, hurry)
        if check_integrity(part, remote.md5):
            return
        part.unlink()
    raise _SourceError("gave a file with another MD5")


def _transfer(source: str, remote: RemoteFile, part: Path, start: int, timeout: float, hurry: bool) -> int:
    """Put the bytes from ``start`` on into ``part``.

    Returns:
        The first byte that the source gave: ``start``, or 0 where it gave the whole file.
    """
    with _told_as_source_error(timeout):
        response = _open(source, remote, start, timeout)
    with response:
        if response.status != http.client.PARTIAL_CONTENT:  # ignores the range, or is a file:// URL
            start = 0
        _check_length(response, remote.size - start)
        bar = tqdm(total=remote.size, initial=start, desc=remote.name, unit="B", unit_scale=True)
        with bar, part.open("ab" if start else "wb") as file:
            for chunk in _chunks(response, timeout, hurry):
                if file.tell() + len(chunk) > remote.size:
                    file.truncate(0)
                    raise _SourceError(f"gives more than the file's {remote.size} bytes")
                file.write(chunk)
                bar.update(len(chunk))
            if file.tell() < remote.size:
                raise _SourceError(f"broke off after {file.tell()} of {remote.size} bytes")
    return start


def _open(source: str, remote: RemoteFile, start: int, timeout: float) -> Any:
    headers = {"User-Agent": "vitlocal"}
    if start:
        ranged = urllib.request.Request(source, headers=headers | {"Range": f"bytes={start}-"})
        try:
            response = urllib.request.urlopen(ranged, timeout=timeout)
        except HTTPError as error:
            if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise
            error.close()
        else:
            wanted = f"bytes {start}-{remote.size - 1}/{remote.size}"
            if response.status != http.client.PARTIAL_CONTENT or response.headers["Content-Range"] == wanted:
                return response
            response.close()  # another range than asked for
    response = urllib.request.urlopen(urllib.request.Request(source, headers=headers), timeout=timeout)
    if response.status == http.client.PARTIAL_CONTENT:
        response.close()
        raise _SourceError("gives a part when asked for the whole file")
    return response


def _check_length(response: Any, expected: int) -> None:
    length = response.headers["Content-Length"]
    if length is not None and length.strip() != str(expected):
        raise _SourceError(f"announces {length} bytes where {expected} are due")


def _chunks(response: Any, timeout: float, hurry: bool) -> Iterator[bytes]:
    """What arrives, until the source ends."""
    since, arrived = time.monotonic(), 0
    while True:
        with _told_as_source_error(timeout):
            chunk = response.read1(CHUNK)
        if not chunk:
            return
        yield chunk
        arrived += len(chunk)
        waited = time.monotonic() - since
        if waited >= timeout:
            if hurry and arrived / waited < MIN_RATE:
                raise _SourceError(f"gives only {arrived / waited / 1000:.0f} kB/s", again=True)
            since, arrived = time.monotonic(), 0


@contextmanager
def _told_as_source_error(timeout: float) -> Iterator[None]:
    """Turn what urllib raises into what a source did wrong."""
    try:
        yield
    except HTTPError as error:
        error.close()
        raise _SourceError(f"answers {error.code} {error.reason}") from error
    # ValueError: a redirect to what is no URL.
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, TimeoutError):
            raise _SourceError(f"gives no byte for {timeout:g} s") from error
        raise _SourceError(f"{reason}" or type(reason).__name__) from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
