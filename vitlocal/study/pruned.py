"""What ``prune`` left in a run's folder, as columns of ``runs.csv``."""

from pathlib import Path

import pandas as pd

from vitlocal.errors import InputError

METHODS = {"dense": "pruned", "ziplm": "pruned", "gradual": "gradual"}
"""What columns are called by, of the methods of prune.csv that are not its rivals."""

STATISTICS = {"mad": "MAD", "self_mass": "self mass", "class_mass": "class mass", "entropy": "entropy"}


def row(folder: Path) -> dict[str, float]:
    """Accuracy at each speedup, such as ``acc1_pruned_2``; and in which order heads go, by what they look at.

    ``prune_order_mad`` and so on are Spearman's correlation within a layer, mean over layers: above 0, heads
    with a small MAD go first. A speedup of 1 is the dense network.

    Args:
        folder: with prune.csv and prune_heads.csv; an absent one gives nothing.

    Raises:
        InputError: a file in it is damaged.
    """
    found: dict[str, float] = {}
    path = folder / "prune.csv"
    try:
        if path.is_file():
            for method, wanted, acc1 in pd.read_csv(path)[["method", "wanted", "acc1"]].itertuples(
                index=False
            ):
                if method in METHODS:
                    found[f"acc1_{METHODS[method]}_{float(wanted):g}"] = float(acc1)
        path = folder / "prune_heads.csv"
        if path.is_file():
            layers = [of for _, of in pd.read_csv(path).groupby("layer")]
            for name in STATISTICS:
                rhos = [of["order"].corr(of[name], method="spearman") for of in layers]
                found[f"prune_order_{name}"] = float(pd.Series(rhos).mean())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} can't be read ({' '.join(str(error).split())})") from error
    return found
