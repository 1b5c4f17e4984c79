"""Inspection of a graph network: statistics over the nodes, and what single nodes see."""

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitlocal.errors import InputError
from vitlocal.geometry import Graph
from vitlocal.heads import find_attention
from vitlocal.heads.nodes import NodeCollector
from vitlocal.inspection import report
from vitlocal.inspection.images import SEED, chosen
from vitlocal.inspection.subtrees import Subtree, subtree_figure
from vitlocal.models.attention import attention_weights
from vitlocal.observing.hooks import Place, places
from vitlocal.runs import Run
from vitlocal.tasks import NodeClassification

DRAWN = 200
"""Most nodes of a subtree that is drawn: of more, none could be told from its neighbour."""


def inspect_nodes(
    run: Run,
    module: NodeClassification,
    output: Path,
    max_nodes: int,
    nodes: int | Sequence[int],
    shown: Sequence[tuple[int, Place]],
) -> None:
    """Measure the heads of a run on a graph, and draw the rooted subtrees of some nodes.

    Args:
        run: which knows the graph.
        module: its network, in evaluation, where it is to be computed.
        output: folder to write to.
        max_nodes: most nodes to measure on.
        nodes: whose subtrees are drawn, or how many, at random but always the same.
        shown: the layers and heads that they show: where the layer is among all, and what it is called.

    Raises:
        InputError: the graph is missing or wrong, or has no such node.
    """
    data = run.load_data()
    data.prepare_data()
    data.setup()
    network: Any = module.network
    if data.num_features != module.hparams["num_features"]:
        raise InputError(
            f"the model has num_features {module.hparams['num_features']} but the graph {data.name} has "
            f"{data.num_features}: give the run with the graph that it was trained on"
        )
    network.place(data.graph)
    graph: Graph = network.geometry
    roots = chosen(graph.num_nodes, nodes) if isinstance(nodes, int) else list(nodes)
    if not all(0 <= root < graph.num_nodes for root in roots):
        raise InputError(f"nodes is {roots}: the graph {data.name} has nodes 0 to {graph.num_nodes - 1}")

    features = data.features.to(module.device)
    collector = NodeCollector(module, module.device, graph, max_nodes, SEED)
    with torch.no_grad(), collector.batch(features):
        module(features)
    statistics = collector.compute()

    facts = {
        "model": str(run.checkpoint),
        "weights": "trained",
        "graph": data.name,
        "number_of_nodes": min(max_nodes, graph.num_nodes),
    }
    report.write(output, statistics, collector.places, graph, collector.uniform, facts)
    for old in output.glob("node_*.png"):
        if re.fullmatch(r"node_\d+\.png", old.name):
            old.unlink()
    every = places(network)
    for root in roots:
        size = int(graph.visible(torch.tensor([root])).sum())
        if size > DRAWN:
            print(f"vitlocal: node {root} sees {size:,} nodes, and subtrees of up to {DRAWN} are drawn")
            continue
        weights = _weights(module, features, root)
        name = f"node {root} of {data.name}"
        if (label := int(data.labels[root])) >= 0:
            name += f", {data.class_names[label]}"
        seen = Subtree.of(graph, root)
        heads = [
            (f"layer {place.layer}, head {head}", rows[:, seen.nodes])
            for where, place in shown
            for head, rows in zip(every[where].heads, weights[where], strict=True)
            if head in place.heads
        ]
        figure = subtree_figure(seen, name, heads)
        report.save(figure, output / f"node_{root}.png")
    print(report.summary(statistics, collector.places, collector.uniform))
    print(f"vitlocal: {facts['number_of_nodes']} nodes; the tables and figures are in {output}")


def _weights(module: NodeClassification, features: Tensor, root: int) -> list[Tensor]:
    """Of each layer the rows of one node, (H, K, N); (H, 1, N) where heads have no hops."""
    found: list[Tensor] = []

    def reader(attention: Any) -> Callable[..., None]:
        def read(_: object, inputs: tuple[Tensor, ...], output: object) -> None:
            query = torch.tensor([root], device=features.device)
            rows = attention_weights(attention, inputs[0], query)[0, :, 0].cpu()
            found.append(rows.unflatten(0, (attention.num_heads, -1)))

        return read

    with ExitStack() as hooks, torch.no_grad():
        for _, attention in find_attention(module.network):
            hooks.callback(attention.register_forward_hook(reader(attention)).remove)
        module(features)
    return found
