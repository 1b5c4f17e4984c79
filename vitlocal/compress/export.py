"""``python -m vitlocal export``."""

import json
from pathlib import Path
from typing import Any

import torch

from vitlocal.compress.outcome import evaluate
from vitlocal.compress.trained_run import data_of, need, onnx_metadata, validation_batches
from vitlocal.data import ImageDataModule
from vitlocal.errors import InputError
from vitlocal.files import atomic_path
from vitlocal.models.subject import Subject
from vitlocal.runs import Run, open_run
from vitlocal.runs.trained import trained_subject

CHECKED = 256
"""Most validation images on which an ONNX file is compared with PyTorch."""

TOLERANCE = 1e-4
"""Largest difference of a logit, over the largest logit: ten times what the order of float32 sums makes."""


def export(ckpt_path: Path, output: Path, data: ImageDataModule | str | None = None) -> None:
    """Write a trained network as ONNX or safetensors.

    An ONNX file takes raw images, uint8 (batch, C, H, W) with any number of them, and gives logits; the
    normalisation is inside, and its metadata have the class names, as JSON. It is run by ONNX Runtime on
    validation images and kept only if it gives PyTorch's logits. A safetensors file has the weights under
    timm's names, and the hyperparameters, among them the mean and the standard deviation to normalise by, as
    JSON in its metadata.

    Args:
        ckpt_path: A run's folder, for its best checkpoint, or a checkpoint.
        output: File to write, whose name ends in .onnx or .safetensors.
        data: Data set to check an ONNX file on: a YAML file such as digits.yaml, or a class such as Digits
            with --data.KEY=VALUE. Left out, the one that the run was trained on.

    Raises:
        InputError: What is given is not there or doesn't fit together, or the file gives other logits.
    """
    suffix = output.suffix.lower()
    if suffix not in (".onnx", ".safetensors"):
        raise InputError(f"output is {output}: give a name that ends in .onnx or .safetensors")
    if output.is_dir():
        raise InputError(f"output {output} is a folder: give the name of a file")
    if suffix == ".onnx":
        need("an ONNX file", "onnx", "onnxscript", "onnxruntime")
    else:
        need("a safetensors file", "safetensors")
    run = open_run(ckpt_path)
    subject = trained_subject(run).eval()
    if suffix == ".onnx":
        _write_onnx(subject, run, data_of(subject, run, data), output)
    else:
        _write_safetensors(subject, run, output)


def _write_onnx(subject: Subject, run: Run, data: ImageDataModule, output: Path) -> None:
    from vitlocal.compress.onnx_model import OnnxModel, write_onnx

    network: Any = subject
    with atomic_path(output) as path:
        write_onnx(subject, path, onnx_metadata(run))
        model = OnnxModel(path, torch.get_num_threads())
        wanted, labels = evaluate(network, validation_batches(data, 32, CHECKED))
        given, _ = evaluate(model, validation_batches(data, 32, CHECKED))
        largest, off = wanted.abs().max().item(), (given - wanted).abs().max().item()
        if not off <= TOLERANCE * max(1, largest):
            raise InputError(
                f"{output} is not written: in ONNX Runtime the logits of {subject.name} differ from "
                f"PyTorch's by {off:.2g}, with a largest of {largest:.2g}; give another checkpoint, or other "
                "versions of onnxscript and onnxruntime"
            )
    print(
        f"vitlocal: {output} gives PyTorch's logits on {len(labels)} validation images of {data.name}, "
        f"to {off:.2g} (the largest is {largest:.2g})"
    )


def _write_safetensors(subject: Subject, run: Run, output: Path) -> None:
    from safetensors.torch import save

    network: Any = subject.network
    weights = network.state_dict()
    with atomic_path(output) as path:
        # Not save_file, whose file only its owner may read.
        path.write_bytes(save(weights, {"format": "pt", "hyperparameters": json.dumps(run.hyperparameters)}))
    print(f"vitlocal: {output} has {len(weights)} tensors under timm's names")
