"""Which files are images, and what is said of the others."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torchvision.datasets.folder import IMG_EXTENSIONS

from vitlocal.data.archive import hidden
from vitlocal.errors import InputError


def image_files(folder: Path) -> list[str]:
    """The image files in a folder and the folders below, sorted; others are counted in one line.

    Args:
        folder: where they are.

    Returns:
        Their paths in the folder, with ``/`` between folders.

    Raises:
        InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"images {folder}: there is no such folder: give one with image files")
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    files = [name for name in names if name.lower().endswith(IMG_EXTENSIONS) and not hidden(name)]
    say_what_is_left_out(folder, names, files, of_class=False)
    return files


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
        total = others.total()
        rank_zero_info(
            f"vitlocal: left out {total} file{'s' * (total > 1)} of {where}: {kinds}; "
            f"read are {', '.join(IMG_EXTENSIONS)}{' in a folder a class' if of_class else ''}"
        )


def _kind(name: str) -> str:
    if hidden(name):
        return "hidden"
    suffix = PurePosixPath(name).suffix.lower()
    return "outside of a class" if suffix in IMG_EXTENSIONS else suffix or "without a suffix"
