"""python benchmarks/prune.py

With --run=FOLDER of a trained run, the accuracy of its network pruned by rivals at equal measured times, too.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from side_by_side import Benchmark, rival

from vitlocal.compress.prune import latency, rivals
from vitlocal.compress.prune.parts import Inputs, Part, size_of, stitch
from vitlocal.compress.prune.runtime import Setting
from vitlocal.compress.prune.work import BATCH, Goal, Work, work_on
from vitlocal.models import VisionTransformer
from vitlocal.models.subject import Subject
from vitlocal.runs import open_run


def main() -> None:
    """Time the calibration of a network, and how far measured speedups are from those wanted."""
    parser = argparse.ArgumentParser()
    for name, value in (("width", 192), ("heads", 12), ("depth", 9), ("images", 1024), ("batch", 128)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--speedups", type=float, nargs="+", default=[1.5, 2.0, 3.0])
    parser.add_argument("--run", type=Path, help="a trained run, on which rivals are compared")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of calibration, with --run")
    parser.add_argument("--steps", type=int, default=40, help="of each search, with --run")
    parser.add_argument("--max_images", type=int, help="of validation, with --run; all if left out")
    bench = Benchmark("prune", "Pruning: its calibration, its speedups, its accuracy", parser)
    setting = Setting(bench.device.type, bench.args.batch, "32-true", bench.args.threads)
    if bench.args.run is None:
        untrained(bench, setting)
    else:
        trained(bench, setting)
    bench.finish()


def untrained(bench: Benchmark, setting: Setting) -> None:
    """The calibration of an untrained network on noise, and its speedups without any search."""
    args = bench.args
    torch.manual_seed(0)
    network = VisionTransformer(
        32, num_classes=100, embed_dim=args.width, depth=args.depth, num_heads=args.heads
    )
    subject = Subject(
        network, "untrained", (32, 32), network.geometry, True, (0.5,) * 3, (0.25,) * 3, trained=False
    )
    subject.to(bench.device).eval()
    noise = torch.randint(256, (args.images, 3, 32, 32), dtype=torch.uint8)
    labels = torch.zeros(args.images, dtype=torch.int64)
    batches = zip(noise.split(BATCH), labels.split(BATCH), strict=True)
    calibration = [{"image": images, "label": of} for images, of in batches]
    no_data: Any = SimpleNamespace(multilabel=False)
    work = Work(subject, network, 2 * args.width, calibration, no_data, None)

    # Seconds of this process's threads on a CPU, which other processes do not lengthen.
    clock = time.perf_counter if bench.device.type == "cuda" else time.process_time
    begun = clock()
    assert work.inputs
    bench.synchronize()
    collected = clock()
    sweeps = work.surgeon()
    swept = clock()
    bench.note(
        f"{args.depth} layers of {args.width} features, {args.images} images: Gram matrices in "
        f"{collected - begun:.1f} s, all levels of all layers in {swept - collected:.1f} s "
        f"of {'the clock' if bench.device.type == 'cuda' else 'CPU time, all threads together'}"
    )

    table = latency.measure(network, (3, 32, 32), work.wanted, setting, args.repetitions)
    pruned = {}
    for goal in goals(work, table, args):
        found = work.search(sweeps, goal, 0, 0, f"{goal.speedup:g}x")
        pruned["ziplm", goal.speedup] = stitch(network, sweeps, work.choice(found.levels))
    dense, *times = work.timed([network, *pruned.values()], setting, args.repetitions, "measuring networks")
    lines = ["| wanted | measured | measured over wanted |", "|---:|---:|---:|"]
    for (_, speedup), taken in zip(pruned, times, strict=True):
        lines.append(f"| {speedup:g} | {dense / taken:.3f} | {dense / taken / speedup:.3f} |")
    bench.note("\n".join(lines))


def trained(bench: Benchmark, setting: Setting) -> None:
    """Accuracy of ZipLM and of its rivals at equal measured times, mean over seeds of calibration."""
    args = bench.args
    accuracies: dict[tuple[str, float], list[float]] = {}
    speedups: dict[tuple[str, float], list[float]] = {}
    table = None
    for seed in args.seeds:
        work = work_on(open_run(args.run), None, args.images, seed, args.max_images)
        shape = len(work.subject.mean), *work.subject.image_size
        table = table or latency.measure(work.network, shape, work.wanted, setting, args.repetitions)
        sweeps = {"ziplm": work.surgeon(), **work.rivals(seed)}
        with torch.no_grad():
            of_library = rivals.sweeps(work.network, work.inputs, work.levels, torch_pruning)
        sweeps["torch-pruning's magnitude"] = of_library
        networks = {}
        for goal in goals(work, table, args):
            for name, of in sweeps.items():
                found = work.search(of, goal, args.steps, seed, f"seed {seed}, {goal.speedup:g}x, {name}")
                networks[name, goal.speedup] = stitch(work.network, of, work.choice(found.levels))
            same = work.uniform(sweeps["ziplm"], goal).levels
            networks["uniform", goal.speedup] = stitch(work.network, sweeps["ziplm"], work.choice(same))
        for row in work.measured(networks, {}, table, args.repetitions):
            accuracies.setdefault((row.method, row.wanted), []).append(row.acc1)
            speedups.setdefault((row.method, row.wanted), []).append(row.speedup)
    lines = ["| method | wanted | accuracy, each seed | mean | measured |", "|---|---:|---|---:|---:|"]
    for key, values in accuracies.items():
        lines.append(
            f"| {key[0]} | {key[1]:g} | {', '.join(f'{value:.4f}' for value in values)} | "
            f"{statistics.mean(values):.4f} | {statistics.mean(speedups[key]):.3f} |"
        )
    bench.note("\n".join(lines))


def goals(work: Work, table: latency.Latency, args: argparse.Namespace) -> list[Goal]:
    """One a speedup."""
    budgets = work.budgets(table, args.speedups)
    return [Goal(work.network, speedup, table, budgets[speedup], args.repetitions) for speedup in budgets]


def torch_pruning(network: VisionTransformer, part: Part, inputs: Inputs) -> torch.Tensor:
    """Importances by torch-pruning, as it comes: the mean squares of the weights in its groups."""
    tp = rival("torch_pruning")
    block: Any = network.blocks[part.layer]
    module, first = (block.attn, block.attn.qkv) if part.kind == "attention" else (block.mlp, block.mlp.fc1)
    example = torch.randn(1, network.geometry.num_tokens, first.in_features, device=first.weight.device)
    outputs: Sequence[int] = range(first.out_features)
    with torch.enable_grad():
        graph = tp.DependencyGraph().build_dependency(module, example_inputs=example)
    group = graph.get_pruning_group(first, tp.prune_linear_out_channels, list(outputs))
    found: torch.Tensor = tp.importance.GroupMagnitudeImportance()(group).detach()
    if part.kind == "attention":
        found = found.unflatten(0, (3, -1)).sum(0)  # of queries, keys and values
    return found.unflatten(0, (-1, size_of(network, part))).sum(1)


if __name__ == "__main__":
    main()
