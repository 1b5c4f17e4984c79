"""Where runs go: ``lightning_logs/<data>-<protocol>/version_N``."""

from pathlib import Path

from lightning.pytorch import Trainer

from vitlocal.errors import InputError


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


def newest_checkpoint(runs: Path, which: str) -> Path:
    """The checkpoint ``best`` or ``last`` of the newest run in ``runs`` that has one.

    Raises:
        InputError: no run has one.
    """
    for version in reversed(versions(runs)):
        checkpoint = version / "checkpoints" / f"{which}.ckpt"
        if checkpoint.is_file():
            return checkpoint
    raise InputError(
        f"ckpt_path {which}: no run in {runs} has a {which}.ckpt; train one with fit, or give a file's path"
    )


def writable_folder(trainer: Trainer) -> Path | None:
    """The run's folder for the process that writes its files, None for the others and in a dry run.

    Every process has to ask, since asking is collective.
    """
    folder = trainer.log_dir or trainer.default_root_dir
    dry_run: int | bool = trainer.fast_dev_run  # type: ignore[attr-defined]
    return Path(folder) if trainer.is_global_zero and not dry_run else None
