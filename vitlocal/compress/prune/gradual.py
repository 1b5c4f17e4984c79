"""Training after each step of pruning, by ``fit`` itself, with the dense network as the teacher."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vitlocal.compress.prune import run_folder
from vitlocal.compress.prune.parts import check, stitch
from vitlocal.compress.prune.stages import Stages
from vitlocal.compress.prune.work import Goal, Work
from vitlocal.errors import InputError
from vitlocal.models import VisionTransformer
from vitlocal.runs import Run, checkpoints, folders, open_run
from vitlocal.runs.trained import trained_subject


@dataclass(frozen=True)
class Step:
    """What every step of gradual pruning has in common.

    Attributes:
        dense: the run that is pruned.
        output: folder of all that comes out.
        stages: what was found already.
        search_steps: of each search.
        seed: of these.
        epochs: of training after each.
        lr: peak learning rate of these.
    """

    dense: Run
    output: Path
    stages: Stages
    search_steps: int
    seed: int
    epochs: int
    lr: float

    def all(self, work: Work, goals: Iterable[Goal]) -> Iterator[tuple[Goal, VisionTransformer]]:
        """The trained network of each speedup, each pruned from the one before.

        Args:
            work: on the dense network.
            goals: of ascending speedups.

        Raises:
            InputError: see :func:`trained`.
        """
        place = work.subject.mean.device
        before: list[tuple[float, list[int]]] = []
        for goal in goals:
            speedup = goal.speedup
            sweeps = work.surgeon()
            about = f"searching {speedup:g}x, gradual"
            search = partial(work.search, sweeps, goal, self.search_steps, self.seed, about)
            name = f"gradual {speedup:g}, {self.epochs} epochs at {self.lr:g} after {before or 'none'}"
            found = self.stages.get(name, search)
            pruned = self.output / f"gradual_{speedup:g}"
            before.append((speedup, list(found["levels"])))
            run_folder.write(self.dense, stitch(work.network, sweeps, work.choice(found["levels"])), pruned)
            run = trained(pruned, self.dense, self.epochs, self.lr, {**self.stages.settings, "steps": before})
            subject = trained_subject(run).eval().to(place)
            network = check(subject.network, subject.name)
            work = Work(subject, network, work.hidden, work.calibration, work.data, work.max_images)
            yield goal, network


def trained(pruned: Path, dense: Run, epochs: int, lr: float, depends_on: Mapping[str, Any]) -> Run:
    """The run that trains a pruned network, resumed where it was stopped, at once where it is done.

    It is a process of its own with the dense run's settings, data set and protocol, without warm-up.

    Args:
        pruned: folder of the pruned run; the new one goes below it.
        dense: the run of the dense network, which teaches it.
        epochs: of training.
        lr: peak learning rate.
        depends_on: what the pruned network depends on, plain values: with other ones it is another run.

    Raises:
        InputError: the process failed.
    """
    facts = json.dumps([depends_on, epochs, lr], sort_keys=True)
    root = pruned / f"trained_{hashlib.sha256(facts.encode()).hexdigest()[:8]}"
    words = [
        *("fit", f"--config={pruned / 'config.yaml'}", f"--trainer.default_root_dir={root}"),
        *(f"--trainer.max_epochs={epochs}", f"--model.lr={lr}", "--model.warmup_epochs=0"),
        *(f"--init_from={pruned}", "--distillation=Distillation"),
        f"--distillation.teacher={dense.checkpoint}",
    ]
    found = _newest(root)
    if found is not None:
        if checkpoints.read(found.checkpoints[checkpoints.LAST])["epoch"] + 1 >= epochs:
            return found
        words.append("--ckpt_path=last")
    ended = subprocess.run([sys.executable, "-m", "vitlocal", *words], stdin=subprocess.DEVNULL, check=False)
    found = _newest(root)
    if ended.returncode or found is None:
        raise InputError(
            f"the training of {pruned} ended with exit code {ended.returncode}, see above: mend what it says "
            "and start again, which resumes it"
        )
    return found


def _newest(root: Path) -> Run | None:
    """The newest run below a root folder that has a checkpoint to resume from."""
    versions = [version for runs in root.glob("lightning_logs/*") for version in folders.versions(runs)]
    runs = [open_run(version) for version in versions]
    return next((run for run in runs[::-1] if checkpoints.LAST in run.checkpoints), None)
