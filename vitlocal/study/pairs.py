"""Differences between conditions that differ in one thing, seed by seed.

The conditions of one seed begin with the same weights and see their data in the same order, so what their
seeds have in common falls out of the difference.
"""

from collections.abc import Sequence

import pandas as pd

from vitlocal.study.results import Run
from vitlocal.study.settings import flat
from vitlocal.study.statistics import over_seeds

PAIRED = {
    "mad_min": "minimum MAD",
    "mad_raw_min": "minimum raw MAD",
    "class_mass_max": "largest class mass",
    "self_log_odds_max": "largest log-odds of self mass",
    "class_log_odds_max": "largest log-odds of class mass",
    "border_mass_early": "mass across borders, early third",
    "first_mass_max": "largest weight on the first token",
    "previous_mass_max": "largest weight on the token before",
    "acc1": "validation accuracy",
}
"""Columns of ``runs.csv`` that are compared, and what they are called."""


COLUMNS = ["first", "second", "differ", "measure", "count", "mean", "sd", "low", "high"]


def pairs(loaded: Sequence[Run]) -> list[tuple[str, str, str]]:
    """Conditions of one data set to compare: (first, second, what they differ in).

    Each condition is compared with the earliest one from which it differs in a single component of the
    protocol or a single setting of the model, for each such component; one that differs from every other in
    more than that, with the first condition.
    """
    settings: dict[str, dict[str, str]] = {}
    for run in loaded:
        settings.setdefault(run.condition, flat(run.config))
    found = []
    conditions = list(settings)
    for number, second in enumerate(conditions):
        single: dict[str, str] = {}
        for first in conditions[:number]:
            differ = _differing(settings[first], settings[second])
            if len(differ) == 1:
                single.setdefault(differ[0], first)
        if not single and number:
            single = {", ".join(_differing(settings[conditions[0]], settings[second])): conditions[0]}
        found += [(first, second, what) for what, first in single.items()]
    return found


def differences(table: pd.DataFrame, compared: Sequence[tuple[str, str, str]]) -> pd.DataFrame:
    """One row a pair and measure: second minus first, over the seeds that both have.

    Args:
        table: rows of ``runs.csv`` of one data set.
        compared: see :func:`pairs`.

    Returns:
        first, second, differ, measure, and the summary: count, mean, sd, low, high.
    """
    rows = []
    for first, second, differ in compared:
        of_first, of_second = (
            table[table["condition"] == condition].set_index("seed") for condition in (first, second)
        )
        seeds = [seed for seed in of_first.index if seed in of_second.index]
        for measure in PAIRED:
            if seeds and measure in table:
                values = (of_second[measure] - of_first[measure])[seeds].dropna()
                if len(values):
                    front = {"first": first, "second": second, "differ": differ, "measure": measure}
                    rows.append(front | vars(over_seeds(values.tolist())))
    return pd.DataFrame(rows, columns=COLUMNS)


def _differing(first: dict[str, str], second: dict[str, str]) -> list[str]:
    """Components of the protocol and settings of the rest in which two configurations differ."""
    names = [name for name in {**first, **second} if first.get(name) != second.get(name)]
    return list(dict.fromkeys(_component(name) for name in names))


def _component(name: str) -> str:
    """``protocol.mixing`` or ``model.network.attention`` for each of its settings."""
    return ".".join(name.split(".")[: 3 if name.startswith("model.network.") else 2])
