"""Kill a small training run at random moments, resume it, and compare it with one that ran through.

python tests/tools/kill_and_resume.py --trials 50

Each trial trains a tiny ViT under the Modern protocol by ``vitlocal.cli.main`` in a process of its own,
sends it SIGKILL at a random moment, resumes by ``--ckpt_path last`` (or starts anew, where there is no
checkpoint yet), kills again, and so on; at the end the weights, ``heads.csv``, ``metrics.csv`` and every
curve in TensorBoard must be those of the uninterrupted run. In every second trial checkpoints are
written within epochs as well, and the model drops out. Processes are forked from this one, which has
imported everything: a start costs little, so that kills fall anywhere in a run.
"""

import argparse
import csv
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import vitlocal.cli.training  # noqa: F401  # the command line would import it in each process anew
from vitlocal.cli import main as vitlocal_main

IMAGES = {"train": 46, "val": 13, "test": 5}
COMMON = [
    "--config=npz.yaml",
    "--config=modern.yaml",
    "--data.batch_size=8",
    "--model.network.embed_dim=16",
    "--model.network.depth=2",
    "--model.network.num_heads=2",
    "--model.warmup_epochs=1",
    "--trainer.max_epochs=4",
    "--trainer.log_every_n_steps=2",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--locality.maps=0",
]
# 5 steps an epoch: a checkpoint falls on every place within it.
WITHIN_EPOCHS = [
    "--checkpoint.every_n_train_steps=2",
    "--model.network.drop_rate=0.1",
    "--model.network.drop_path_rate=0.2",
]
LIMIT = 300  # seconds that one process may take, at most
RUN = "lightning_logs/tiny-modern"


@dataclass
class Outcome:
    """What a finished run left."""

    weights: dict[str, torch.Tensor]
    heads: list[list[str]]
    metrics: list[list[str]]
    curves: dict[str, list[tuple[int, float]]]

    def differences(self, other: "Outcome") -> list[str]:
        """What is not the same in ``other``."""
        found = [name for name in ("heads", "metrics") if getattr(self, name) != getattr(other, name)]
        if self.weights.keys() != other.weights.keys() or not all(
            torch.equal(value, other.weights[name]) for name, value in self.weights.items()
        ):
            found.append("weights")
        tags = self.curves.keys() | other.curves.keys()
        return found + sorted(tag for tag in tags if self.curves.get(tag) != other.curves.get(tag))


def make_data(folder: Path) -> Path:
    """A data set of 3 classes, told apart by brightness."""
    rng, arrays = np.random.default_rng(0), {}
    for split, count in IMAGES.items():
        labels = np.arange(count) % 3
        noise = rng.integers(0, 60, (count, 8, 8, 3))
        arrays[f"{split}_images"] = (noise + 90 * labels[:, None, None, None]).astype(np.uint8)
        arrays[f"{split}_labels"] = labels.astype(np.uint8)
    np.savez(folder / "tiny.npz", **arrays)
    return folder / "tiny.npz"


def start(folder: Path, args: Sequence[str]) -> int:
    """Run ``vitlocal fit`` in ``folder`` in a forked process; give its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.chdir(folder)
        log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        signal.alarm(LIMIT)
        vitlocal_main(["fit", *args])
        code = 0
    except SystemExit as exit_:
        print(exit_.code, file=sys.stderr)
        code = exit_.code if isinstance(exit_.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # not the parent's cleaning up


def finish(pid: int, deadline: float | None = None, writing_in: Path | None = None) -> int | None:
    """Wait for a process; kill it at ``deadline``, and then when it writes a file in the last argument.

    Returns:
        Its exit code, or None if it was killed.
    """
    while deadline is not None and (
        time.monotonic() < deadline or (writing_in is not None and not any(writing_in.rglob(".*.tmp*")))
    ):
        if (done := os.waitpid(pid, os.WNOHANG))[0]:
            return os.waitstatus_to_exitcode(done[1])
        time.sleep(0.0002)
    if deadline is not None:
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return None if deadline is not None and code == -signal.SIGKILL else code


def interrupted(folder: Path, args: Sequence[str], duration: float, dice: random.Random) -> Counter[str]:
    """Run to the end in spite of one to four kills, one at least after a checkpoint; what they hit."""
    hits: Counter[str] = Counter()
    kills = dice.randint(1, 4)
    while True:
        checkpoints = list(folder.glob(f"{RUN}/version_*/checkpoints/last*.ckpt"))
        resume = ["--ckpt_path=last"] if checkpoints else []
        hits["resumed from a checkpoint"] += bool(resume)
        pid = start(folder, [*args, *resume])
        deadline = time.monotonic() + dice.uniform(0, duration) if hits["kills"] < kills else None
        code = finish(pid, deadline, folder / "lightning_logs" if dice.random() < 1 / 3 else None)
        if code == 0 and hits["resumed from a checkpoint"]:
            return hits
        if code == 0:  # it was not killed, or too early to have anything to resume: that shows nothing
            shutil.rmtree(folder / "lightning_logs")
            duration *= 1.0 if hits["kills"] else 0.8
            hits.clear()
            continue
        if code is not None:
            raise RuntimeError(f"exit code {code}:\n{(folder / 'log.txt').read_text()[-3000:]}")
        hits["kills"] += 1
        hits["before the first checkpoint"] += not list(folder.glob(f"{RUN}/*/checkpoints/last*.ckpt"))
        hits["while a file was being written"] += bool(list(folder.rglob(".*.tmp*")))


def outcome(folder: Path) -> Outcome:
    """Read what the newest run left."""
    run = max(folder.glob(f"{RUN}/version_*"), key=lambda path: int(path.name.removeprefix("version_")))
    leftovers = list(run.rglob(".*.tmp*"))
    if leftovers:
        raise RuntimeError(f"left over: {leftovers}")
    tables = {}
    for name in ("heads", "metrics"):
        with (run / f"{name}.csv").open(newline="") as file:
            tables[name] = list(csv.reader(file))
    events = EventAccumulator(str(run), {"scalars": 0}).Reload()
    curves = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    # Lightning logs the epoch's number beside whatever it logs, several times a step.
    curves["epoch"] = sorted(set(curves["epoch"]))
    for tag, points in curves.items():
        if len({step for step, _ in points}) != len(points):
            raise RuntimeError(f"a step has two values of {tag}: {points}")
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return Outcome(last["state_dict"], tables["heads"], tables["metrics"], curves)


def run(trials: int, seed: int = 0, folder: Path | None = None) -> int:
    """Run the trials and say how they went; the number of those that were not identical."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        root = Path(name)
        data = make_data(root)
        straight, durations = {}, {}
        variants = {"after epochs": [], "within epochs": WITHIN_EPOCHS}
        for kind, extra in variants.items():
            whole = root / kind.replace(" ", "_")
            whole.mkdir()
            began = time.monotonic()
            code = finish(start(whole, [*COMMON, f"--data.path={data}", *extra]))
            durations[kind] = time.monotonic() - began
            if code != 0:
                raise RuntimeError((whole / "log.txt").read_text()[-3000:])
            straight[kind] = outcome(whole)
        hits: Counter[str] = Counter()
        failed = 0
        for trial in range(trials):
            kind = list(variants)[trial % 2]
            place = root / f"trial_{trial}"
            place.mkdir()
            args = [*COMMON, f"--data.path={data}", *variants[kind]]
            try:
                here = interrupted(place, args, durations[kind], random.Random(seed * 10_000 + trial))
                differences = straight[kind].differences(outcome(place))
            except RuntimeError as error:
                here, differences = Counter(), [str(error)]
            hits += here
            if differences:
                failed += 1
                print(f"trial {trial} (checkpoints {kind}, {here['kills']} kills) differs: {differences}")
    print(", ".join(f"{number} {what}" for what, number in hits.items()))
    print(f"{trials - failed} of {trials} identical")
    return failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    given = parser.parse_args()
    torch.set_num_threads(1)
    sys.exit(1 if run(given.trials, given.seed) else 0)
