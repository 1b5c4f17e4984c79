"""What heads and MLP features take on this machine: measured once, and kept in a file."""

import copy
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped]

from vitlocal import hardware
from vitlocal.compress.prune.parts import Kind
from vitlocal.errors import InputError
from vitlocal.files import atomic_path
from vitlocal.models import VisionTransformer
from vitlocal.models.pruning import prune

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
        threads: of PyTorch on the CPU.
    """

    device: str
    batch_size: int
    precision: Precision
    threads: int


@dataclass(frozen=True)
class Latency:
    """Milliseconds a call.

    Attributes:
        machine: where they were measured.
        setting: how.
        tokens: of an image, with their features and those of a head: what the times of a part depend on.
        network: the whole network's.
        parts: of one attention or MLP with its norm and its residual sum, by its number of structures.
    """

    machine: str
    setting: Setting
    tokens: tuple[int, int, int]
    network: float
    parts: dict[Kind, dict[int, float]]

    def of(self, kind: Kind, count: int) -> float:
        """What a part with so many structures takes; without any, it is not there."""
        return self.parts[kind][count] if count else 0.0


def measure(
    network: VisionTransformer,
    image_shape: tuple[int, int, int],
    wanted: dict[Kind, Sequence[int]],
    setting: Setting,
    repeats: int,
) -> Latency:
    """Measure a network and its parts, all in turn in each of ``repeats`` rounds; medians of these.

    Args:
        network: with all of its heads and features.
        image_shape: channels, height and width.
        wanted: for each kind of part, the numbers of structures.
        setting: how the network is used.
        repeats: calls of each that are measured.

    Raises:
        InputError: the device can't be used.
    """
    network = on_device(network, setting.device)
    tokens = network.geometry.num_tokens
    features = network.head.in_features
    images = torch.randn(setting.batch_size, *image_shape, device=setting.device)
    x = torch.randn(setting.batch_size, tokens, features, device=setting.device)
    calls: list[Call] = [(network, images)]
    names: list[tuple[Kind, int]] = []
    for kind, counts in wanted.items():
        for count in counts:
            if count:
                names.append((kind, count))
                calls.append((_alone(network, kind, count), x))
    whole, *alone = medians(calls, setting, repeats, "measuring latencies")
    parts: dict[Kind, dict[int, float]] = {kind: {} for kind in wanted}
    for (kind, count), found in zip(names, alone, strict=True):
        parts[kind][count] = found
    return Latency(
        hardware.machine(setting.device), setting, (tokens, features, _head_dim(network)), whole, parts
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
    """
    found: list[list[float]] = [[] for _ in calls]
    with _used(setting), torch.inference_mode():
        for module, x in calls:
            for _ in range(WARM_UP):
                module(x)
        for _ in tqdm(range(repeats), desc=about, unit="round", disable=None):
            for times, (module, x) in zip(found, calls, strict=True):
                times.append(_timed(module, x, setting))
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


def write(latency: Latency, path: Path) -> None:
    """Write a table as JSON."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(asdict(latency), indent=1) + "\n", encoding="utf-8")


def read(
    path: Path, network: VisionTransformer, wanted: dict[Kind, Sequence[int]], setting: Setting
) -> Latency:
    """Read a table that :func:`write` wrote, if it is of this network, machine and use.

    Raises:
        InputError: it can't be read, or is of another.
    """
    try:
        given: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        latency = Latency(
            str(given["machine"]),
            Setting(**given["setting"]),
            tuple(given["tokens"]),
            float(given["network"]),
            {
                kind: {int(count): float(value) for count, value in of.items()}
                for kind, of in given["parts"].items()
            },
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is no table of latencies: give one that prune wrote, or remove it to measure anew"
        ) from error
    here = hardware.machine(setting.device)
    if latency.machine != here:
        raise InputError(
            f"the latencies in {path} were measured on another machine ({latency.machine}; this is {here}): "
            "remove it to measure here"
        )
    given_how, how = asdict(latency.setting), asdict(setting)
    if other := [name for name in how if how[name] != given_how[name]]:
        raise InputError(
            f"the latencies in {path} were measured with {other[0]} {given_how[other[0]]}, not "
            f"{how[other[0]]}: remove it to measure anew, or give the {other[0]} that it has"
        )
    sizes = network.geometry.num_tokens, network.head.in_features, _head_dim(network)
    missing = [
        f"{kind} {count}"
        for kind, counts in wanted.items()
        for count in counts
        if count and count not in latency.parts.get(kind, {})
    ]
    if latency.tokens != sizes or missing:
        raise InputError(
            f"the latencies in {path} are of a network of other sizes: remove it to measure this one"
        )
    return latency


def _alone(network: VisionTransformer, kind: Kind, count: int) -> nn.Module:
    """A layer with so many heads and no MLP, or an MLP of so many features and no attention."""
    has = (
        block for block in network.blocks if (block.attn if kind == "attention" else block.mlp) is not None
    )
    block: Any = copy.deepcopy(max(has, key=_structures(kind)))
    heads = block.attn.head_numbers[:count] if kind == "attention" else ()
    prune([block], [heads], [range(count if kind == "mlp" else 0)])
    return block


def _structures(kind: Kind) -> Callable[[Any], int]:
    return (lambda b: b.attn.num_heads) if kind == "attention" else (lambda b: b.mlp.fc2.in_features)


def _head_dim(network: VisionTransformer) -> int:
    blocks: list[Any] = list(network.blocks)
    return next((block.attn.head_dim for block in blocks if block.attn is not None), 0)


@contextmanager
def _used(setting: Setting) -> Iterator[None]:
    """Within the block, PyTorch has the threads and the precision."""
    threads = torch.get_num_threads()
    torch.set_num_threads(setting.threads)
    place = torch.device(setting.device).type
    autocast: AbstractContextManager[object] = (
        torch.autocast(place, REDUCED[setting.precision]) if setting.precision in REDUCED else nullcontext()
    )
    try:
        with autocast:
            yield
    finally:
        torch.set_num_threads(threads)


def _timed(module: nn.Module, x: Tensor, setting: Setting) -> float:
    """Seconds of a call, until the device is done."""
    on_gpu = x.device.type == "cuda"
    clock = time.thread_time if x.device.type == "cpu" and setting.threads == 1 else time.perf_counter
    if on_gpu:
        torch.cuda.synchronize()
    begun = clock()
    module(x)
    if on_gpu:
        torch.cuda.synchronize()
    return clock() - begun
