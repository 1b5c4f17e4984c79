"""Which heads go first, and what they look at."""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from vitlocal.compress.prune.obs import Sweep
from vitlocal.compress.prune.parts import Part
from vitlocal.heads.collector import HeadCollector
from vitlocal.models.subject import Subject

STATISTICS = ("mad", "self_mass", "class_mass", "entropy")
LEVEL = 0.95
RESAMPLES = 2000


@dataclass(frozen=True)
class Head:
    """A head of the dense network, as one row of prune_heads.csv.

    Attributes:
        layer: its number, from 0.
        head: the same of the head.
        order: its place among those of its layer in the order in which they go, from 0.
        error: relative squared error of the layer's attention once this head is gone, and those before it.
        gone_at: the smallest of the speedups at which it is gone; None where it is in all networks.
        mad: mean attention distance.
        self_mass: share of its weight that is on the query's own patch.
        class_mass: share on the class token.
        entropy: normalised entropy.
    """

    layer: int
    head: int
    order: int
    error: float
    gone_at: float | None
    mad: float
    self_mass: float
    class_mass: float
    entropy: float


@dataclass(frozen=True)
class Correlation:
    """Of the order in which heads go with what they look at.

    Attributes:
        statistic: one of ``STATISTICS``.
        rho: Spearman's rank correlation within a layer, mean over layers: above 0, heads of small values go
            first.
        low: end of its 95 % bootstrap interval over layers; NaN of fewer than two.
        high: the other end.
        layers: number of layers.
    """

    statistic: str
    rho: float
    low: float
    high: float
    layers: int


@torch.no_grad()
def observed(subject: Subject, batches: Iterable[Tensor]) -> dict[tuple[int, int], dict[str, float]]:
    """What each head looks at, by its layer and number.

    Args:
        subject: the dense network.
        batches: uint8 images (B, C, H, W).
    """
    collector = HeadCollector(subject, subject.mean.device)
    for images in batches:
        images = images.to(subject.mean.device)
        with collector.batch(images):
            subject(images)
    return {
        (place.layer, head): {name: layer[name][where] for name in STATISTICS}
        for layer, place in zip(collector.compute(), collector.places, strict=True)
        for where, head in enumerate(place.heads)
    }


def table(
    numbers: Sequence[Sequence[int]],
    sweeps: Mapping[Part, Sweep],
    energies: Mapping[Part, float],
    kept: Mapping[float, Sequence[Sequence[int]]],
    looks: Mapping[tuple[int, int], Mapping[str, float]],
) -> list[Head]:
    """One row a head.

    Args:
        numbers: of each layer, what its heads are called.
        sweeps: of the parts.
        energies: of the parts' outputs.
        kept: for each speedup, the heads of each layer that are left.
        looks: what :func:`observed` gave.
    """
    rows = []
    for layer, heads in enumerate(numbers):
        if not heads:
            continue
        part = Part(layer, "attention")
        errors = np.cumsum(sweeps[part].scores) / energies[part]
        for order, place in enumerate(sweeps[part].order):
            head = heads[place]
            gone = [speedup for speedup, left in kept.items() if head not in left[layer]]
            rows.append(
                Head(
                    layer,
                    head,
                    order,
                    float(errors[order]),
                    min(gone, default=None),
                    **looks[layer, head],
                )
            )
    return sorted(rows, key=lambda row: (row.layer, row.head))


def correlations(rows: Sequence[Head]) -> list[Correlation]:
    """Of the order with each statistic, within layers of two heads or more.

    Layers differ more in what their heads look at than the heads of one do, so all heads in one pool would
    say little of the order, which is one of a layer. Layers are what is drawn for the interval (percentiles
    of ``RESAMPLES`` bootstrap samples by scipy): heads of a layer depend on each other.
    """
    found = []
    for name in STATISTICS:
        rhos = []
        for layer in sorted({row.layer for row in rows}):
            heads = [row for row in rows if row.layer == layer]
            values = [getattr(row, name) for row in heads]
            if len(set(values)) > 1:
                rhos.append(float(stats.spearmanr([row.order for row in heads], values).statistic))
        low = high = math.nan
        if len(rhos) > 1:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", stats.DegenerateDataWarning)
                result = stats.bootstrap(
                    (np.array(rhos),),
                    np.mean,
                    confidence_level=LEVEL,
                    n_resamples=RESAMPLES,
                    method="percentile",
                    rng=np.random.default_rng(0),
                )
            low, high = map(float, result.confidence_interval)
        if rhos:
            found.append(Correlation(name, float(np.mean(rhos)), low, high, len(rhos)))
    return found
