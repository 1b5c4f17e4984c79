"""With ever more hops subtree attention comes to global attention: the distance over hops, on four graphs.

    python benchmarks/subtree_limit.py [--output docs/subtree_limit.png]

Prints, for each graph, the slope of the logarithm of the distance and log |lambda_2|. Needs networkx.
"""

import argparse
import math
from pathlib import Path

import networkx as nx
import numpy as np
import torch
from matplotlib.figure import Figure

from vitlocal.models import RandomWalk
from vitlocal.models.attention.subtree import feature_map, subtree_attention

HOPS, DIM = 60, 8
GRAPHS = {
    "random, mean degree 12": nx.gnp_random_graph(200, 0.06, seed=0),
    "small world": nx.connected_watts_strogatz_graph(200, 6, 0.3, seed=0),
    "grid of 8 x 8 with 8 neighbours": nx.strong_product(nx.path_graph(8), nx.path_graph(8)),
    "grid of 8 x 8 with 4 neighbours": nx.grid_2d_graph(8, 8),
}


def distances(walk: RandomWalk) -> np.ndarray:
    """||STA_k - global|| / ||global|| for k from 1 to HOPS."""
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 1, walk.num_nodes, DIM, dtype=torch.float64)
    kernel = feature_map(query) @ feature_map(key).mT
    everywhere = kernel @ value / kernel.sum(-1, keepdim=True)
    found = []
    for gates in torch.eye(1 + HOPS, dtype=torch.float64)[1:]:
        hop = subtree_attention(query, key, value, walk, gates[None])
        found.append(float((hop - everywhere).norm() / everywhere.norm()))
    return np.array(found)


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, default=Path("docs/subtree_limit.png"))
    output = parser.parse_args().output
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot(
        xlabel="hops k", ylabel="distance to global attention, relative", yscale="log", ylim=(1e-13, 3)
    )
    hops = np.arange(1, HOPS + 1)
    print(f"{'graph':<34}{'slope':>9}{'log|l2|':>10}   obstacle")
    for name, graph in GRAPHS.items():
        graph = nx.convert_node_labels_to_integers(graph)
        walk = RandomWalk(len(graph), torch.tensor(list(graph.edges)).T)
        distance, second = distances(walk), walk.second_eigenvalue()
        above = np.flatnonzero(distance > 1e-12)  # rounding is below
        late = above[len(above) // 2 :]
        slope = np.polyfit(hops[late], np.log(distance[late]), 1)[0]
        (line,) = axes.plot(hops, distance, ".-", markersize=4, label=name)
        axes.plot(hops, distance[9] * second ** (hops - 10.0), ":", color=line.get_color(), linewidth=1)
        print(f"{name:<34}{slope:9.4f}{math.log(second):10.4f}   {walk.obstacle() or 'none'}")
    axes.plot([], [], ":", color="grey", label="slope log |lambda_2|")
    axes.legend(frameon=False, fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(output, dpi=110)


if __name__ == "__main__":
    main()
