"""What is said of files that are not read."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torchvision.datasets.folder import IMG_EXTENSIONS

from vitlocal.data.archive import hidden


def say_what_is_left_out(where: Path, names: Iterable[str], read: Iterable[str], of_class: bool) -> None:
    """Count, in one line, the files that are not read, by their suffixes.

    Args:
        where: they are.
        names: of all files, with ``/`` between folders.
        read: of those that are read.
        of_class: whether images are read in folders of classes only.
    """
    others = Counter(_kind(name) for name in set(names) - set(read))
    if others:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(others.items()))
        rank_zero_info(
            f"vitlocal: left out {others.total()} files of {where}: {kinds}; "
            f"read are {', '.join(IMG_EXTENSIONS)}{' in a folder a class' if of_class else ''}"
        )


def _kind(name: str) -> str:
    if hidden(name):
        return "hidden"
    suffix = PurePosixPath(name).suffix.lower()
    return "outside of a class" if suffix in IMG_EXTENSIONS else suffix or "without a suffix"
