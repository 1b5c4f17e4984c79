"""A network on its way to fewer heads and features: what is known of its parts, and what comes out."""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitlocal.compress.outcome import agreement, evaluate
from vitlocal.compress.prune import rivals
from vitlocal.compress.prune.latency import Latency
from vitlocal.compress.prune.obs import Sweep, surgeon
from vitlocal.compress.prune.parts import (
    Choice,
    Inputs,
    Kind,
    Part,
    check,
    collect,
    kept_by,
    last_layer,
    levels_of,
    size_of,
    stitch,
)
from vitlocal.compress.prune.report import Pruned
from vitlocal.compress.prune.runtime import Setting, medians, on_device
from vitlocal.compress.prune.search import Found, cheapest, search, weighted
from vitlocal.compress.trained_run import Batch, chosen_training_batches, data_of, validation_batches
from vitlocal.data import ImageDataModule
from vitlocal.errors import InputError
from vitlocal.models import VisionTransformer
from vitlocal.models.subject import Subject
from vitlocal.runs import Run
from vitlocal.runs.trained import trained_subject
from vitlocal.tasks.objective import objective_of

BATCH = 64
"""Images at a time, in calibration and evaluation."""

CLOSE = 0.02
"""A measured speedup this near to the wanted one, as a share of it, is it."""

ROUNDS = 4
"""Most times that a network is measured and its budget corrected."""


@dataclass(frozen=True)
class Goal:
    """How fast a network is wanted.

    Attributes:
        dense: the network that it is to be faster than.
        speedup: how many times.
        table: of latencies of the dense network.
        budget: milliseconds that all parts together may take, by the table.
        repeats: calls of each network that are measured.
    """

    dense: VisionTransformer
    speedup: float
    table: Latency
    budget: float
    repeats: int


class Work:
    """A dense network with its calibration images.

    Args:
        subject: the network with its normalisation, in evaluation.
        network: the network alone.
        hidden: features of an MLP before any pruning.
        calibration: un-augmented training images with labels.
        data: that validation images are of.
        max_images: most of these; None for all.

    Attributes:
        levels: of each part, the numbers of structures at which it is wanted, from all to none.
    """

    def __init__(
        self,
        subject: Subject,
        network: VisionTransformer,
        hidden: int,
        calibration: Sequence[Batch],
        data: ImageDataModule,
        max_images: int | None,
    ) -> None:
        self.subject, self.network, self.hidden = subject, network, hidden
        self.calibration, self.data, self.max_images = calibration, data, max_images
        self.objective = objective_of(data.multilabel)
        self.levels = levels_of(network, hidden)

    @property
    def wanted(self) -> dict[Kind, Sequence[int]]:
        """Of each kind of part, all numbers of structures at which one is wanted."""
        found: dict[Kind, set[int]] = {}
        for part, counts in self.levels.items():
            found.setdefault(part.kind, set()).update(counts)
        return {kind: sorted(counts, reverse=True) for kind, counts in found.items()}

    def times(self, table: Latency) -> dict[Part, list[float]]:
        """Milliseconds of every level of every part."""
        return {
            part: [table.of(part.kind, count) for count in counts] for part, counts in self.levels.items()
        }

    def budgets(self, table: Latency, speedups: Sequence[float]) -> dict[float, float]:
        """Milliseconds that all parts together may take, for each speedup.

        Raises:
            InputError: what can't be pruned takes longer than the whole network may.
        """
        budgets = {speedup: table.network / speedup - table.rest for speedup in speedups}
        if unreachable := [speedup for speedup, budget in budgets.items() if budget < 0]:
            raise InputError(
                f"a speedup of {unreachable[0]:g} can't be reached: without any attention and MLP the "
                f"network is {table.network / table.rest:.2f} times as fast as now; give less"
            )
        return budgets

    @cached_property
    def inputs(self) -> dict[Part, Inputs]:
        """What comes into the parts on the calibration images."""
        images = (self._normalised(batch["image"]) for batch in self.calibration)
        return collect(self.network, self.levels, images)

    @cached_property
    def energies(self) -> dict[Part, float]:
        """The sum of the parts' squared outputs on the calibration images."""
        with torch.no_grad():
            return {part: of.energy(last_layer(self.network, part)) for part, of in self.inputs.items()}

    @torch.no_grad()
    def surgeon(self) -> dict[Part, Sweep]:
        """Every part by structured OBS."""
        return {
            part: surgeon(
                last_layer(self.network, part).weight,
                self.inputs[part].gram,
                size_of(self.network, part),
                counts,
            )
            for part, counts in self.levels.items()
        }

    @torch.no_grad()
    def rivals(self, seed: int) -> dict[str, dict[Part, Sweep]]:
        """Every part by the methods without update."""
        ways = {
            "diagonal": rivals.diagonal,
            "magnitude": rivals.magnitude,
            "random": rivals.random(seed),
        }
        return {
            name: rivals.sweeps(self.network, self.inputs, self.levels, way) for name, way in ways.items()
        }

    def errors(self, sweeps: Mapping[Part, Sweep]) -> list[list[float]]:
        """The relative squared error of every level of every part; 1 where nothing is left."""
        return [
            [
                sweeps[part].levels[count].error / max(self.energies[part], 1e-30) if count else 1.0
                for count in of
            ]
            for part, of in self.levels.items()
        ]

    def search(self, sweeps: Mapping[Part, Sweep], goal: Goal, steps: int, seed: int, about: str) -> Found:
        """See :func:`vitlocal.compress.prune.search.search`; then as fast as is wanted, see :meth:`reach`."""
        errors, times = self.errors(sweeps), list(self.times(goal.table).values())
        found = search(
            errors,
            times,
            goal.budget,
            lambda levels: self.calibration_loss(stitch(self.network, sweeps, self.choice(levels))),
            steps,
            seed,
            about,
        )
        assert found is not None, "parts that are left out take no time"
        costs = weighted(errors, found.weights)
        levels = self.reach(sweeps, goal, lambda budget: cheapest(costs, times, budget) or found.levels)
        return replace(found, levels=levels)

    def uniform(self, sweeps: Mapping[Part, Sweep], goal: Goal) -> Found:
        """The same share of each part, as fast as is wanted."""
        times = self.times(goal.table)
        levels = self.reach(sweeps, goal, lambda budget: rivals.uniform(self.levels, times, budget))
        return Found(levels, (), math.nan, math.nan)

    def reach(
        self, sweeps: Mapping[Part, Sweep], goal: Goal, choose: Callable[[float], tuple[int, ...]]
    ) -> tuple[int, ...]:
        """Levels whose network is as many times as fast as is wanted where it is measured.

        A table of parts that are measured by themselves is a few percent off: the budget is corrected by what
        the network takes, until that is within ``CLOSE``; of ``ROUNDS`` the nearest.

        Args:
            sweeps: of every part.
            goal: what is wanted.
            choose: levels within a budget of milliseconds.
        """
        budget, tried = goal.budget, []
        for number in range(ROUNDS):
            levels = choose(budget)
            network = stitch(self.network, sweeps, self.choice(levels))
            about = f"measuring {goal.speedup:g}x, round {number + 1}"
            dense, pruned = self.timed([goal.dense, network], goal.table.setting, goal.repeats, about)
            ratio = dense / pruned / goal.speedup
            tried.append((abs(math.log(ratio)), levels))
            if tried[-1][0] <= CLOSE:
                break
            budget = max(0.0, (goal.table.rest + budget) * ratio - goal.table.rest)
        return min(tried)[1]

    def timed(
        self, networks: Iterable[VisionTransformer], setting: Setting, repeats: int, about: str
    ) -> list[float]:
        """Milliseconds of networks that are measured in turn."""
        shape = len(self.subject.mean), *self.subject.image_size
        images = torch.randn(setting.batch_size, *shape, device=setting.device)
        return medians(
            [(on_device(each, setting.device), images) for each in networks], setting, repeats, about
        )

    def choice(self, levels: Sequence[int]) -> Choice:
        """Numbers of structures, from places in the lists of levels."""
        return {part: of[place] for place, (part, of) in zip(levels, self.levels.items(), strict=True)}

    @torch.inference_mode()
    def calibration_loss(self, network: VisionTransformer) -> float:
        """Mean loss on the calibration images."""
        total, count = 0.0, 0
        for batch in self.calibration:
            logits = network(self._normalised(batch["image"])).float().cpu()
            losses = self.objective.losses(logits, batch["label"])
            total, count = total + losses.sum().item(), count + len(losses)
        return total / max(count, 1)

    def measured(
        self,
        networks: Mapping[tuple[str, float], VisionTransformer],
        equal_losses: Mapping[tuple[str, float], float],
        table: Latency,
        repeats: int,
    ) -> list[Pruned]:
        """One row a network, the dense one first; all are timed in turn.

        Args:
            networks: by method and speedup.
            equal_losses: calibration losses before any search, where there was one.
            table: of latencies.
            repeats: calls of each.
        """
        networks = {("dense", 1.0): self.network, **networks}
        times = self.timed(networks.values(), table.setting, repeats, "measuring networks")
        rows = []
        for (key, network), milliseconds in zip(networks.items(), times, strict=True):
            kept = kept_by(network)
            logits, labels = evaluate(
                lambda images, network=network: network(self._normalised(images)),  # type: ignore[misc]
                validation_batches(self.data, BATCH, self.max_images),
            )
            loss = self.objective.losses(logits, labels).mean().item()
            rows.append(
                Pruned(
                    method=key[0],
                    wanted=key[1],
                    predicted_ms=table.rest + sum(table.of(part.kind, count) for part, count in kept.items()),
                    measured_ms=milliseconds,
                    speedup=times[0] / milliseconds,
                    images=len(labels),
                    acc1=agreement(logits, labels),
                    loss=loss,
                    calibration_loss=self.calibration_loss(network),
                    equal_loss=equal_losses.get(key),
                    heads=sum(count for part, count in kept.items() if part.kind == "attention"),
                    hidden=sum(count for part, count in kept.items() if part.kind == "mlp"),
                    parameters=sum(parameter.numel() for parameter in network.parameters()),
                )
            )
        return rows

    def _normalised(self, images: Tensor) -> Tensor:
        return (images.to(self.subject.mean.device) - self.subject.mean) / self.subject.std


def work_on(
    run: Run, data: ImageDataModule | str | None, images: int, seed: int, max_images: int | None
) -> Work:
    """The network of a run with its calibration images, on a GPU if there is one.

    Args:
        run: of the dense network.
        data: see :func:`vitlocal.compress.trained_run.data_of`.
        images: most training images to calibrate on.
        seed: which these are.
        max_images: most validation images; None for all.

    Raises:
        InputError: the network can't be pruned, or the data set is not there, not its own, or without images.
    """
    subject = trained_subject(run).eval()
    network = check(subject.network, subject.name)
    of_run = data_of(subject, run, data)
    calibration = chosen_training_batches(of_run, BATCH, seed, images)
    if not calibration:
        raise InputError(
            f"the data set {of_run.name} has no training images to calibrate on: give another, such as "
            "--data=digits.yaml"
        )
    subject.to("cuda" if torch.cuda.is_available() else "cpu")
    sizes = run.hyperparameters["network"]["init_args"]
    hidden = int(sizes["embed_dim"] * sizes["mlp_ratio"])
    return Work(subject, network, hidden, calibration, of_run, max_images)


def settings(checkpoint: Path, calibration: int, seed: int, steps: int, table: Latency) -> dict[str, Any]:
    """What a search depends on.

    Args:
        checkpoint: of the dense network.
        calibration: number of images.
        seed: of these and of the search.
        steps: of the search.
        table: of latencies.
    """
    return {
        "checkpoint": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "calibration_images": calibration,
        "seed": seed,
        "search_steps": steps,
        "latencies": asdict(table),
    }
