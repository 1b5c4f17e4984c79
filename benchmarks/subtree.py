"""What a step of subtree attention costs, against the number of edges, and against the dense form.

    python benchmarks/subtree.py [--edges 10000 100000 1000000] [--dense_nodes 10000]

Random graphs of mean degree 10, one head of 16 features, K = 3, forward and backward on one thread; seconds
are those of the processor. Memory is what autograd keeps. The dense form gets the powers of P ready-made. An
exponent is the slope of log cost over log edges.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vitlocal.models import RandomWalk
from vitlocal.models.attention.subtree import feature_map, subtree_attention

DEGREE, DIM, HOPS, REPEATS = 10, 16, 3, 3


def graph(edges: int) -> RandomWalk:
    """So many random pairs of nodes."""
    nodes = 2 * edges // DEGREE
    return RandomWalk(nodes, torch.randint(nodes, (2, edges), generator=torch.Generator().manual_seed(0)))


def inputs(nodes: int) -> list[Tensor]:
    """Queries, keys and values."""
    return [torch.randn(1, 1, nodes, DIM, requires_grad=True) for _ in range(3)]


def cost(step: Callable[[], Tensor], given: list[Tensor], repeats: int = REPEATS) -> tuple[float, float]:
    """The least seconds of a step, and the MB that its forward keeps for the backward."""
    seconds, kept = [], 0
    for _ in range(repeats):
        seen: dict[int, int] = {}
        begin = time.process_time()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, seen=seen: (
                seen.update({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()}) or t
            ),
            lambda t: t,
        ):
            output = step()
        torch.autograd.grad(output.sum(), given)
        seconds.append(time.process_time() - begin)
        kept = sum(seen.values())
    return min(seconds), kept / 1e6


def dense(given: list[Tensor], powers: list[Tensor]) -> Tensor:
    """The same with matrices of nodes by nodes."""
    query, key, value = given
    kernel = feature_map(query) @ feature_map(key).mT
    mixed = value
    for power in powers:
        rows = power * kernel
        mixed = mixed + rows @ value / rows.sum(-1, keepdim=True).clamp(min=1e-30)
    return mixed


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--edges", type=int, nargs="+", default=[10**4, 10**5, 10**6])
    parser.add_argument("--dense_nodes", type=int, default=10**4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    gates = torch.ones(1, 1 + HOPS)
    print(f"{'edges':>10}{'nodes':>10}{'seconds':>10}{'MB kept':>10}")
    found = []
    for edges in options.edges:
        walk = graph(edges)
        given = inputs(walk.num_nodes)
        found.append(cost(lambda given=given, walk=walk: subtree_attention(*given, walk, gates), given))
        print(f"{edges:10}{walk.num_nodes:10}{found[-1][0]:10.3f}{found[-1][1]:10.0f}", flush=True)
    seconds, memory = (
        np.polyfit(np.log(options.edges), np.log(each), 1)[0] for each in zip(*found, strict=True)
    )
    print(f"exponent: seconds {seconds:.2f}, memory {memory:.2f}")

    walk = graph(options.dense_nodes * DEGREE // 2)
    given = inputs(walk.num_nodes)
    powers = list(walk.from_nodes(torch.arange(walk.num_nodes), HOPS))
    with torch.no_grad():
        ours, theirs = subtree_attention(*given, walk, gates), dense(given, powers)
        print(
            f"{walk.num_nodes} nodes: the two differ by {float((ours - theirs).abs().max()):.1e}", flush=True
        )
    fast = cost(lambda: subtree_attention(*given, walk, gates), given)
    slow = cost(lambda: dense(given, powers), given, repeats=1)
    for name, (taken, kept) in (("subtree", fast), ("dense", slow)):
        print(f"{name:<10}{taken:10.3f} s{kept:10.0f} MB")
    print(f"times as fast: {slow[0] / fast[0]:.1f}")


if __name__ == "__main__":
    main()
