"""python benchmarks/generation.py"""

import argparse

import numpy as np
import torch
from side_by_side import Benchmark

from vitlocal.data import LIS, Arithmetic, EditDistance, Equations
from vitlocal.data.sequences import EOS
from vitlocal.models import Decoder, generate

PROMPT = 8
VOCABULARY = 21
"""As many tokens as arithmetic modulo 11 has."""
TASKS = {
    "smallest": (Arithmetic(4), Equations(3), LIS(50), EditDistance(12)),
    "largest": (Arithmetic(6), Equations(5), LIS(100), EditDistance(20)),
}
"""By their size in the paper."""


def main() -> None:
    """Time generation with and without a key-value cache, and the generators of the four tasks."""
    parser = argparse.ArgumentParser()
    for name, value in (("width", 256), ("heads", 4), ("depth", 3), ("batch", 32), ("sequences", 2**15)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--tokens", type=int, nargs="+", default=[50, 200], help="after a prompt")
    bench = Benchmark("generation", "Sequences: greedy generation, and the problems to train on", parser)
    args = bench.args

    torch.manual_seed(0)
    lengths = torch.full((args.batch,), PROMPT, device=bench.device)
    prompts = torch.randint(EOS + 1, VOCABULARY, (args.batch, PROMPT), device=bench.device)
    for tokens in args.tokens:
        length = PROMPT + tokens
        network = Decoder(VOCABULARY, length, args.width, args.depth, args.heads).to(bench.device).eval()
        torch.nn.init.constant_(network.head.bias[EOS], -torch.inf)  # no sequence ends early

        def generated(cached: bool, network: Decoder = network, length: int = length) -> torch.Tensor:
            return generate(network, prompts, lengths, EOS, length, cached)

        bench.compare(
            f"{tokens} tokens after {PROMPT}, batch {args.batch}, width {args.width}, depth {args.depth}",
            {"with a cache": lambda of=generated: of(True), "without": lambda of=generated: of(False)},
            args.batch * tokens,
            "tokens",
        )
        same = (generated(True) == generated(False)).all(1).float().mean().item()
        bench.note(f"The same tokens either way in {same:.1%} of the sequences.")

    for size, tasks in TASKS.items():
        counts = {task.name: len(_drawn(task, args.sequences)) for task in tasks}
        bench.compare(
            f"Chains drawn, {size} sizes of the paper",
            {task.name: lambda task=task: _drawn(task, args.sequences) for task in tasks},
            counts,
            "sequences",
        )
    bench.finish()


def _drawn(task: Arithmetic | Equations | LIS | EditDistance, count: int) -> np.ndarray:
    return task.draw(count, np.random.default_rng(0), training=True)


if __name__ == "__main__":
    main()
