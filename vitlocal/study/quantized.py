"""What ``quantize`` left in a run's folder, as columns of ``runs.csv``."""

from pathlib import Path

import pandas as pd

from vitlocal.errors import InputError

BATCH = 128
"""Images a call of the latency that is compared."""


def row(folder: Path) -> dict[str, float]:
    """Accuracies in fp32, simulated (mean over calibrations) and int8; int8's latency and size over fp32's.

    Args:
        folder: with quantize.csv and, where there is an int8 model, latency.csv; an absent one gives nothing.

    Raises:
        InputError: a file in it is damaged.
    """
    found: dict[str, float] = {}
    path = folder / "quantize.csv"
    try:
        if path.is_file():
            table = pd.read_csv(path)
            name = "label_accuracy" if "label_accuracy" in table else "acc1"
            accuracy = table.groupby("part")[name].mean()
            parts = [part for part in ("fp32", "w8a8", "int8") if part in accuracy]
            found |= {f"acc1_{part}": float(accuracy[part]) for part in parts}
        path = folder / "latency.csv"
        if path.is_file():
            timed = pd.read_csv(path).query("batch == @BATCH").set_index("model")
            for name, column in (("latency", "median_ms"), ("size", "bytes")):
                found[f"int8_{name}"] = float(timed[column]["int8"]) / float(timed[column]["fp32"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} can't be read ({' '.join(str(error).split())})") from error
    return found
