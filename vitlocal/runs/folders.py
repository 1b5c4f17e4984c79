"""Where runs go: ``lightning_logs/<data>-<protocol>/version_N``."""

from contextlib import suppress
from pathlib import Path


def folder(root: str | Path | None, data: str, protocol: str) -> Path:
    """The folder of all runs of a data set under a protocol; ``root`` is the trainer's root folder."""
    return Path(root or ".") / "lightning_logs" / f"{data}-{protocol}"


def versions(runs: Path) -> list[Path]:
    """The run folders in ``runs``, oldest first."""
    found = [path for path in runs.glob("version_*") if path.name.removeprefix("version_").isdecimal()]
    return sorted(found, key=number)


def number(version: Path) -> int:
    """N of a run folder ``version_N``."""
    return int(version.name.removeprefix("version_"))


def next_version(runs: Path) -> int:
    """N of the folder ``version_N`` that the next run in ``runs`` gets."""
    old = versions(runs)
    return number(old[-1]) + 1 if old else 0


def remove_unbegun(version: Path) -> None:
    """Remove the folder of a run that never began, and what TensorBoard's logger has put into it."""
    files = list(version.glob("*"))
    if not files or not all(file.name.startswith(("events.out.tfevents.", "hparams.yaml")) for file in files):
        return
    for file in files:
        file.unlink()
    with suppress(OSError):  # another run is in it
        for folder in (version, version.parent, version.parent.parent):
            folder.rmdir()
