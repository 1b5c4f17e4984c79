"""A network on its way to fewer heads and features: what is known of its parts, and what comes out."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitlocal.compress.outcome import agreement, evaluate
from vitlocal.compress.prune import latency, rivals
from vitlocal.compress.prune.latency import Latency
from vitlocal.compress.prune.obs import Sweep, surgeon
from vitlocal.compress.prune.parts import (
    Choice,
    Inputs,
    Kind,
    Part,
    collect,
    kept_by,
    last_layer,
    levels_of,
    size_of,
    stitch,
)
from vitlocal.compress.prune.report import Pruned
from vitlocal.compress.prune.search import Found, search
from vitlocal.compress.trained_run import Batch, validation_batches
from vitlocal.data import ImageDataModule
from vitlocal.errors import InputError
from vitlocal.models import VisionTransformer
from vitlocal.models.subject import Subject
from vitlocal.tasks.objective import objective_of

BATCH = 64
"""Images at a time, in calibration and evaluation."""


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
        rest = self.rest(table)
        budgets = {speedup: table.network / speedup - rest for speedup in speedups}
        if unreachable := [speedup for speedup, budget in budgets.items() if budget < 0]:
            raise InputError(
                f"a speedup of {unreachable[0]:g} can't be reached: without any attention and MLP the "
                f"network is {table.network / rest:.2f} times as fast as now; give less"
            )
        return budgets

    def rest(self, table: Latency) -> float:
        """Milliseconds of what can't be pruned, of the network that the table is of."""
        return table.network - sum(of[0] for of in self.times(table).values())

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

    def search(
        self, sweeps: Mapping[Part, Sweep], table: Latency, budget: float, steps: int, seed: int, about: str
    ) -> Found:
        """See :func:`vitlocal.compress.prune.search.search`."""
        found = search(
            self.errors(sweeps),
            list(self.times(table).values()),
            budget,
            lambda levels: self.calibration_loss(stitch(self.network, sweeps, self.choice(levels))),
            steps,
            seed,
            about,
        )
        assert found is not None, "parts that are left out take no time"
        return found

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
        setting = table.setting
        shape = len(self.subject.mean), *self.subject.image_size
        images = torch.randn(setting.batch_size, *shape, device=setting.device)
        calls: list[latency.Call] = [
            (latency.on_device(network, setting.device), images) for network in networks.values()
        ]
        medians = latency.medians(calls, setting, repeats, "measuring networks")
        rest = self.rest(table)
        rows = []
        for (key, network), milliseconds in zip(networks.items(), medians, strict=True):
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
                    predicted_ms=rest + sum(table.of(part.kind, count) for part, count in kept.items()),
                    measured_ms=milliseconds,
                    speedup=medians[0] / milliseconds,
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
