"""python benchmarks/prune.py"""

import argparse
import time

import torch
from side_by_side import Benchmark

from vitlocal.compress.prune import latency
from vitlocal.compress.prune.latency import Setting
from vitlocal.compress.prune.obs import surgeon
from vitlocal.compress.prune.parts import collect, kept_by, last_layer, levels_of, size_of, stitch
from vitlocal.compress.prune.search import search
from vitlocal.models import VisionTransformer


def main() -> None:
    """Time the calibration of a network, and how far measured speedups are from those wanted."""
    parser = argparse.ArgumentParser()
    for name, value in (("width", 192), ("heads", 12), ("depth", 9), ("images", 1024), ("batch", 128)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--speedups", type=float, nargs="+", default=[1.5, 2.0, 3.0])
    bench = Benchmark("prune", "Pruning: its calibration, and measured over wanted speedup", parser)
    args = bench.args
    torch.manual_seed(0)
    network = VisionTransformer(
        32, num_classes=100, embed_dim=args.width, depth=args.depth, num_heads=args.heads
    )
    network = network.to(bench.device).eval()
    levels = levels_of(network, 2 * args.width)
    batches = torch.randn(args.images, 3, 32, 32).split(64)

    # Seconds of this process's threads on a CPU, which other processes do not lengthen.
    clock = time.perf_counter if bench.device.type == "cuda" else time.process_time
    begun = clock()
    inputs = collect(network, levels, (batch.to(bench.device) for batch in batches))
    bench.synchronize()
    collected = clock()
    sweeps = {}
    for part, of in levels.items():
        weight = last_layer(network, part).weight.detach()
        sweeps[part] = surgeon(weight, inputs[part].gram, size_of(network, part), of)
    swept = clock()
    bench.note(
        f"{args.depth} layers of {args.width} features, {args.images} images: Gram matrices in "
        f"{collected - begun:.1f} s, all levels of all layers in {swept - collected:.1f} s "
        f"of {'the clock' if bench.device.type == 'cuda' else 'CPU time, all threads together'}"
    )

    setting = Setting(bench.device.type, args.batch, "32-true", args.threads)
    wanted = {
        kind: sorted({c for p, of in levels.items() if p.kind == kind for c in of}, reverse=True)
        for kind in ("attention", "mlp")
    }
    table = latency.measure(network, (3, 32, 32), wanted, setting, args.repetitions)
    times = [[table.of(part.kind, count) for count in of] for part, of in levels.items()]
    rest = table.network - sum(of[0] for of in times)
    errors = [[float(place) / len(of) for place in range(len(of))] for of in levels.values()]
    pruned = {}
    for speedup in args.speedups:
        budget = table.network / speedup - rest
        found = search(errors, times, budget, lambda levels: 0.0, 0, 0, "")
        if found is None:
            bench.note(f"{speedup:g}x can't be reached: all else takes {rest:.1f} of {table.network:.1f} ms")
            continue
        choice = {part: of[place] for place, (part, of) in zip(found.levels, levels.items(), strict=True)}
        pruned[speedup] = stitch(network, sweeps, choice)
    images = torch.randn(args.batch, 3, 32, 32, device=bench.device)
    calls = [(each, images) for each in (network, *pruned.values())]
    dense, *others = latency.medians(calls, setting, args.repetitions, "measuring networks")
    bench.note(
        "\n".join(
            ["| wanted | measured | measured over wanted | heads | features |", "|---:|---:|---:|---:|---:|"]
            + [
                f"| {speedup:g} | {dense / taken:.3f} | {dense / taken / speedup:.3f} | "
                + " | ".join(
                    str(sum(count for part, count in kept_by(made).items() if part.kind == kind))
                    for kind in ("attention", "mlp")
                )
                + " |"
                for (speedup, made), taken in zip(pruned.items(), others, strict=True)
            ]
        )
    )
    bench.finish()


if __name__ == "__main__":
    main()
