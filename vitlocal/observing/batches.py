"""Where a batch of any project has its images, and which of a data set's images they are."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DistributedSampler

from vitlocal.errors import InputError

Where: TypeAlias = str | int | Callable[[Any], Tensor] | None
"""Where a batch has its images: a key, a position, a function of the batch; None for the usual places."""

KEYS = ("image", "pixel_values", "images", "features", "tokens")
"""Where a batch with keys has its images usually; or a graph's nodes, or the tokens of sequences."""


def images_of(batch: Any, where: Where = None) -> Tensor:
    """The images of a batch, as they are there: (B, C, H, W).

    Args:
        batch: as a data loader gives it.
        where: None for the batch itself if it is a tensor, the first of ``KEYS`` that it has if it has keys,
            else its first part.

    Raises:
        InputError: there are no images.

    >>> images_of([torch.zeros(2, 3, 8, 8), torch.tensor([1, 0])]).shape
    torch.Size([2, 3, 8, 8])
    """
    images: Any
    if callable(where):
        images = where(batch)
    elif where is not None:
        try:
            images = batch[where]
        except (KeyError, IndexError, TypeError) as error:
            raise InputError(f"images is {where!r} but a batch is {_described(batch)}: {GIVE}") from error
    elif isinstance(batch, Mapping):
        images = next((batch[key] for key in KEYS if key in batch), None)
    else:
        images = batch[0] if isinstance(batch, Sequence) and len(batch) else batch
    if not isinstance(images, Tensor) or images.dim() < 2:
        raise InputError(f"no images were found in a batch, which is {_described(batch)}: {GIVE}")
    return images


GIVE = "give images=, the key, the position, or a function of a batch"


def _described(batch: Any) -> str:
    if isinstance(batch, Mapping):
        return f"a {type(batch).__name__} with {', '.join(map(str, batch)) or 'nothing in it'}"
    if isinstance(batch, Sequence):
        return f"a {type(batch).__name__} of {', '.join(type(part).__name__ for part in batch) or 'nothing'}"
    return f"a {type(batch).__name__}"


class Numbering:
    """Numbers the images that a loader gives to this process, as they are numbered in its data set.

    Batches may say it themselves, by ``index``. Otherwise a loader is taken to give its images in order, as
    evaluation's do, and with a ``DistributedSampler`` every n-th one.

    Args:
        loader: of any kind; of one without a length, no image counts as padding.
    """

    def __init__(self, loader: Any) -> None:
        sampler: Any = getattr(loader, "sampler", None)
        distributed = isinstance(sampler, DistributedSampler)
        self._next: int = sampler.rank if distributed else 0
        self._step: int = sampler.num_replicas if distributed else 1
        self._end = length(loader)

    def of(self, batch: Any, count: int) -> Tensor:
        """Numbers of the next batch's images, int64 (B,); negative for padding."""
        if isinstance(batch, Mapping) and "index" in batch:
            index: Tensor = batch["index"]
            return index
        found = self._next + self._step * torch.arange(count)
        self._next += self._step * count
        return found if self._end is None else found.masked_fill(found >= self._end, -1)


def length(loader: Any) -> int | None:
    """Number of images of a loader's data set, in all processes; None where it has none, as with streams."""
    try:
        return len(loader.dataset)
    except (AttributeError, TypeError):
        return None


def choose(loader: Any, batches: float, processes: int, count: int, seed: int) -> Tensor:
    """Numbers of images to observe, int64 (at most ``count``,): random ones, always the same.

    Args:
        loader: gives them. Of one without a length they are the first.
        batches: how many it gives to each process.
        processes: number of processes that share it.
        count: how many to choose.
        seed: of the choice.
    """
    if (end := length(loader)) is None:
        return torch.arange(count)
    # A data set that serves a part of its images names their numbers.
    numbers = torch.as_tensor(getattr(loader.dataset, "positions", range(end)))
    if (size := getattr(loader, "batch_size", None)) is not None:
        numbers = numbers[: int(batches) * size * processes]
    order = torch.randperm(len(numbers), generator=torch.Generator().manual_seed(seed))
    return numbers[order[:count]]


def chosen_images(images: Tensor, index: Tensor | None, chosen: Tensor | None) -> Tensor | None:
    """Which images of a batch are observed, as positions int64 (B',); None for all of them.

    Args:
        images: (B, ...).
        index: of each image its number in the data set, (B,), negative for padding; None for no padding.
        chosen: the numbers of those to observe; None for all but padding.
    """
    if index is None:
        return None
    index = index.to(images.device)
    kept = index >= 0 if chosen is None else torch.isin(index, chosen)
    found = kept.nonzero().squeeze(1)
    return None if len(found) == len(images) else found
