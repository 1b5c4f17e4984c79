"""python benchmarks/observe.py"""

import argparse
import json
import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from side_by_side import Benchmark, rival
from torch import Tensor

from vitlocal.activations.collector import OutlierCollector
from vitlocal.heads.collector import HeadCollector
from vitlocal.models import VisionTransformer

SIZES = {32: 128, 64: 32, 128: 4}  # images of this side, 65, 257 and 1,025 tokens, and of them a batch


def tokens(side: int) -> int:
    """Of an image, the class token included."""
    return (side // 4) ** 2 + 1


def observed(
    network: VisionTransformer,
    images: Tensor,
    bfloat16: bool = False,
    kind: type[HeadCollector | OutlierCollector] = HeadCollector,
) -> Callable[[], Any]:
    """A validation pass in which every head of every image is measured, as the monitors do it."""

    def run() -> Any:
        collector = kind(network, images.device)
        with plain(images, bfloat16), collector.batch(images):
            network(images)
        return collector.compute()

    return run


def plain(images: Tensor, bfloat16: bool) -> Any:
    """Autocast, or what does nothing in its place."""
    return torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16)


def kept(network: VisionTransformer, images: Tensor) -> Callable[[], Any]:
    """timm's AttentionExtract keeps the maps of all layers; then each is reduced to MAD and entropy."""
    timm, utils = rival("timm"), rival("timm.utils")
    theirs = timm.models.VisionTransformer(
        img_size=images.shape[-1],
        patch_size=4,
        embed_dim=192,
        num_heads=12,
        depth=len(network.blocks),
        mlp_ratio=2.0,
        num_classes=10,
    )
    theirs.load_state_dict(network.state_dict())
    for block in theirs.blocks:
        block.attn.fused_attn = False
    extract = utils.AttentionExtract(theirs.to(images.device), method="fx")
    (queries,) = network.geometry.queries(images.device)
    distances = network.geometry.distances(queries)[:, 1:]

    def run() -> Any:
        values = []
        for attention in extract(images).values():
            patches = attention[:, :, 1:, 1:]
            patches = patches / patches.sum(-1, keepdim=True)
            mad = (patches * distances).sum(-1).mean((0, 2))
            entropy = -(patches * patches.log()).sum(-1).mean((0, 2)) / math.log(len(distances))
            values.append((mad, entropy))
        return values

    return run


def make(side: int, depth: int, batch: int, device: torch.device) -> tuple[VisionTransformer, Tensor]:
    """The default ViT of this depth, and a batch."""
    torch.manual_seed(0)
    network = VisionTransformer((side, side), depth=depth).to(device).eval()
    return network, torch.randn(batch, 3, side, side, device=device)


KINDS: dict[str, Callable[[VisionTransformer, Tensor], Callable[[], Any]]] = {
    "forward": lambda network, images: lambda: network(images),
    "vitlocal": observed,
    "AttentionExtract": kept,
}


def peak(kind: str, side: int, depth: int, batch: int, device: str) -> float:
    """MiB that a pass adds at its peak, in this process, to the network and the batch.

    On the CPU the process's high-water mark, after a pass over a single image has brought in libraries.
    """
    network, images = make(side, depth, batch, torch.device(device))
    run, small = KINDS[kind](network, images), KINDS[kind](network, images[:1])
    small()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark falls to what is used now
    before = _status("VmRSS")
    run()
    return (_status("VmHWM") - before) / 2**10


def _status(name: str) -> int:
    """A line of /proc/self/status, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))


def main() -> None:
    """Time observed passes against plain ones and against kept maps, then measure peaks of memory."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--peak", help=argparse.SUPPRESS
    )  # in a process of its own: what peak() takes, in JSON
    bench_only = "--peak" not in sys.argv
    if not bench_only:
        with torch.no_grad():
            print(peak(*json.loads(parser.parse_known_args()[0].peak)))
        return
    bench = Benchmark(
        "observe", "What it costs to measure every head of every image in a validation pass", parser
    )
    rival("timm")
    warnings.simplefilter("ignore")

    def peak_apart(kind: str, side: int, depth: int, batch: int) -> float:
        words = json.dumps([kind, side, depth, batch, bench.device.type])
        done = subprocess.run(
            [sys.executable, __file__, "--peak", words], capture_output=True, text=True, check=True
        )
        return float(done.stdout.split()[-1])

    with torch.no_grad():
        for side, batch in SIZES.items():
            network, images = make(side, 9 if side == 32 else 3, batch, bench.device)
            for bfloat16 in (False, True) if side == 32 else (False,):

                def forward(
                    network: Any = network, images: Tensor = images, bfloat16: bool = bfloat16
                ) -> None:
                    with plain(images, bfloat16):
                        network(images)

                words = "bf16" if bfloat16 else "fp32"
                bench.compare(
                    f"A validation pass, {tokens(side)} tokens, batch {batch}, depth {len(network.blocks)}, "
                    + words,
                    {
                        "without observation": forward,
                        "LocalityMonitor": observed(network, images, bfloat16),
                        "OutlierMonitor": observed(network, images, bfloat16, OutlierCollector),
                    },
                    batch,
                    "images",
                )
        for side, batch in SIZES.items():
            depth = 9 if side == 32 else 3
            network, images = make(side, depth, batch, bench.device)
            memory = {
                name: {"peak, MiB over the network's": round(peak_apart(name, side, depth, batch))}
                for name in ("vitlocal", "AttentionExtract")
            }
            bench.compare(
                f"Forward and statistics, {tokens(side)} tokens, batch {batch}, depth {depth}, fp32",
                {"vitlocal": observed(network, images), "AttentionExtract": kept(network, images)},
                batch,
                "images",
                memory,
            )
        for side in SIZES:
            peaks = []
            for depth, batch in ((6, 8), (24, 8), (6, 32)) if side < 128 else ((6, 2), (24, 2)):
                alone, whole = (peak_apart(kind, side, depth, batch) for kind in ("forward", "vitlocal"))
                peaks.append(f"depth {depth}, batch {batch}: {whole:.0f} MiB observed, {alone:.0f} without")
            bench.note(f"Peak memory of a pass at {tokens(side)} tokens: {'; '.join(peaks)}")
    bench.finish()


if __name__ == "__main__":
    main()
