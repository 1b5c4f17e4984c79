"""What heads and MLP features take on this machine: measured once, and kept in a file."""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitlocal import hardware
from vitlocal.compress.prune.parts import Kind, kept_by
from vitlocal.compress.prune.runtime import Call, Setting, medians, on_device
from vitlocal.errors import InputError
from vitlocal.files import atomic_path
from vitlocal.models import VisionTransformer
from vitlocal.models.pruning import prune


@dataclass(frozen=True)
class Latency:
    """Milliseconds a call.

    Attributes:
        machine: where they were measured.
        setting: how.
        tokens: of an image, with their features and those of a head: what the times of a part depend on.
        network: the whole network's.
        rest: of what can't be pruned: the network without any attention or MLP.
        parts: of one attention or MLP with its norm and its residual sum, by its number of structures; those
            of the whole network and ``rest`` add up to ``network``.
    """

    machine: str
    setting: Setting
    tokens: tuple[int, int, int]
    network: float
    rest: float
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

    Parts are measured by themselves. In the network each finds other things in the caches, so their times are
    multiplied by what makes them add up to the network's.

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
    bare = copy.deepcopy(network)
    nothing: list[list[int]] = [[] for _ in bare.blocks]
    prune(list(bare.blocks), nothing, nothing)
    calls: list[Call] = [(network, images), (bare, images)]
    names: list[tuple[Kind, int]] = []
    for kind, counts in wanted.items():
        for count in counts:
            if count:
                names.append((kind, count))
                calls.append((_alone(network, kind, count), x))
    whole, rest, *alone = medians(calls, setting, repeats, "measuring latencies")
    of = dict(zip(names, alone, strict=True))
    dense = sum(of[part.kind, count] for part, count in kept_by(network).items())
    factor = max(whole - rest, 0.0) / dense if dense else 1.0
    return Latency(
        hardware.machine(setting.device),
        setting,
        (tokens, features, _head_dim(network)),
        whole,
        rest,
        {
            kind: {count: factor * of[kind, count] for count in counts if count}
            for kind, counts in wanted.items()
        },
    )


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
            float(given["rest"]),
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
