"""ONNX: a network written to a file, run by ONNX Runtime, and made int8 by it.

ONNX Runtime's static quantization: it makes one portable file, run by the runtime that runs the fp32 one, so
that sizes and latencies compare, and which needs neither PyTorch nor a compiler.
"""

import logging
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn

from vitlocal.compress.quantizer import MOMENTUM
from vitlocal.models.subject import Subject

INPUT, OUTPUT = "image", "logits"


def write_onnx(model: Subject, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a network with input ``image``, uint8 (batch, C, H, W), and output ``logits``, (batch, K).

    The network's normalisation is inside; the number of images of a call is free.

    Args:
        model: on the CPU.
        path: of the file.
        metadata: what the file tells besides, in its ``metadata_props``.
    """
    import onnx

    example = torch.zeros(2, len(model.mean), *model.image_size, dtype=torch.uint8)
    export(model.eval(), example, path)
    written = onnx.load(path)
    onnx.helper.set_model_props(written, dict(metadata))
    onnx.save(written, path)


def export(module: nn.Module, example: Tensor, path: Path) -> None:
    """Write a module with one input, (batch, ...) with any ``batch``, and one output.

    Args:
        module: in evaluation, on the CPU.
        example: of the input, of two rows or more.
        path: of the file.
    """
    with _quiet():
        # In two steps: torch.onnx.export alone, where it can't leave the number of images free, fixes it.
        batch = {0: torch.export.Dim("batch")}
        program = torch.export.export(module, (example,), dynamic_shapes=(batch,))
        torch.onnx.export(
            program,
            (),
            path,
            dynamo=True,
            verbose=False,
            external_data=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
        )


class OnnxModel:
    """A model of :func:`export`, or made of one, in ONNX Runtime on the CPU.

    Args:
        path: of the file.
        threads: that one call works with.
    """

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(path, options, providers=providers)

    def __call__(self, images: Tensor) -> Tensor:
        """What the model makes of its input, such as uint8 images (B, C, H, W) to logits (B, K)."""
        return torch.from_numpy(self._session.run([OUTPUT], {INPUT: images.numpy()})[0])


class _Calibration:
    """Batches as ONNX Runtime's calibration asks for them: a range at a time, then one by one."""

    def __init__(self, batches: Sequence[Tensor]) -> None:
        self._batches = batches
        self._left: Iterator[Tensor] = iter(batches)

    def __len__(self) -> int:
        return len(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._left = iter(self._batches[start_index:end_index])

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._left, None)
        return None if batch is None else {INPUT: batch.numpy()}


def write_int8(fp32: Path, int8: Path, batches: Sequence[Tensor]) -> None:
    """Quantize a model of :func:`write_onnx` by ONNX Runtime: int8 weights, uint8 activations, per tensor.

    All kinds of operators that it knows in int8, its default; products alone would be rounded less, but leave
    more of the work in float32.

    Args:
        fp32: its file.
        int8: the file to write.
        batches: uint8 images (B, C, H, W) to calibrate on, by the running minimum and maximum over batches.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with TemporaryDirectory() as folder, _quiet():
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(fp32), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            prepared,
            int8,
            _Calibration(batches),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={
                "CalibMovingAverage": True,
                "CalibMovingAverageConstant": 1 - MOMENTUM,
                "CalibStridedMinMax": 1,  # a batch at a time; else the average would be a plain mean
            },
        )


def latencies(models: Sequence[OnnxModel], images: Tensor, repeats: int) -> list[tuple[float, float, float]]:
    """Time models side by side: in every repeat each of them once, so that what slows one slows all.

    Args:
        models: what to time.
        images: uint8 (B, C, H, W), of each call.
        repeats: calls of each, after two that don't count.

    Returns:
        Of each model, milliseconds a call: median, lower and upper quartile.
    """
    taken: list[list[float]] = [[] for _ in models]
    for _ in range(repeats + 2):
        for model, times in zip(models, taken, strict=True):
            start = time.perf_counter()
            model(images)
            times.append((time.perf_counter() - start) * 1000)
    median, low, high = np.quantile(np.array(taken)[:, 2:], [0.5, 0.25, 0.75], axis=1).tolist()
    return list(zip(median, low, high, strict=True))


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter and the quantizer warn of what doesn't concern whoever typed the command."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
