"""python benchmarks/scale.py"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from clock import taken
from side_by_side import Benchmark

from vitlocal.hardware import precision
from vitlocal.heads.collector import HeadCollector
from vitlocal.models import VisionTransformer

DEFAULT = {"side": 32, "images": 64, "heads": 12}
SWEEPS = {"side": (16, 32, 64), "images": (32, 64, 128, 256), "heads": (3, 6, 12, 24)}
EPOCH = 2560


def network(device: torch.device, side: int, heads: int) -> VisionTransformer:
    """A third of the default ViT's depth, so that the sweeps take minutes."""
    torch.manual_seed(0)
    return VisionTransformer((side, side), num_classes=100, depth=3, num_heads=heads).to(device)


def training_step(device: torch.device, side: int, images: int, heads: int) -> Callable[[], None]:
    """Forward, backward and optimiser, in the precision that vitlocal takes on this machine."""
    model = network(device, side, heads)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    batch = torch.randn(images, 3, side, side, device=device)
    target = torch.randint(100, (images,), device=device)
    bfloat16 = precision(device.type) == "bf16-mixed"

    def run() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            loss = F.cross_entropy(model(batch), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def observed_pass(device: torch.device, side: int, images: int, heads: int) -> Callable[[], None]:
    """A forward pass without gradients, in which every head of every image is measured."""
    model = network(device, side, heads).eval()
    batch = {"image": torch.randn(images, 3, side, side, device=device)}
    bfloat16 = precision(device.type) == "bf16-mixed"

    def run() -> None:
        collector = HeadCollector(model, device)
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=bfloat16)
        with torch.no_grad(), autocast, collector.batch(batch["image"]):
            model(batch["image"])
        collector.compute()

    return run


def epochs(bench: Benchmark, folder: Path, counts: tuple[int, ...]) -> None:
    """Epochs of `fit` in processes that share out the batch and the cores."""
    data = folder / "data.npz"
    images = np.random.default_rng(0).integers(0, 256, (EPOCH, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(EPOCH)[:, None] % 100
    np.savez(data, train_images=images, train_labels=labels, val_images=images[:100], val_labels=labels[:100])
    words = [
        "-m",
        "vitlocal",
        "fit",
        "--config",
        "npz.yaml",
        "--config",
        "modern.yaml",
        f"--data.path={data}",
    ]
    words += [
        "--model.network.depth=3",
        "--model.warmup_epochs=0",
        "--trainer.max_epochs=1",
        "--locality=null",
    ]
    words += ["--trainer.limit_val_batches=0", "--trainer.logger=false", "--checkpoint=null"]
    words += [f"--trainer.default_root_dir={folder}", "--trainer.callbacks=clock.Clock"]
    words += [f"--trainer.callbacks.path={folder / 'seconds.txt'}"]
    words += ["--trainer.accelerator=gpu" if bench.device.type == "cuda" else "--trainer.accelerator=cpu"]
    times: dict[str, list[float]] = {f"{count}": [] for count in counts}
    for repetition in range(bench.args.repetitions + 1):
        for count in counts:
            flags = [f"--trainer.devices={count}", f"--data.batch_size={128 // count}"]
            flags += ["--trainer.strategy=ddp"] if count > 1 else []
            threads = str(max(1, bench.args.threads // count))
            environment = os.environ | {"OMP_NUM_THREADS": threads, "PYTHONPATH": str(Path(__file__).parent)}
            subprocess.run(
                [sys.executable, *words, *flags],
                env=environment,
                check=True,
                capture_output=True,
                timeout=300,
            )
            seconds = taken(folder / "seconds.txt")
            if repetition:
                times[f"{count}"].append(seconds)
    title = "An epoch of training in processes, batch 128 and all cores shared out between them"
    bench.add(title, times, EPOCH - EPOCH % 128, "images")


def main() -> None:
    """Time steps and observed passes as one size grows at a time, then epochs in 1 and 2 processes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2])
    bench = Benchmark("scale", "What a training step and an observed pass cost as sizes grow", parser)
    for kind, make in (("A training step", training_step), ("An observed pass", observed_pass)):
        for name, values in SWEEPS.items():
            sizes = {}
            for value in values:
                size = DEFAULT | {name: value}
                sizes[f"{(value // 4) ** 2 + 1} tokens" if name == "side" else f"{value} {name}"] = size
            contenders = {label: make(bench.device, **size) for label, size in sizes.items()}
            amounts = {label: size["images"] for label, size in sizes.items()}
            others = ", ".join(f"{key} {value}" for key, value in DEFAULT.items() if key != name)
            bench.compare(f"{kind}: width 192, depth 3, {others}", contenders, amounts, "images")
    if bench.args.processes:
        with tempfile.TemporaryDirectory() as folder:
            epochs(bench, Path(folder), tuple(bench.args.processes))
    bench.finish()


if __name__ == "__main__":
    main()
