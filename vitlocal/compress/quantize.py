"""``python -m vitlocal quantize``."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from vitlocal.compress import report
from vitlocal.compress.network import Point, QuantizedViT, everything
from vitlocal.compress.outcome import Outcome, Timed, evaluate, outcome
from vitlocal.compress.trained_run import (
    Batch,
    data_of,
    need,
    onnx_metadata,
    training_batches,
    validation_batches,
)
from vitlocal.data import ImageDataModule
from vitlocal.errors import InputError
from vitlocal.files import atomic_path
from vitlocal.models import VisionTransformer
from vitlocal.models.subject import Subject
from vitlocal.runs import open_run
from vitlocal.runs.trained import trained_subject

TIMED = (1, 128)
"""Images a call whose latency is measured."""


def quantize(
    ckpt_path: Path,
    data: ImageDataModule | str | None = None,
    output: Path | None = None,
    seeds: list[int] | None = None,
    calibration_batches: int = 16,
    batch_size: int = 32,
    max_images: int | None = None,
    sensitivity_images: int = 1000,
    int8: bool = True,
    repeats: int = 20,
) -> list[Outcome]:
    """Measure what 8-bit weights and activations cost a trained network, and make it int8.

    Post-training quantization as in "Quantizable Transformers" (arXiv 2306.12929), simulated: per tensor,
    weights symmetric, activations asymmetric with static ranges from training images without augmentation.
    Then, by ONNX Runtime, a real int8 model for the CPU, beside fp32 in the same runtime. Writes
    quantize.csv, quantize.md, and with int8 latency.csv, fp32.onnx and int8.onnx.

    Args:
        ckpt_path: A run's folder, for its best checkpoint, or a checkpoint.
        data: Data set to calibrate and measure on: a YAML file such as digits.yaml, or a class such as Digits
            with --data.KEY=VALUE. Left out, the one that the run was trained on.
        output: Folder to write to. Left out, quantize in the run's folder.
        seeds: Which training images set the ranges, one trial a seed. Left out, 0, 1 and 2.
        calibration_batches: Batches of training images a trial.
        batch_size: Images a batch, in calibration and evaluation.
        max_images: Most validation images to measure on, spread evenly. Left out, all.
        sensitivity_images: Most validation images to find out on what each layer and each kind of tensor
            loses; 0 leaves that out.
        int8: Make the int8 model, too; needs the extra compress.
        repeats: Calls whose latency is measured, of fp32 and int8 in turn.

    Returns:
        The rows of quantize.csv.

    Raises:
        InputError: What is given is not there, is out of its range, or doesn't fit together.
    """
    seeds = [0, 1, 2] if seeds is None else seeds
    _check_seeds(seeds)
    least = {"calibration_batches": 1, "batch_size": 1, "sensitivity_images": 0, "repeats": 1}
    given = (calibration_batches, batch_size, sensitivity_images, repeats)
    for (name, lowest), value in zip(least.items(), given, strict=True):
        if value < lowest:
            raise InputError(f"{name} is {value}: give at least {lowest}")
    if max_images is not None and max_images < 1:
        raise InputError(f"max_images is {max_images}: give at least 1, or leave it out for all")
    if int8:
        need("the int8 model", "onnx", "onnxscript", "onnxruntime")
    run = open_run(ckpt_path)
    output = output or run.folder / "quantize"
    if output.exists() and not output.is_dir():
        raise InputError(f"output {output} is a file: give a folder")
    subject = trained_subject(run).eval()
    of_run = data_of(subject, run, data)
    subject.to("cuda" if torch.cuda.is_available() else "cpu")
    trial = _Trial(subject, of_run, batch_size, calibration_batches, max_images)

    fp32, labels = evaluate(trial.float32, trial.validation())
    if not fp32.isfinite().all():
        raise InputError(f"the logits of {subject.name} are not finite: give a model whose weights are")
    found = [outcome("fp32", fp32, labels, fp32)]
    simulated: list[Tensor] = []
    for seed in tqdm(seeds, desc="quantizing", unit="seed", disable=None):
        trial.calibrate(seed)
        simulated.append(evaluate(trial.simulated, trial.validation())[0])
        found.append(outcome("w8a8", simulated[-1], labels, fp32, seed=seed))
    if sensitivity_images:
        found += trial.one_by_one(min(sensitivity_images, len(labels)), seeds[0])
    output.mkdir(parents=True, exist_ok=True)
    timed: list[Timed] = []
    if int8:
        logits, timed = trial.int8(output, seeds[0], repeats, onnx_metadata(run))
        found.append(outcome("int8", logits, labels, fp32, seed=seeds[0], w8a8=simulated[0]))
        report.write_table(output / "latency.csv", timed)
    words = report.SEVERAL_LABELS if of_run.multilabel else report.ONE_LABEL
    report.write_table(output / "quantize.csv", found, words)
    how = (
        f"{len(labels)} validation images of {trial.data.name}; ranges from {calibration_batches} batches of "
        f"{batch_size} training images."
    )
    text = report.markdown(subject.name, how, found, timed, words)
    with atomic_path(output / "quantize.md") as path:
        path.write_text(text, encoding="utf-8")
    print(text)
    print(f"vitlocal: the tables{' and models' if int8 else ''} are in {output}")
    return found


@dataclass
class _Trial:
    """A network, its quantized twin, and the images of both."""

    subject: Subject
    data: ImageDataModule
    batch_size: int
    calibration_batches: int
    max_images: int | None

    def __post_init__(self) -> None:
        network = self.subject.network
        if not isinstance(network, VisionTransformer):
            raise InputError(
                f"{self.subject.name} is a {type(network).__name__}: only vitlocal's VisionTransformer can "
                "be quantized so far; export it instead"
            )
        self.quantized = QuantizedViT(network)

    def validation(self, most: int | None = None) -> Iterator[Batch]:
        return validation_batches(self.data, self.batch_size, most or self.max_images)

    def calibration(self, seed: int) -> list[Tensor]:
        return training_batches(self.data, self.calibration_batches, self.batch_size, seed)

    def calibrate(self, seed: int) -> None:
        self.quantized.calibrate(map(self._normalised, self.calibration(seed)))

    def float32(self, images: Tensor) -> Any:
        return self.subject.network(self._normalised(images))

    def simulated(self, images: Tensor) -> Tensor:
        return self.quantized(self._normalised(images))

    def _normalised(self, images: Tensor) -> Tensor:
        return (images.to(self.subject.mean.device) - self.subject.mean) / self.subject.std

    def one_by_one(self, count: int, seed: int) -> list[Outcome]:
        """On ``count`` images, each layer and each kind of tensor in 8 bits with all else in fp32."""
        fp32, labels = evaluate(self.float32, self.validation(count))
        self.calibrate(seed)
        found = []
        for part, name, chosen in tqdm(_parts(self.quantized), desc="one by one", unit="part", disable=None):
            self.quantized.choose(chosen)
            logits = evaluate(self.simulated, self.validation(count))[0]
            found.append(outcome(part, logits, labels, fp32, name, seed))
        self.quantized.choose(everything)
        return found

    def int8(
        self, output: Path, seed: int, repeats: int, metadata: dict[str, str]
    ) -> tuple[Tensor, list[Timed]]:
        """Write fp32.onnx and int8.onnx; the logits of the latter, and what both take."""
        from vitlocal.compress import onnx_model

        self.subject.cpu()
        paths = [output / "fp32.onnx", output / "int8.onnx"]
        with atomic_path(paths[0]) as path:
            onnx_model.write_onnx(self.subject, path, metadata)
        with atomic_path(paths[1]) as path:
            onnx_model.write_int8(paths[0], path, self.calibration(seed))
        threads = torch.get_num_threads()
        models = [onnx_model.OnnxModel(path, threads) for path in paths]
        logits, _ = evaluate(models[1], self.validation())
        timed = []
        for size in TIMED:
            sample = next(validation_batches(self.data, size, size))["image"]
            sample = sample.repeat(-(-size // len(sample)), 1, 1, 1)[:size]  # there may be fewer images
            for path, latency in zip(paths, onnx_model.latencies(models, sample, repeats), strict=True):
                timed.append(Timed(path.stem, path.stat().st_size, size, threads, repeats, *latency))
        return logits, timed


def _parts(quantized: QuantizedViT) -> list[tuple[str, str, Callable[[Point], bool]]]:
    """Every layer and every kind of tensor: what it is, its name, and which points are of it."""
    points = [*quantized.weights, *quantized.activations]
    layers = dict.fromkeys(point.layer for point in quantized.activations)
    kinds = dict.fromkeys(point.kind for point in points)

    def of_layer(name: str) -> Callable[[Point], bool]:
        return lambda point: point.layer == name

    def of_kind(name: str) -> Callable[[Point], bool]:
        return lambda point: point.kind == name

    return [("layer", name, of_layer(name)) for name in layers] + [
        ("tensor", name, of_kind(name)) for name in kinds
    ]


def _check_seeds(seeds: list[int]) -> None:
    if not seeds or len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**32 for seed in seeds):
        raise InputError(f"seeds is {seeds}: give different whole numbers from 0 to {2**32 - 1}")
