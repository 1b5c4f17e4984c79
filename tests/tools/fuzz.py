"""Tries bad input by the thousand and prints what came of it; any traceback is a failure.

python tests/tools/fuzz.py --count 2000
"""

import argparse
import collections
import logging
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fuzz.kinds import KINDS, outcome


def trial(name: str, count: int, first_seed: int) -> collections.Counter[str]:
    """Outcomes of ``count`` inputs of a kind."""
    outcomes: collections.Counter[str] = collections.Counter()
    known = set()

    def once(value: Any) -> None:
        if outcomes.total() >= count:
            return
        try:
            outcomes[outcome(KINDS[name], value)] += 1
        except Exception as error:
            outcomes["traceback"] += 1
            where = traceback.extract_tb(error.__traceback__)[-1]
            if (key := (type(error), where.filename, where.lineno)) not in known:
                known.add(key)
                print(f"{name}: {value!r}\n{''.join(traceback.format_exception(error)[-6:])}", flush=True)

    options = settings(
        max_examples=count,
        phases=[Phase.generate],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    number = first_seed
    while outcomes.total() < count:
        seed(number)(options(given(KINDS[name].strategy)(once)))()
        number += 1
    return outcomes


def table(names: list[str], count: int, first_seed: int) -> int:
    """Print it, ``count`` shared among the kinds; gives the number of tracebacks."""
    share = -(-count // len(names))
    totals: collections.Counter[str] = collections.Counter()
    columns = ("refused", "accepted", "traceback")
    rows = []
    for name in names:
        outcomes = trial(name, share, first_seed)
        totals.update(outcomes)
        rows.append((name, outcomes.total(), *(outcomes[column] for column in columns)))
        print(f"{name}: {dict(outcomes)}", flush=True)
    rows.append(("all", totals.total(), *(totals[column] for column in columns)))
    for row in (("kind", "inputs", "refused with a sentence", "accepted as valid", "tracebacks"), *rows):
        print("{:12} {:>7} {:>24} {:>18} {:>11}".format(*row))
    return totals["traceback"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="inputs, shared among the kinds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    given_ = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    sys.exit(1 if table(given_.kinds, given_.count, given_.seed) else 0)
