"""Every head's statistics over sequences of tokens, each without its padding."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from vitlocal import geometry
from vitlocal.data.sequences import PAD
from vitlocal.heads.figures import AttentionMaps
from vitlocal.heads.functional import STATISTICS, head_statistics, mean_attention_distance, uniform_statistics
from vitlocal.heads.summary import LayerStatistics
from vitlocal.models.attention import num_maps
from vitlocal.observing.batches import chosen_images
from vitlocal.observing.hooks import find_attention, find_network, observe, places

IN_SEQUENCES = ("mad_share", "first_mass", "previous_mass")
"""Statistics that only sequences have; see :func:`sequence_statistics`."""

OF_OFFSETS = ("offset_peak", "offset_peak_mass")
"""What the histogram of offsets gives: where it is highest, in tokens, and how high."""


def sequence_statistics(attention: Tensor, tokens: geometry.Sequence) -> dict[str, Tensor]:
    """What heads look at in causal sequences of one length, without padding.

    Args:
        attention: probabilities (B, H, N, N).
        tokens: where the N tokens are.

    Returns:
        ``STATISTICS`` as :func:`~vitlocal.heads.head_statistics` has them; and each (B, H):

        - ``mad_share``: MAD over the largest distance that the query sees, so 1 is the first token;
        - ``first_mass`` and ``previous_mass``: the weight on the first token, and on the one before the
          query; means over all queries but the first, which has none before it.
    """
    found = head_statistics(attention, tokens)
    found["mad_share"] = mean_attention_distance(attention, tokens.measured("share"))
    found["first_mass"] = attention[..., 1:, 0].mean(-1)
    found["previous_mass"] = attention.diagonal(-1, -2, -1).mean(-1)
    return found


def offset_histogram(attention: Tensor) -> Tensor:
    """How much weight is how many tokens back: (B, H, N), which sums to 1 where rows do.

    Entry d is the mean of a_i,i-d over all queries i but the first, 0 where there is no such token.

    Args:
        attention: probabilities (B, H, N, N) of causal sequences without padding.
    """
    count = attention.shape[-1]
    places = torch.arange(count, device=attention.device)
    behind = places - places[:, None]  # keys that are d before the query i: i - d
    rows = attention[..., 1:, :]
    shifted = rows.gather(-1, behind.T[1:].clamp(min=0).expand_as(rows))
    return shifted.masked_fill(behind.T[1:] < 0, 0).mean(-2)


class SequenceStatistics(Metric):
    """All statistics of one layer's heads: means over sequences of any lengths.

    Args:
        num_heads: H.
        tokens: a causal sequence of the greatest length.

    ``update`` takes the attention probabilities of a batch, (B, H, N, N), and the lengths without padding,
    (B,); ``compute`` gives a dict to float64 (H,).

    >>> metric = SequenceStatistics(1, geometry.Sequence(3, causal=True))
    >>> look_back = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    >>> metric.update(look_back[None, None], torch.tensor([3]))
    >>> found = metric.compute()
    >>> [found[name].item() for name in ("previous_mass", "first_mass", "offset_peak", "offset_peak_mass")]
    [1.0, 0.5, 1.0, 1.0]
    """

    full_state_update = False
    total: Tensor
    offsets: Tensor
    lengths: Tensor

    def __init__(self, num_heads: int, tokens: geometry.Sequence) -> None:
        super().__init__()
        self.tokens, self.names = tokens, (*STATISTICS, *IN_SEQUENCES)
        shapes = {"total": (len(self.names), num_heads), "offsets": (num_heads, tokens.length)}
        for name, shape in (shapes | {"lengths": (tokens.length + 1,)}).items():
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    @property
    def images(self) -> Tensor:
        """Number of sequences so far in this process."""
        return self.lengths.sum()

    def update(self, attention: Tensor, lengths: Tensor) -> None:
        """Add the sequences of a batch."""
        for length in lengths.unique().tolist():
            own = attention[lengths == length][:, :, :length, :length]
            found = sequence_statistics(own, replace(self.tokens, length=length))
            self.total += torch.stack([found[name].double().sum(0) for name in self.names]).to(self.total)
            self.offsets[:, :length] += offset_histogram(own).double().sum(0).to(self.offsets)
            self.lengths[length] += len(own)

    def compute(self) -> dict[str, Tensor]:
        """For each statistic the mean over the sequences of all processes, (H,); NaN without any."""
        self.counted = self.lengths.cpu().clone()  # of all processes, as only here
        means = dict(zip(self.names, self.total / self.lengths.sum(), strict=True))
        mass, peak = (self.offsets / self.lengths.sum()).max(1)
        return means | dict(zip(OF_OFFSETS, (peak.to(mass.dtype), mass), strict=True))


@lru_cache(maxsize=1024)
def _uniform(length: int, unit: geometry.Unit) -> tuple[dict[str, float], Tensor]:
    """The statistics of uniform attention to the past, and its histogram of offsets."""
    tokens = geometry.Sequence(length, causal=True, unit=unit)
    places = torch.arange(length)
    rows = (places[:, None] >= places).double() / (places[:, None] + 1)
    found = sequence_statistics(rows[None, None], tokens)
    own = {name: found[name].item() for name in IN_SEQUENCES}
    return uniform_statistics(tokens) | own, offset_histogram(rows[None, None])[0, 0]


class SequenceCollector:
    """Collects statistics of heads while a network runs on sequences.

    Args:
        module: holds the network; see :func:`~vitlocal.observing.hooks.find_network`.
        device: where it runs.
        tokens: a causal sequence of the greatest length, as it is measured.
        chosen: for each loader, the numbers of the sequences to observe; None for all.

    Attributes:
        geometry: of the tokens.
        places: what the layers and their heads are called.
        maps: none.

    Raises:
        InputError: there is nothing to observe in the module.
    """

    def __init__(
        self,
        module: nn.Module,
        device: torch.device,
        tokens: geometry.Sequence,
        chosen: Sequence[Tensor] | None = None,
    ) -> None:
        self._network = find_network(module)
        self.geometry = tokens
        self.places = places(self._network)
        self.maps: list[AttentionMaps] = []
        self.chosen = None if chosen is None else [numbers.to(device) for numbers in chosen]
        self._metrics = [
            SequenceStatistics(num_maps(attention), tokens) for _, attention in find_attention(self._network)
        ]
        for metric in self._metrics:
            if device.type == "mps":  # which has no float64
                metric.set_dtype(torch.float32)
            metric.to(device)

    @property
    def images(self) -> Tensor:
        """Number of sequences observed so far in this process, float (), on the device."""
        return self._metrics[0].images

    @property
    def uniform(self) -> dict[str, float]:
        """Of each statistic, the value of uniform attention to the past, once all are computed.

        It is the mean over the lengths of the sequences observed.
        """
        counted = self._metrics[0].counted
        lengths = counted.nonzero().flatten().tolist()
        shares = (counted[lengths] / counted.sum()).tolist()
        every = [_uniform(length, self.geometry.unit) for length in lengths]
        names = every[0][0]
        found = {name: sum(s * of[name] for s, (of, _) in zip(shares, every, strict=True)) for name in names}
        offsets = torch.zeros(self.geometry.length, dtype=torch.float64)
        for share, (_, histogram) in zip(shares, every, strict=True):
            offsets[: len(histogram)] += share * histogram
        mass, peak = offsets.max(0)
        return found | dict(zip(OF_OFFSETS, (float(peak), float(mass)), strict=True))

    @contextmanager
    def batch(self, images: Tensor, index: Tensor | None = None, loader: int = 0) -> Iterator[None]:
        """Within the block, observe sequences of a batch, on all of which the network is run once.

        Args:
            images: their tokens, (B, N).
            index: of each its number in the data set, (B,), negative for padding; needed where some are
                chosen.
            loader: which loader it comes from.
        """
        among = chosen_images(images, index, None if self.chosen is None else self.chosen[loader])
        lengths = (images if among is None else images[among]).ne(PAD).sum(1)
        if not len(lengths):
            yield
            return

        def update(metric: SequenceStatistics) -> Callable[[Tensor], None]:
            done = 0

            def chunk(attention: Tensor) -> None:
                nonlocal done
                metric.update(attention, lengths[done : done + len(attention)])
                done += len(attention)

            return chunk

        with observe(self._network, [update(metric) for metric in self._metrics], among, len(images)):
            yield

    def mixed(self, *batch: Any) -> None:
        """Nothing: only images are mixed."""

    def compute(self) -> list[LayerStatistics]:
        """Statistics of each layer over the sequences of all processes; call it in all of them."""
        # torchmetrics makes a number of the one value of a single head.
        return [
            {name: value.flatten().tolist() for name, value in metric.compute().items()}
            for metric in self._metrics
        ]
