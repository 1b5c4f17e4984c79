"""Every head's statistics over the images of one pass through a data set."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vitlocal.errors import InputError
from vitlocal.geometry import Geometry, Grid
from vitlocal.heads.border import BorderMass, mixed_images, pasted_share
from vitlocal.heads.figures import AttentionMaps, centre_patch
from vitlocal.heads.functional import uniform_statistics
from vitlocal.heads.metrics import HeadStatistics, PositionOnly
from vitlocal.heads.summary import LayerStatistics, of_hops
from vitlocal.models.attention import num_maps
from vitlocal.observing.batches import chosen_images
from vitlocal.observing.hooks import (
    find_attention,
    find_network,
    note_size,
    observe,
    places,
    shows_qkv,
)


class HeadCollector:
    """Collects statistics, and the attention maps of the first images, while a network runs.

    Args:
        module: holds the network; see :func:`~vitlocal.observing.hooks.find_network`.
        device: where it runs.
        geometry: of the network's tokens, as it is measured; None: the network's own.
        chosen: for each loader, the numbers of the images to observe; None for all.
        maps: images whose attention maps are kept, where tokens are on a grid.
        mixed: images whose attention across pasted borders is measured in each process; 0 for none.
        seed: of those borders.

    Attributes:
        geometry: of the tokens.
        places: what the layers and their heads are called.
        uniform: of every statistic in ``STATISTICS``, the value of uniform attention.
        maps: the maps kept so far.

    Raises:
        InputError: there is nothing to observe in the module, or nowhere to paste.
    """

    def __init__(
        self,
        module: nn.Module,
        device: torch.device,
        geometry: Geometry | None = None,
        chosen: Sequence[Tensor] | None = None,
        maps: int = 0,
        mixed: int = 0,
        seed: int = 0,
    ) -> None:
        network: Any = find_network(module)
        self.chosen = None if chosen is None else [indices.to(device) for indices in chosen]
        self.maps: list[AttentionMaps] = []
        self._network, self._device = network, device
        self.places = places(network)
        self._attention = [module for _, module in find_attention(network)]
        self._maps_wanted, self._mixed_left, self._seed = maps, mixed, seed
        self._pixels: list[int] = []
        self._lay_out(geometry or network.geometry)
        if mixed and self._grid is None:
            raise InputError(
                f"images were to be mixed, but the tokens of {type(network).__name__} are on no grid: "
                "leave mixed_images out"
            )

    def _lay_out(self, geometry: Geometry) -> None:
        """Begin with nothing observed, tokens being where ``geometry`` has them."""
        self.geometry = geometry
        self.uniform = uniform_statistics(geometry)
        self._grid = geometry if isinstance(geometry, Grid) else None
        self._metrics = [HeadStatistics(num_maps(module), geometry) for module in self._attention]
        self._positions = [
            PositionOnly(module, geometry) if shows_qkv(module) else None for module in self._attention
        ]
        self._borders = [
            BorderMass(num_maps(module), self._grid)
            for module in self._attention
            if self._mixed_left and self._grid
        ]
        for metric in (*self._metrics, *filter(None, self._positions), *self._borders):
            if self._device.type == "mps":  # which has no float64
                metric.set_dtype(torch.float32)
            metric.to(self._device)
        self._observed = False

    def _update(self, number: int, weights: Tensor) -> None:
        """Add a layer's weights; those of the first images say how large the grid is."""
        if not self._observed and self._grid and self._pixels:
            grid = self._grid.fitted(self._pixels, weights.shape[-1])
            if grid is not self._grid:
                self._lay_out(grid)
        self._observed = True
        self._metrics[number].update(weights)

    @property
    def images(self) -> Tensor:
        """Number of images observed so far in this process, float (), on the device."""
        return self._metrics[0].images

    @contextmanager
    def batch(self, images: Tensor, index: Tensor | None = None, loader: int = 0) -> Iterator[None]:
        """Within the block, observe images of a batch, on all of which the network is run once.

        Args:
            images: (B, C, H, W).
            index: of each its number in the data set, (B,), negative for padding; needed where images are
                chosen.
            loader: which loader it comes from.

        Raises:
            InputError: the network is run on another number of images.
        """
        among = chosen_images(images, index, None if self.chosen is None else self.chosen[loader])
        every = torch.arange(len(images), device=images.device) if among is None else among
        drawn = every[: self._maps_wanted - len(self.maps)] if self._grid else every[:0]
        centres: list[list[Tensor]] = [[] for _ in self._metrics]
        with ExitStack() as stack:
            if len(every):
                stack.callback(note_size(self._network, self._pixels).remove)
                updates = [partial(self._update, number) for number in range(len(self._metrics))]
                of_qkv = [metric and metric.update for metric in self._positions]
                stack.enter_context(observe(self._network, updates, among, len(images), projected=of_qkv))
            if len(drawn):
                keep = [partial(self._keep_centre, kept) for kept in centres]
                stack.enter_context(observe(self._network, keep, drawn, len(images)))
            yield
        if len(drawn):
            layers = [torch.cat(kept).cpu() for kept in centres]
            for position, image in enumerate(images[drawn].cpu()):
                self.maps.append(AttentionMaps(image, [layer[position] for layer in layers]))

    def _keep_centre(self, kept: list[Tensor], weights: Tensor) -> None:
        """Keep the centre patch's attention to every patch, (B, H, rows, columns)."""
        assert self._grid is not None
        prefix, (row, column) = self._grid.num_prefix_tokens, centre_patch(self._grid.size)
        query = prefix + row * self._grid.width + column
        kept.append(weights[:, :, query, prefix:].unflatten(-1, self._grid.size).float())

    def mixed(self, images: Tensor, run: Callable[[Tensor], object], *place: int) -> None:
        """Run the network on images with pasted boxes, until enough were observed.

        Args:
            images: of a batch, (B, C, H, W).
            run: runs the network on images.
            place: the batch's loader and number, which its boxes depend on.
        """
        images = images[: self._mixed_left]
        if not len(images):
            return
        self._mixed_left -= len(images)
        mixed, mask = mixed_images(images, self._seed, *place)
        pasted = pasted_share(mask, self._borders[0].grid)

        def update(metric: BorderMass) -> Callable[[Tensor], None]:
            done = 0

            def chunk(attention: Tensor) -> None:
                nonlocal done
                metric.update(attention, pasted[done : done + len(attention)])
                done += len(attention)

            return chunk

        with observe(self._network, [update(metric) for metric in self._borders]):
            run(mixed)

    def compute(self) -> list[LayerStatistics]:
        """Statistics of each layer over the images of all processes; call it in all of them."""
        layers = []
        for number, metric in enumerate(self._metrics):
            found, position = metric.compute(), self._positions[number]
            if position is not None:
                found |= position.compute()
            if self._borders:
                found |= self._borders[number].compute()
            # torchmetrics makes a number of the one value of a single head.
            statistics = {name: values.flatten().tolist() for name, values in found.items()}
            layers.append(of_hops(self._attention[number]) | statistics)
        return layers
