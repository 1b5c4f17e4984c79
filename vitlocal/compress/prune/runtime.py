"""What runs a network on this machine: PyTorch, ``torch.compile`` or ONNX Runtime; and how long it takes."""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped]

from vitlocal.compress.trained_run import need
from vitlocal.errors import InputError
from vitlocal.internals import compiling_many
from vitlocal.models import VisionTransformer

Runtime: TypeAlias = Literal["eager", "compile", "onnx"]
RUNTIMES: dict[Runtime, str] = {"eager": "PyTorch", "compile": "torch.compile", "onnx": "ONNX Runtime"}
"""What each is called."""

Precision: TypeAlias = Literal["32-true", "bf16-mixed", "16-mixed"]
REDUCED: dict[str, torch.dtype] = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
WARM_UP = 3
"""Calls before the first that is measured."""


@dataclass(frozen=True)
class Setting:
    """How a network is used, which its speed depends on.

    Attributes:
        device: such as ``cpu`` or ``cuda``.
        batch_size: images a call.
        precision: as Lightning calls it.
        threads: on the CPU.
        runtime: what runs it.
    """

    device: str
    batch_size: int
    precision: Precision
    threads: int
    runtime: Runtime = "eager"

    def check(self) -> None:
        """Refuse what the runtime can't do.

        Raises:
            InputError: ONNX Runtime is not there, or wanted elsewhere than on the CPU or not in float32.
        """
        if self.runtime == "onnx":
            need("a latency of ONNX Runtime", "onnx", "onnxscript", "onnxruntime")
            for name, value, able in (
                ("device", self.device, "cpu"),
                ("precision", self.precision, "32-true"),
            ):
                if value != able:
                    raise InputError(
                        f"{name} is {value}, and ONNX Runtime is measured with {able} only: give "
                        f"{name}={able}, or another runtime"
                    )


Call: TypeAlias = tuple[nn.Module, Tensor]


def medians(calls: Sequence[Call], setting: Setting, repeats: int, about: str) -> list[float]:
    """Milliseconds of each call, the median of ``repeats`` rounds in each of which all are called in turn.

    So what slows the machine down for a while slows down all alike. On one thread of a CPU it is the thread's
    own time, which other processes do not lengthen; elsewhere it is the clock's.

    Args:
        calls: modules in evaluation on the device, and what they are called with.
        setting: how.
        repeats: rounds.
        about: what is measured, shown with the progress.

    Raises:
        InputError: the runtime can't run one of them.
    """
    found: list[list[float]] = [[] for _ in calls]
    # Warm-up takes the longest where each is compiled or written to a file first.
    beginning = tqdm(calls, desc=f"{about}, to begin with", disable=None)
    ready = [_ready(module, x, setting) for module, x in beginning]
    with _used(setting):
        for _ in tqdm(range(repeats), desc=about, unit="round", disable=None):
            for times, run in zip(found, ready, strict=True):
                times.append(_timed(run, setting))
    return [1000 * median(times) for times in found]


def on_device(network: VisionTransformer, device: str) -> VisionTransformer:
    """A copy of a network in evaluation on a device.

    Raises:
        InputError: the device can't be used.
    """
    try:
        return copy.deepcopy(network).to(device).eval()
    except (AssertionError, RuntimeError) as error:  # an unknown name, or no such hardware or software
        said = str(error).splitlines()[0]
        raise InputError(
            f"device is {device}, which can't be used ({said}): give another, such as cpu"
        ) from error


def _ready(module: nn.Module, x: Tensor, setting: Setting) -> Callable[[], object]:
    """A call of a module with what it is called with, warmed up."""
    try:
        run = (
            _exported(module, x, setting.threads)
            if setting.runtime == "onnx"
            else _by_torch(module, x, setting)
        )
        with _used(setting):
            for _ in range(WARM_UP):
                run()
    # Compilers and exporters raise many kinds of errors; PyTorch itself has none that a user can mend.
    except Exception as error:
        if setting.runtime == "eager":
            raise
        said = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise InputError(
            f"{RUNTIMES[setting.runtime]} can't run the network ({said}): give another runtime, such as eager"
        ) from error
    return run


def _by_torch(module: nn.Module, x: Tensor, setting: Setting) -> Callable[[], object]:
    run = torch.compile(module, dynamic=False) if setting.runtime == "compile" else module
    return lambda: run(x)


def _exported(module: nn.Module, x: Tensor, threads: int) -> Callable[[], object]:
    from vitlocal.compress.onnx_model import OnnxModel, export

    with TemporaryDirectory() as folder:
        path = Path(folder) / "module.onnx"
        export(module, x if len(x) > 1 else x.repeat_interleave(2, 0), path)
        model = OnnxModel(path, threads)
    return lambda: model(x)


@contextmanager
def _used(setting: Setting) -> Iterator[None]:
    """Within the block, PyTorch has the threads and the precision, and records nothing."""
    threads = torch.get_num_threads()
    torch.set_num_threads(setting.threads)
    place = torch.device(setting.device).type
    autocast: AbstractContextManager[object] = (
        torch.autocast(place, REDUCED[setting.precision]) if setting.precision in REDUCED else nullcontext()
    )
    compiling = compiling_many() if setting.runtime == "compile" else nullcontext()
    try:
        with autocast, torch.inference_mode(), compiling:
            yield
    finally:
        torch.set_num_threads(threads)


def _timed(run: Callable[[], object], setting: Setting) -> float:
    """Seconds of a call, until the device is done."""
    place = torch.device(setting.device).type
    clock = time.thread_time if place == "cpu" and setting.threads == 1 else time.perf_counter
    if place == "cuda":
        torch.cuda.synchronize()
    begun = clock()
    run()
    if place == "cuda":
        torch.cuda.synchronize()
    return clock() - begun
