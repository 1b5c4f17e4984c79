"""How far a quantized model is from the one it was made of."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Outcome:
    """A model on the validation images, as one row of quantize.csv.

    Attributes:
        part: ``fp32``, ``w8a8`` (simulated), ``int8`` (by ONNX Runtime), or simulated with one ``layer`` or
            one kind of ``tensor`` in 8 bits and all else in fp32.
        name: which layer or kind; else empty.
        seed: of the calibration; None for fp32.
        images: their number.
        acc1: accuracy, 0 to 1; where images have several labels, ``label_accuracy`` in the table: the share
            of the pairs of an image and a label that are right.
        agreement: share of images given the same class as by fp32, or of those pairs.
        logit_error: root of summed squared differences to fp32's logits, over that of fp32's, an image's
            logits being taken from their mean unless it has several labels.
        agreement_w8a8: of int8, share of images given the same class as by w8a8 of the same seed; else None.
    """

    part: str
    name: str
    seed: int | None
    images: int
    acc1: float
    agreement: float
    logit_error: float
    agreement_w8a8: float | None = None


@dataclass(frozen=True)
class Timed:
    """What a model takes in ONNX Runtime, as one row of latency.csv.

    Attributes:
        model: ``fp32`` or ``int8``.
        bytes: of its file.
        batch: images a call.
        threads: of the runtime.
        repeats: calls.
        median_ms: milliseconds a call.
        low_ms: lower quartile.
        high_ms: upper quartile.
    """

    model: str
    bytes: int
    batch: int
    threads: int
    repeats: int
    median_ms: float
    low_ms: float
    high_ms: float


@torch.no_grad()
def evaluate(
    model: Callable[[Tensor], Tensor], batches: Iterable[dict[str, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Logits float32 (N, K) and labels int64 (N,) or (N, K) of all batches, on the CPU."""
    found = [(model(batch["image"]).float().cpu(), batch["label"]) for batch in batches]
    logits, labels = zip(*found, strict=True)
    return torch.cat(logits), torch.cat(labels)


def outcome(
    part: str,
    logits: Tensor,
    labels: Tensor,
    fp32: Tensor,
    name: str = "",
    seed: int | None = None,
    w8a8: Tensor | None = None,
) -> Outcome:
    """Compare logits (N, K) with those of fp32 and, where given, of the simulated model."""
    several = labels.ndim == 2
    # What is added to all logits of an image changes no softmax.
    compared, reference = (x if several else x - x.mean(1, keepdim=True) for x in (logits, fp32))
    return Outcome(
        part,
        name,
        seed,
        len(logits),
        agreement(logits, labels),
        agreement(logits, answers(fp32, several)),
        float((compared - reference).norm() / reference.norm()),
        None if w8a8 is None else agreement(logits, answers(w8a8, several)),
    )


def answers(logits: Tensor, several: bool) -> Tensor:
    """The classes that ``logits`` (N, K) give, (N,); of ``several`` labels an image 0 or 1, (N, K)."""
    return (logits > 0).long() if several else logits.argmax(1)


def agreement(logits: Tensor, labels: Tensor) -> float:
    """Share of the ``labels`` (N,) or (N, K) that ``logits`` (N, K) give too."""
    return (answers(logits, labels.ndim == 2) == labels).double().mean().item()
