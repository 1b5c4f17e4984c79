"""Every head's statistics over the nodes of a graph, made a block of queries at a time."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from vitlocal.geometry import Graph
from vitlocal.heads.figures import AttentionMaps
from vitlocal.heads.functional import STATISTICS, query_sums, uniform_rows
from vitlocal.heads.summary import LayerStatistics, of_hops
from vitlocal.models.attention import attention_weights, num_maps
from vitlocal.observing.hooks import CHUNK_ELEMENTS, find_attention, find_network, places


def mass_names(graph: Graph) -> list[str]:
    """What the weight at each distance is called, from that on the node itself to the farthest that is seen.

    Empty where a node sees its whole component.
    """
    return [] if graph.num_hops is None else [f"mass_at_{hops}" for hops in range(graph.num_hops + 1)]


class NodeStatistics(Metric):
    """All statistics of one layer's heads, and the weight at each distance: means over nodes.

    Args:
        num_maps: M, the number of heads, times that of hops where heads have hops.
        graph: where the N nodes are.

    ``update`` takes the rows of some queries, (B, M, Q, N), and which they are; ``compute`` gives a dict from
    each name in ``STATISTICS``, and ``mass_at_0`` and so on, to float64 (M,).

    >>> from vitlocal.geometry import Graph
    >>> metric = NodeStatistics(1, Graph(3, torch.tensor([[0, 1], [1, 2]]), num_hops=1))
    >>> metric.update(torch.tensor([[[[0.25, 0.75, 0.0]]]]), torch.tensor([0]))
    >>> {name: value.item() for name, value in metric.compute().items() if name.startswith("ma")}
    {'mad': 0.75, 'mad_without_self': 1.0, 'mad_raw': 0.75, 'mass_at_0': 0.25, 'mass_at_1': 0.75}
    """

    full_state_update = False
    total: Tensor
    counted: Tensor

    def __init__(self, num_maps: int, graph: Graph) -> None:
        super().__init__()
        self.graph, self.names = graph, [*STATISTICS, *mass_names(graph)]
        for state in ("total", "counted"):
            zeros = torch.zeros(len(self.names), num_maps, dtype=torch.float64)
            self.add_state(state, zeros, dist_reduce_fx="sum")

    def update(self, rows: Tensor, queries: Tensor) -> None:
        """Add the rows of some queries (Q,): (B, M, Q, N)."""
        total, counted = query_sums(rows, self.graph, queries)
        self.total += total.sum(1)
        self.counted += counted.sum(1)

    def compute(self) -> dict[str, Tensor]:
        """The means over the queries that there is such a value of; 0 where there is none."""
        return dict(zip(self.names, self.total / self.counted.clamp(min=1), strict=True))


class NodeCollector:
    """Collects statistics while a network runs on a graph.

    Args:
        module: holds the network; see :func:`~vitlocal.observing.hooks.find_network`.
        device: where it runs.
        graph: the nodes, as far as each sees.
        max_nodes: most nodes whose rows are made, random ones, always the same; None for all.
        seed: of the choice.

    Attributes:
        geometry: the graph.
        places: what the layers and their heads are called.
        uniform: of every statistic, the value of uniform attention of the same nodes.
        images: number of times that the graph was observed, float (), on the device.
        maps: none.
    """

    maps: Sequence[AttentionMaps] = ()

    def __init__(
        self, module: nn.Module, device: torch.device, graph: Graph, max_nodes: int | None, seed: int
    ) -> None:
        network: Any = find_network(module)
        self._attention = [attention for _, attention in find_attention(network)]
        self.geometry, self.places = graph, places(network)
        nodes = torch.arange(graph.num_nodes)
        if max_nodes is not None and max_nodes < len(nodes):
            drawn = torch.randperm(len(nodes), generator=torch.Generator().manual_seed(seed))
            nodes = drawn[:max_nodes].sort().values
        self._nodes = nodes.to(device)
        self._metrics = [
            NodeStatistics(num_maps(attention), graph).to(device) for attention in self._attention
        ]
        self.images = torch.zeros((), device=device)
        uniform = NodeStatistics(1, graph)
        for block in self._blocks(nodes, 1):
            uniform.update(uniform_rows(graph, block), block)
        self.uniform = {name: round(float(value), 12) for name, value in uniform.compute().items()}

    def _blocks(self, nodes: Tensor, maps: int) -> Iterator[Tensor]:
        yield from nodes.split(max(1, CHUNK_ELEMENTS // (maps * self.geometry.num_nodes)))

    @contextmanager
    def batch(self, features: Tensor, index: object = None, loader: int = 0) -> Iterator[None]:
        """Within the block, observe the network, which is run once on all nodes.

        Args:
            features: of the nodes; they are read by the network alone.
            index: the same.
            loader: the same.
        """
        with ExitStack() as hooks:
            for attention, metric in zip(self._attention, self._metrics, strict=True):
                hooks.callback(attention.register_forward_hook(self._reader(attention, metric)).remove)
            yield
        self.images += 1

    def _reader(self, attention: Any, metric: NodeStatistics) -> Callable[..., None]:
        @torch.no_grad()
        def read(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            for block in self._blocks(self._nodes, num_maps(attention)):
                metric.update(attention_weights(attention, inputs[0], block), block)

        return read

    def mixed(self, images: Tensor, run: Callable[[Tensor], object], *place: int) -> None:
        """Nothing: nodes are not pasted into each other."""

    def compute(self) -> list[LayerStatistics]:
        """Statistics of each layer, the first layer first."""
        return [
            of_hops(attention) | {name: values.tolist() for name, values in metric.compute().items()}
            for attention, metric in zip(self._attention, self._metrics, strict=True)
        ]
