"""python benchmarks/step.py"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from side_by_side import Benchmark, rival
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vitlocal.models import VisionTransformer
from vitlocal.tasks.schedule import decay_groups

PEAK_SIDE = 4096


def parser() -> argparse.ArgumentParser:
    """The model's and the batch's size."""
    parser = argparse.ArgumentParser()
    for name, value in (("width", 192), ("depth", 9), ("heads", 12), ("batch", 128), ("steps", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too")
    return parser


def main() -> None:
    """Time training steps, and the matrix product that bounds them."""
    bench = Benchmark("step", "A training step of the ViT against timm's in the usual loop", parser())
    args, timm = bench.args, rival("timm")
    shape = {"depth": args.depth, "mlp_ratio": 2.0, "num_classes": 100}
    torch.manual_seed(0)
    images = torch.randn(args.batch, 3, 32, 32, device=bench.device)
    target = F.one_hot(torch.randint(100, (args.batch,)), 100).float().to(bench.device)
    ours = VisionTransformer((32, 32), patch_size=4, embed_dim=args.width, num_heads=args.heads, **shape)
    theirs = timm.models.VisionTransformer(
        img_size=32, patch_size=4, embed_dim=args.width, num_heads=args.heads, **shape
    )
    theirs.load_state_dict(ours.state_dict())

    def loop(
        network: nn.Module, bfloat16: bool, fused: bool, run: Callable[[Tensor], Any] | None = None
    ) -> Any:
        """``args.steps`` steps of training."""
        network.to(bench.device).train()
        optimizer = torch.optim.AdamW(decay_groups(network, 0.05), lr=1e-4, fused=fused or None)

        def steps(count: int = args.steps) -> None:
            for _ in range(count):
                with torch.autocast(bench.device.type, torch.bfloat16, enabled=bfloat16):
                    loss = F.cross_entropy((network if run is None else run)(images), target)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()

        return steps

    contenders = {
        "vitlocal, bf16": loop(ours, True, True),
        "vitlocal, fp32": loop(ours, False, True),
        "timm, bf16": loop(theirs, True, False),
        "timm, fp32": loop(theirs, False, False),
    }
    first: dict[str, dict[str, Any]] = {}
    if args.compile:
        name = "vitlocal, bf16, compiled"
        contenders[name] = loop(ours, True, True, torch.compile(ours))
        start = time.perf_counter()
        contenders[name](1)
        bench.synchronize()
        first[name] = {"first step (s)": round(time.perf_counter() - start, 1)}
    title = (
        f"Width {args.width}, depth {args.depth}, {args.heads} heads, batch {args.batch}, {args.steps} steps"
    )
    rows = bench.compare(title, contenders, args.steps * args.batch, "images", first)

    with FlopCounterMode(display=False) as counter:
        contenders["vitlocal, fp32"](1)
    work = counter.get_total_flops() / args.batch
    for dtype, words in ((torch.bfloat16, "bf16"), (torch.float32, "fp32")):
        left, right = (torch.randn(PEAK_SIDE, PEAK_SIDE, device=bench.device, dtype=dtype) for _ in "ab")
        products = bench.compare(
            f"A matrix product of side {PEAK_SIDE} in {words}",
            {"torch.mm": lambda left=left, right=right: left @ right},
            2 * PEAK_SIDE**3 / 1e9,
            "GFLOP",
        )
        for row in rows:
            if words in row.name:
                share = row.rate * work / 1e9 / products[0].rate
                bench.note(f"{row.name}: {row.rate * work / 1e9:,.0f} GFLOP/s, {share:.1%} of that product's")
    bench.finish()


if __name__ == "__main__":
    main()
