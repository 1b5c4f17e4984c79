"""Tries each callback and logger of Lightning's on the command line; prints docs/lightning.md's rows.

python tests/tools/lightnings_parts.py [NAME...]
"""

import contextlib
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from lightning.pytorch import callbacks, loggers

from tests import blobs
from tests.folders import chdir
from vitlocal.cli import main
from vitlocal.runs import open_run

NO_PART = {"Callback", "Checkpoint", "ProgressBar", "BaseFinetuning", "BasePredictionWriter", "Logger"}
"""Base classes, of which one makes parts of one's own."""

HERE = "tests.tools.lightnings_parts"

CALLBACKS = {
    "BackboneFinetuning": {},
    "BatchSizeFinder": {"max_trials": "2"},
    "DeviceStatsMonitor": {},
    "EMAWeightAveraging": {},
    "EarlyStopping": {"monitor": "val/loss"},
    "GradientAccumulationScheduler": {"scheduling": "{0: 2, 1: 1}"},
    "LambdaCallback": {"on_train_start": f"{HERE}.nothing"},
    "LearningRateFinder": {"num_training_steps": "8"},
    "LearningRateMonitor": {},
    "ModelCheckpoint": {"filename": "every", "save_top_k": "-1"},
    "ModelPruning": {"pruning_fn": "l1_unstructured", "amount": "0.5"},
    "ModelSummary": {"max_depth": "2"},
    "OnExceptionCheckpoint": {"dirpath": "broken"},
    "RichModelSummary": {},
    "RichProgressBar": {},
    "SpikeDetection": {},
    "StochasticWeightAveraging": {"swa_lrs": "0.01"},
    "TQDMProgressBar": {},
    "ThroughputMonitor": {"batch_size_fn": f"{HERE}.images"},
    "Timer": {"duration": "00:01:00:00"},
    "WeightAveraging": {},
}
"""Each with its arguments."""

LOGGERS = {
    "CSVLogger": {"save_dir": "logs"},
    "CometLogger": {"online": "false"},
    "LitLogger": {},
    "MLFlowLogger": {"save_dir": "mlruns"},
    "TensorBoardLogger": {"save_dir": "logs"},
    "WandbLogger": {"offline": "true"},
}

# W&B and Comet keep what they would send; MLflow writes files only if it is told to.
OFFLINE = {"COMET_API_KEY": "none", "COMET_OFFLINE_DIRECTORY": "comet", "MLFLOW_ALLOW_FILE_STORE": "true"}


def nothing(trainer: object, module: object) -> None:
    """For LambdaCallback."""


def images(batch: dict[str, list[object]]) -> int:
    """For ThroughputMonitor."""
    return len(batch["image"])


def shipped(module: object) -> list[str]:
    """The names of the parts in a module of Lightning's."""
    return sorted(set(module.__all__) - NO_PART, key=str.lower)  # type: ignore[attr-defined]


def words(key: str, name: str, arguments: dict[str, str]) -> list[str]:
    """Of the command line."""
    given = [f"--trainer.{key}.{argument}={value}" for argument, value in arguments.items()]
    return [f"--trainer.{key}={name}", *given]


def said_by(call: Callable[[], object]) -> str:
    """'' if it came to its end, else the sentence with which it was refused.

    Raises:
        Exception: it was neither.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            call()
    except SystemExit as ended:
        lines = [line for line in said.getvalue().splitlines() if line.startswith("vitlocal: error: ")]
        if not ended.code:
            return ""
        assert lines, said.getvalue()
        return lines[-1].removeprefix("vitlocal: error: ")
    return ""


def fit(folder: Path, *more: str) -> Path:
    """A run of a network of one layer, of two epochs of three steps."""
    data = folder / "blobs.npz"
    if not data.exists():
        blobs.write(data)
    given = f"fit --config=npz.yaml --data.path={data} --config=baseline.yaml --data.batch_size=8"
    small = "--model.network.depth=1 --model.warmup_epochs=0 --trainer.accelerator=cpu --trainer.max_epochs=2"
    main([*given.split(), *small.split(), *more])
    return max(folder.glob("lightning_logs/*/version_*"), key=lambda run: run.stat().st_mtime_ns)


def whole(run: Path, epochs: Iterable[int]) -> None:
    """Both tables have a row of each of these epochs, and none besides."""
    epochs = list(epochs)
    assert open_run(run).table("metrics")["epoch"].tolist() == epochs
    assert sorted(set(open_run(run).table("heads")["epoch"])) == [0, *epochs]


def try_callback(name: str, folder: Path) -> str:
    """What is said of a callback, '' if it works: a run, then one more epoch of it."""
    given = words("callbacks", name, CALLBACKS[name])

    def train() -> None:
        quiet = ["--locality.maps=0", "--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs"]
        whole(fit(folder, *quiet, *given), (1, 2))
        whole(fit(folder, *quiet, *given, "--trainer.max_epochs=3", "--ckpt_path=last"), (1, 2, 3))

    return said_by(train)


def try_logger(name: str, folder: Path) -> str:
    """What is said of a logger, '' if it works: two runs, then one more epoch of the second."""
    given = [
        *words("logger", name, LOGGERS[name]),
        "--locality.maps=1",
        "--trainer.enable_progress_bar=false",
    ]

    def train() -> None:
        first, second = fit(folder, *given), fit(folder, *given)
        assert first != second
        assert fit(folder, *given, "--trainer.max_epochs=3", "--ckpt_path=last") == second
        whole(first, (1, 2))
        whole(second, (1, 2, 3))

    return said_by(train)


def outcome(name: str) -> str:
    """What comes of a callback or a logger: ``works``, or the sentence with which it is refused."""
    trial = try_callback if name in CALLBACKS else try_logger
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        return trial(name, Path(folder)).replace(folder + os.sep, "") or "works"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    os.environ |= OFFLINE
    for name in sys.argv[1:] or [*shipped(callbacks), *shipped(loggers)]:
        print(f"| `{name}` | {outcome(name)} |", flush=True)
