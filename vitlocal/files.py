"""Files that are either whole or not there."""

import csv
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary name beside ``path`` to write to; rename it to ``path`` at the end.

    If the block raises, the temporary file is removed and ``path`` is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: numpy and image writers choose the format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: str | Path) -> None:
    """Remove the temporary files that a killed process left in ``folder`` and below."""
    for path in Path(folder).rglob(".*.tmp*"):
        if re.fullmatch(r"\..+\.\d+\.tmp(\.\w+)?", path.name):
            path.unlink(missing_ok=True)


class EpochTable:
    """A CSV file with one or more rows an epoch, each epoch in it once.

    Args:
        path: the file; made at the first :meth:`write`.
        columns: the header; the first column is ``epoch``.
    """

    def __init__(self, path: str | Path, columns: Sequence[str]) -> None:
        self.path = Path(path)
        self.columns = list(columns)

    def write(self, epoch: int, rows: Sequence[Mapping[str, object]]) -> None:
        """Put ``rows`` at the end as those of ``epoch``.

        Rows of this epoch and of later ones, left by a run that was interrupted and resumes,
        are dropped: a resumed run ends with the table of an uninterrupted one.
        """
        kept = [row for row in self._read() if int(row["epoch"]) < epoch]
        with atomic_path(self.path) as temporary, temporary.open("w", newline="") as file:
            # A table begun by an earlier release may have fewer columns, or others.
            writer = csv.DictWriter(file, self.columns, restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows([*kept, *({"epoch": epoch, **row} for row in rows)])

    def _read(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))
