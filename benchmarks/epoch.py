"""python benchmarks/epoch.py"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
from clock import Clock, taken
from side_by_side import Benchmark, rival
from usual import UsualModule, usual_loader

from vitlocal.cli import main as vitlocal

CLASSES = 100


def parser() -> argparse.ArgumentParser:
    """Sizes of the data and the model."""
    parser = argparse.ArgumentParser()
    for name, value in (("images", 640), ("batch", 128), ("width", 192), ("depth", 9), ("heads", 12)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--workers", type=int, default=2, help="of the usual script's DataLoader")
    return parser


def main() -> None:
    """Time training epochs of both, from the first batch's loading to the last step."""
    question = "An epoch of the Modern protocol on CIFAR-shaped images, against the script a user would write"
    bench = Benchmark("epoch", question, parser())
    args, timm = bench.args, rival("timm")
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (args.images, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(args.images) % CLASSES
    shape = {"depth": args.depth, "mlp_ratio": 2.0, "num_classes": CLASSES}

    def usual(precision: str) -> Callable[[Path], None]:
        def run(clock: Path) -> None:
            network = timm.models.VisionTransformer(
                img_size=32, patch_size=4, embed_dim=args.width, num_heads=args.heads, **shape
            )
            trainer = pl.Trainer(
                accelerator="gpu" if bench.device.type == "cuda" else "cpu",
                precision=precision,
                max_epochs=1,
                callbacks=[Clock(str(clock))],
                logger=False,
                enable_checkpointing=False,
                enable_model_summary=False,
            )
            loader = usual_loader(images, labels, CLASSES, args.batch, args.workers)
            trainer.fit(UsualModule(network, CLASSES), loader)

        return run

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.npz"
        few = slice(0, CLASSES)
        splits = {"train": slice(None), "val": few}
        np.savez(
            data,
            **{f"{name}_images": images[part] for name, part in splits.items()},
            **{f"{name}_labels": labels[part, None] for name, part in splits.items()},
        )

        def ours(*flags: str) -> Callable[[Path], None]:
            words = ["fit", "--config", "npz.yaml", "--config", "modern.yaml", f"--data.path={data}"]
            words += [f"--model.network.embed_dim={args.width}", f"--model.network.depth={args.depth}"]
            words += [f"--model.network.num_heads={args.heads}"]
            words += [f"--data.batch_size={args.batch}", "--trainer.max_epochs=1", "--model.warmup_epochs=0"]
            words += [f"--trainer.accelerator={'gpu' if bench.device.type == 'cuda' else 'cpu'}"]
            words += [f"--trainer.default_root_dir={folder}", "--trainer.callbacks=clock.Clock"]
            words += [
                "--trainer.limit_val_batches=0",
                "--trainer.logger=false",
                "--checkpoint=null",
                "--locality=null",
            ]
            return lambda clock: vitlocal([*words, *flags, f"--trainer.callbacks.path={clock}"])

        contenders = {
            "vitlocal": ours(),
            "vitlocal, fp32": ours("--trainer.precision=32-true"),
            f"timm and torchvision, {args.workers} workers": usual("32-true"),
            f"timm and torchvision, {args.workers} workers, bf16": usual("bf16-mixed"),
        }
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for repetition in range(args.repetitions + 1):
            for name, run in contenders.items():
                run(clock := Path(folder) / "seconds.txt")
                seconds = taken(clock)
                if repetition:
                    times[name].append(seconds)
    seen = args.images - args.images % args.batch
    title = f"Width {args.width}, depth {args.depth}, {args.heads} heads, batch {args.batch}, {seen} images"
    bench.add(title, times, seen, "images")
    bench.finish()


if __name__ == "__main__":
    main()
