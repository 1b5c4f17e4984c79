"""What is said of files that are not read."""

from collections import Counter
from collections.abc import Collection
from pathlib import PurePosixPath

from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torchvision.datasets.folder import IMG_EXTENSIONS

from vitlocal.data.archive import Archive, hidden


def say_what_is_left_out(archive: Archive, read: Collection[str], folders: tuple[str, ...] = ("",)) -> None:
    """Count, in one line, the files of some folders that are not read, by their suffixes.

    Args:
        archive: where the files are.
        read: the names of those that are read.
        folders: where others are counted, each with its slash at the end; everywhere if left out.
    """
    names = set(archive.names) - set(read)
    others = Counter(_kind(name) for name in names if name.startswith(folders))
    if others:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(others.items()))
        of_class = " in a folder a class" if "" not in folders else ""
        rank_zero_info(
            f"vitlocal: left out {others.total()} files of {archive.path}: {kinds}; "
            f"read are {', '.join(IMG_EXTENSIONS)}{of_class}"
        )


def _kind(name: str) -> str:
    if hidden(name):
        return "hidden"
    suffix = PurePosixPath(name).suffix.lower()
    return "outside of a class" if suffix in IMG_EXTENSIONS else suffix or "without a suffix"
