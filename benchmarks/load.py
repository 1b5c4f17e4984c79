"""python benchmarks/load.py"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from side_by_side import Benchmark
from torch.utils.data import DataLoader
from torchvision.datasets import CIFAR10
from torchvision.transforms import ToTensor

from vitlocal.data import ImageDataModule, Images, Splits

BATCH = 128


class InMemory(ImageDataModule):
    """Images that are there already."""

    name = "memory"

    def __init__(self, images: np.ndarray, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.images = images

    def load(self) -> Splits:
        """As any data set is read."""
        labels = np.arange(len(self.images)) % 10
        train = Images(self.images, labels)
        return Splits("memory", tuple("abcdefghij"), train=train, test=Images(self.images[:10], labels[:10]))


class Torchvisions(CIFAR10):
    """torchvision's CIFAR-10 of the same images, without its archive."""

    def __init__(self, images: np.ndarray) -> None:
        self.data = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        self.targets = (np.arange(len(images)) % 10).tolist()
        self.transform, self.target_transform = ToTensor(), None


def main() -> None:
    """Time a pass over an epoch's batches, with nothing done to them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=50_000)
    bench = Benchmark(
        "load", "An epoch of CIFAR-sized batches of 128 from memory, nothing done to them", parser
    )
    images = np.random.default_rng(0).integers(0, 256, (bench.args.images, 3, 32, 32), dtype=np.uint8)
    module = InMemory(images, batch_size=BATCH)
    module.setup()
    theirs = Torchvisions(images)

    def passing(loader: DataLoader[Any]) -> Callable[[], None]:
        def run() -> None:
            for _ in loader:
                pass

        return run

    contenders = {"vitlocal, 0 workers": passing(module.train_dataloader())}
    for workers in (0, 2):
        options: dict[str, Any] = {"num_workers": workers, "persistent_workers": workers > 0}
        loader = DataLoader(theirs, BATCH, shuffle=True, drop_last=True, **options)
        contenders[f"torchvision CIFAR10, {workers} workers"] = passing(loader)
    seen = len(images) - len(images) % BATCH
    bench.compare(f"{seen} images", contenders, seen, "images")
    bench.finish()


if __name__ == "__main__":
    main()
