"""The command ``compare``, and the files that it and ``study`` write."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vitlocal.errors import InputError
from vitlocal.files import atomic_path

if TYPE_CHECKING:
    from vitlocal.study.results import Run


def compare(runs: Sequence[Path], output: Path = Path("lightning_logs/compare")) -> None:
    """Compare runs: statistics, tables, figures and one HTML page.

    Args:
        runs: A run's folder, such as lightning_logs/digits-modern/version_0, or a folder that holds runs.
        output: Folder to write to.
    """
    from vitlocal.study.results import find_runs

    if not runs:
        raise InputError("runs is empty: give at least one folder of a run or of a study")
    write_results(find_runs(runs), output, "Comparison of runs")
    print(f"vitlocal: the results are in {output}; open {output / 'index.html'}")


def write_results(runs: Sequence[Run], output: Path, title: str) -> None:
    """Write ``runs.csv``, ``heads.csv``, ``summary.md``, ``figures/`` and ``index.html``, each whole or not.

    Statistics are of the runs that have all of their epochs; of a data set where none has, of all.

    Raises:
        InputError: there are no runs, they measured distances differently, or ``output`` can't be written.
    """
    # pandas, scipy, statsmodels and matplotlib take seconds: not before they are needed.
    from vitlocal.study import figures, page, pairs, results, tables
    from vitlocal.study.sequences import are_sequences

    if not runs:
        raise InputError("there are no runs to compare: run some first")
    units = {(run.measured.unit, run.measured.class_token) for run in runs}
    if len(units) > 1:
        given = ", ".join(sorted(f"unit={unit} class_token={token}" for unit, token in units))
        raise InputError(f"the runs measured distances differently ({given}): compare those of one kind")
    ((unit, _),) = units
    every, heads = results.runs_table(runs), results.heads_table(runs)
    reports, drawn = [], {}
    for data, table in every.groupby("data", sort=False):
        counted = table[table["finished"]] if table["finished"].any() else table
        of_data = heads[heads["data"] == data]
        compared = pairs.pairs([run for run in runs if run.data == data])
        reports.append(tables.report(table, counted, of_data, compared))
        drawn[str(data)] = figures.draw(table, counted, of_data, unit)
    commands = tables.commands(runs)
    written: dict[str, bytes] = {
        "runs.csv": every.to_csv(index=False).encode(),
        "heads.csv": heads.to_csv(index=False).encode(),
        "summary.md": tables.markdown(title, reports, commands).encode(),
    }
    for number, (data, of_one) in enumerate(drawn.items()):
        name = re.sub(r"[^\w+-]+", "_", data)
        name += f"_{number}" if name != data else ""  # so that names can't become one
        for figure in of_one:
            written[f"figures/{name}-{figure.name}.png"] = figure.png()
            written[f"figures/{name}-{figure.name}.svg"] = figure.svg()
    about = page.OF_SEQUENCES if are_sequences(every) else page.OF_IMAGES
    written["index.html"] = page.page(title, about, reports, drawn, commands).encode()
    try:
        for name, content in written.items():
            with atomic_path(Path(output) / name) as temporary:
                temporary.write_bytes(content)
    except OSError as error:
        raise InputError(
            f"output {output} can't be written ({error.strerror}): give another folder"
        ) from error
