"""How far a study is: a line when a cell begins or ends, a bar over all epochs, what is left."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import get_args

from tqdm import tqdm  # type: ignore[import-untyped]

from vitlocal.study.cells import State, Status, state
from vitlocal.study.plan import Cell


def seconds_left(
    cells: Sequence[Cell],
    states: Sequence[State],
    workers: int,
    measured: Mapping[str, float] | None = None,
) -> float | None:
    """Estimate how long a study still takes, by the epochs that it has done or by what was measured.

    Args:
        cells: of the study.
        states: of each.
        workers: cells at a time.
        measured: seconds of an epoch of cells, by their names.

    Returns:
        Seconds, or None while there is a data set of which no cell has ended, and one that was not measured.
    """
    left, known = 0.0, measured or {}
    for data in {cell.data for cell in cells}:
        of_data = [(cell, now) for cell, now in zip(cells, states, strict=True) if cell.data == data]
        done = [now for _, now in of_data if now.status == "done" and now.seconds and now.epochs]
        to_do = sum(cell.epochs - now.epochs for cell, now in of_data if now.status != "done")
        if to_do and not done:
            if any(cell.name not in known for cell, now in of_data if now.status != "done"):
                return None
            left += sum((cell.epochs - now.epochs) * known[cell.name] for cell, now in of_data)
        elif to_do:
            left += to_do * sum(now.seconds for now in done) / sum(now.epochs for now in done)
    return left / workers


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 20 s`` or ``5 h 12 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def listing(
    cells: Sequence[Cell], states: Sequence[State], workers: int, measured: Mapping[str, float]
) -> str:
    """One line a cell, and one with what is left; ``measured`` as in :func:`seconds_left`."""
    width = max(len(cell.name) for cell in cells)
    lines = []
    for cell, now in zip(cells, states, strict=True):
        rest = f"{now.epochs}/{cell.epochs} epochs"
        rest += f"  {duration(now.seconds)}" if now.seconds else ""
        rest += f"  {now.message}" if now.status == "failed" else ""
        lines.append(f"  {now.status:<11}  {cell.name:<{width}}  {rest}")
    counts = Counter(now.status for now in states)
    left = seconds_left(cells, states, workers, measured)
    summary = ", ".join(f"{counts[status]} {status}" for status in get_args(Status) if counts[status])
    estimate = "no estimate, since not all data are here" if left is None else f"about {duration(left)} left"
    lines.append(f"{summary}; {estimate}")
    return "\n".join(lines)


class Progress:
    """Shows the states of cells as they change, on stderr: lines, and on a terminal a bar too.

    Args:
        cells: of the study.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._cells = cells
        self._states = [state(cell) for cell in cells]
        self._bar = tqdm(
            total=sum(cell.epochs for cell in cells),
            initial=sum(now.epochs for now in self._states),
            unit="epoch",
            disable=None,  # no terminal, no bar
            dynamic_ncols=True,
        )

    def update(self) -> None:
        """Look at the cells."""
        for number, cell in enumerate(self._cells):
            before = self._states[number]
            if before.status == "done":
                continue
            now = self._states[number] = state(cell)
            if now.status != before.status:
                self._tell(cell, now)
            self._bar.update(now.epochs - before.epochs)
        done = sum(now.status == "done" for now in self._states)
        running = [
            f"{cell.name} {now.epochs}/{cell.epochs}"
            for cell, now in zip(self._cells, self._states, strict=True)
            if now.status == "running"
        ]
        self._bar.set_description_str(f"{done}/{len(self._cells)} cells")
        self._bar.set_postfix_str(", ".join(running))

    def __enter__(self) -> "Progress":
        """Show what is known so far."""
        self._bar.refresh()
        return self

    def __exit__(self, *exception: object) -> None:
        """Say what changed last, and take the bar away."""
        self.update()
        self._bar.leave = False
        self._bar.close()

    @staticmethod
    def _tell(cell: Cell, now: State) -> None:
        rest = {
            "running": f"from epoch {now.epochs}" if now.epochs else "",
            "done": f"{cell.epochs} epochs in {duration(now.seconds)}",
            "failed": now.message,
        }.get(now.status, f"after {now.epochs} epochs")
        tqdm.write(f"vitlocal: {cell.name}: {now.status} {rest}".rstrip(), file=sys.stderr)
