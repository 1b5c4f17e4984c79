"""Which process sees which image when, exactly: in any number of them, from anywhere in an epoch."""

from collections.abc import Iterator, Sequence, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from vitlocal.errors import InputError

PADDING = -1
"""What :class:`EvaluationSampler` gives for an image that is not there."""


class EpochSampler(DistributedSampler):
    """A random order that depends on the seed and the epoch alone, dealt out to the processes.

    So runs of one seed see the images in one order whatever their protocol draws besides, and a
    resumed run keeps the order of an uninterrupted one. No image comes twice in an epoch, unless classes
    are balanced: those that do not go round are left out, others every time. Lightning calls
    :meth:`set_epoch`, and takes a ``DistributedSampler`` for what it is instead of putting its own, which
    repeats images, in its place.

    Args:
        dataset: what is sampled.
        processes: among how many the images are dealt out.
        rank: which of them this is.
        seed: the same in all of them; the global seed if None.
        labels: int64 (N,), the images' classes, to draw every class equally often; see
            :func:`balanced_order`. None: every image is drawn once.

    Raises:
        InputError: there are fewer images than processes.
    """

    def __init__(
        self,
        dataset: Sized,
        processes: int = 1,
        rank: int = 0,
        seed: int | None = None,
        labels: np.ndarray | None = None,
    ) -> None:
        if len(dataset) < processes:
            raise InputError(
                f"{len(dataset)} training images for {processes} processes: "
                "give at least one image a process, or trainer.devices fewer"
            )
        super().__init__(
            dataset,  # type: ignore[arg-type]  # only its length is used
            num_replicas=processes,
            rank=rank,
            seed=torch.initial_seed() if seed is None else seed,
            drop_last=True,
        )
        self.first = 0
        self._classes = None if labels is None else _by_class(labels)

    def __iter__(self) -> Iterator[int]:
        """This process's images from number :attr:`first` on."""
        state = np.random.SeedSequence([self.seed, self.epoch]).generate_state(2)
        generator = torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)
        if self._classes is None:
            order = torch.randperm(len(self.dataset), generator=generator)  # type: ignore[arg-type]
        else:
            order = balanced_order(self._classes, generator)
        mine = order[self.rank : self.total_size : self.num_replicas]
        return iter(mine[self.first :].tolist())


def _by_class(labels: np.ndarray) -> list[Tensor]:
    order = torch.from_numpy(np.argsort(labels, kind="stable"))
    return [positions for positions in order.split(np.bincount(labels).tolist()) if len(positions)]


def balanced_order(classes: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    """As many draws as there are images, in random order, equally many of every class.

    Where the classes don't go round, some have one draw more, others every time. An image of a class is drawn
    again only once all of its class have been.

    Args:
        classes: of each class the positions of its images, int64.
        generator: for the random numbers.

    Returns:
        Positions, int64 (N,).
    """
    total = sum(len(positions) for positions in classes)
    more = torch.randperm(len(classes), generator=generator) < total % len(classes)
    drawn = []
    for positions, quota in zip(classes, (total // len(classes) + more.long()).tolist(), strict=True):
        rounds = [
            torch.randperm(len(positions), generator=generator) for _ in range(-(-quota // len(positions)))
        ]
        drawn += [positions[torch.cat(rounds)[:quota]]] if quota else []
    return torch.cat(drawn)[torch.randperm(total, generator=generator)]


class EvaluationSampler(DistributedSampler):
    """Every image exactly once, in order, dealt out to the processes.

    All of them get equally many, since some strategies communicate in every forward pass: those
    left without an image at the end get :data:`PADDING`, which no metric counts.

    Args:
        dataset: what is sampled.
        processes: among how many the images are dealt out.
        rank: which of them this is.
    """

    def __init__(self, dataset: Sized, processes: int = 1, rank: int = 0) -> None:
        super().__init__(dataset, num_replicas=processes, rank=rank, shuffle=False)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        """This process's images, then the padding."""
        mine = list(range(self.rank, len(self.dataset), self.num_replicas))  # type: ignore[arg-type]
        return iter(mine + [PADDING] * (self.num_samples - len(mine)))


class TrainingLoader(DataLoader):
    """A loader that resumes in the middle of an epoch with the very next batch.

    Its sampler must be an :class:`EpochSampler`, else it begins at the first one.
    """

    _served = 0
    _resumed: dict[str, int] | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """The batches of the sampler's epoch.

        As a generator it asks for the epoch only when the first batch is due: Lightning makes
        the iterator of a resumed run before it sets the epoch.
        """
        self._served = 0
        if isinstance(self.sampler, EpochSampler):
            if self._resumed is not None and self._resumed["epoch"] == self.sampler.epoch:
                self._served = self._resumed["batches"]
            self.sampler.first = self._served * (self.batch_size or 1)
        for batch in super().__iter__():
            self._served += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Where the loader is, the same in all processes."""
        return {"epoch": getattr(self.sampler, "epoch", 0), "batches": self._served, **self._division()}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on after a checkpoint's last batch, if its epoch is the next to be iterated over.

        Raises:
            InputError: the checkpoint is from the middle of an epoch that was divided up differently.
        """
        saved = {name: state_dict[name] for name in self._division()}
        if saved != self._division() and 0 < state_dict["batches"] < len(self):
            was, now = (" on ".join(f"{n} {k}" for k, n in x.items()) for x in (saved, self._division()))
            raise InputError(
                f"the checkpoint is from the middle of an epoch of batches of {was}, not {now}: "
                "go on with data.batch_size and trainer.devices as they were"
            )
        self._resumed = {name: state_dict[name] for name in ("epoch", "batches")}

    def _division(self) -> dict[str, int]:
        return {"images": self.batch_size or 1, "processes": getattr(self.sampler, "num_replicas", 1)}
