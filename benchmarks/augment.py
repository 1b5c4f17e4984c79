"""python benchmarks/augment.py"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from side_by_side import Benchmark, rival
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision import transforms as v1
from torchvision.transforms import v2

from vitlocal.protocol import (
    Augmentation,
    AutoAugment,
    ColorJitter,
    CropFlip,
    CutMix,
    Cutout,
    LabelSmoothing,
    MixUp,
    generator_for,
)

BATCH, CLASSES = 128, 100
MEAN, STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
JITTER = (0.4, 0.4, 0.4, 0.1)


class PerImage(Dataset[Any]):
    """One image at a time through a torchvision transform, as in torchvision's own data sets."""

    def __init__(self, images: np.ndarray, transform: Callable[[Any], Tensor], as_pil: bool) -> None:
        items = images if as_pil else torch.from_numpy(images).permute(0, 3, 1, 2)
        self.items, self.transform, self.as_pil = items, transform, as_pil

    def __len__(self) -> int:
        """Number of images."""
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """A transformed image and its label."""
        item = Image.fromarray(self.items[index]) if self.as_pil else self.items[index]
        return self.transform(item), index % CLASSES


def torchvision_v1() -> Callable[[Any], Tensor]:
    """Crop, flip, AutoAugment and normalise of torchvision's first interface, on PIL images."""
    policy = v1.AutoAugment(v1.AutoAugmentPolicy.CIFAR10)
    crop_flip = [v1.RandomCrop(32, padding=4), v1.RandomHorizontalFlip()]
    return v1.Compose([*crop_flip, policy, v1.ToTensor(), v1.Normalize(MEAN, STD)])


def torchvision_v2(photometric: Callable[[Any], Any]) -> Callable[[Any], Tensor]:
    """The same of its second interface, on PIL images or tensors."""
    crop_flip = [v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()]
    end = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    return v2.Compose([*crop_flip, photometric, *end])


def mixed(items: list[Any]) -> Any:
    """A batch half of which is mixed by torchvision, with smoothed targets."""
    images, target = v2.RandomApply([v2.CutMix(num_classes=CLASSES)], p=0.5)(*default_collate(items))
    target = target if target.ndim == 2 else torch.nn.functional.one_hot(target, CLASSES).float()
    return images, 0.9 * target + 0.1 / CLASSES


class Batches:
    """Batches of the same images, through vitlocal's components on a device.

    Args:
        images: uint8 (N, H, W, 3).
        components: of the protocol, in order.
        device: where they run.
        size: of a batch.
    """

    def __init__(
        self, images: np.ndarray, components: list[Augmentation], device: torch.device, size: int = BATCH
    ) -> None:
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        self.batches = [part.to(device) for part in pixels.split(size)]
        labels = [torch.arange(len(part), device=device) % CLASSES for part in self.batches]
        self.targets = [torch.nn.functional.one_hot(label, CLASSES).float() for label in labels]
        self.components = components
        self.mean, self.std = (torch.tensor(x, device=device).view(-1, 1, 1) * 255 for x in (MEAN, STD))

    def __call__(self, normalize: bool = True) -> None:
        """Change every batch once."""
        for number, (images, target) in enumerate(zip(self.batches, self.targets, strict=True)):
            batch = {"image": images, "target": target}
            for component in self.components:
                component.apply(batch, generator_for(0, type(component).__name__, 0, 0, number))
            if normalize:
                (batch["image"] - self.mean) / self.std


def kornia_batches(images: np.ndarray, photometric: Any, device: torch.device) -> Callable[[], None]:
    """Kornia's crop, flip, photometric step and normalise, on float batches."""
    kornia = rival("kornia.augmentation")
    steps = torch.nn.Sequential(
        kornia.RandomCrop((32, 32), padding=4),
        kornia.RandomHorizontalFlip(),
        photometric,
        kornia.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
    ).to(device)
    batches = [part.to(device) for part in torch.from_numpy(images).permute(0, 3, 1, 2).split(BATCH)]

    def run() -> None:
        for batch in batches:
            steps(batch.float() / 255)

    return run


def through(loader: DataLoader[Any]) -> Callable[[], None]:
    """A pass over a loader."""

    def run() -> None:
        for _ in loader:
            pass

    return run


def smooth_images(count: int, side: int = 32) -> np.ndarray:
    """Random pictures without noise, uint8 (N, side, side, 3)."""
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    pictures = torch.nn.functional.interpolate(coarse, size=side, mode="bicubic").clamp(0, 1)
    return pictures.mul(255).byte().permute(0, 2, 3, 1).contiguous().numpy()


def main() -> None:
    """Time whole pipelines against torchvision and kornia, then each component on its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=2048, help="a repetition of each pipeline")
    bench = Benchmark("augment", "Augmented 32x32 images a second, a policy an image", parser)
    kornia, policies = rival("kornia.augmentation"), rival("kornia.augmentation.auto")
    images = smooth_images(bench.args.images)
    device = bench.device
    auto = partial(v2.AutoAugment, v2.AutoAugmentPolicy.CIFAR10)

    def ours(*components: Augmentation) -> Batches:
        return Batches(images, list(components), device)

    def loader(
        transform: Any, as_pil: bool, workers: int, collate: Any = default_collate
    ) -> Callable[[], None]:
        dataset = PerImage(images, transform, as_pil)
        options: dict[str, Any] = {"num_workers": workers, "persistent_workers": workers > 0}
        return through(DataLoader(dataset, BATCH, shuffle=True, collate_fn=collate, **options))

    contenders: dict[str, Callable[[], None]] = {"vitlocal": ours(CropFlip(), AutoAugment())}
    for workers in (0, 1, 2):
        where = f"{workers} workers" if workers != 1 else "1 worker"
        contenders[f"torchvision v1, PIL, {where}"] = loader(torchvision_v1(), True, workers)
        contenders[f"torchvision v2, PIL, {where}"] = loader(torchvision_v2(auto()), True, workers)
        contenders[f"torchvision v2, tensor, {where}"] = loader(torchvision_v2(auto()), False, workers)
    contenders["kornia, one sub-policy a batch"] = kornia_batches(
        images, policies.AutoAugment("cifar10"), device
    )
    bench.compare("Crop and flip, AutoAugment, normalise", contenders, len(images), "images")
    bench.compare(
        "The whole Modern protocol: the same with CutMix and label smoothing",
        {
            "vitlocal": ours(CropFlip(), AutoAugment(), CutMix(), LabelSmoothing()),
            "torchvision v2, PIL, 0 workers": loader(torchvision_v2(auto()), True, 0, mixed),
            "torchvision v2, PIL, 2 workers": loader(torchvision_v2(auto()), True, 2, mixed),
        },
        len(images),
        "images",
    )
    bench.compare(
        "Crop and flip, ColorJitter, normalise",
        {
            "vitlocal": ours(CropFlip(), ColorJitter(*JITTER)),
            "torchvision v2, PIL, 0 workers": loader(torchvision_v2(v2.ColorJitter(*JITTER)), True, 0),
            "kornia": kornia_batches(images, kornia.ColorJitter(*JITTER, p=1.0), device),
        },
        len(images),
        "images",
    )
    components = [
        CropFlip(),
        AutoAugment(),
        ColorJitter(*JITTER),
        CutMix(),
        MixUp(),
        Cutout(),
        LabelSmoothing(),
    ]
    alone = {type(one).__name__: partial(ours(one), normalize=False) for one in components}
    bench.compare("Each component alone", alone, len(images), "images")
    larger = {
        f"{side}x{side}, batch {size}": partial(
            Batches(smooth_images(512, side), [AutoAugment()], device, size), normalize=False
        )
        for side in (32, 64)
        for size in (128, 512)
    }
    bench.compare("AutoAugment alone, by size", larger, 512, "images")
    bench.finish()


if __name__ == "__main__":
    main()
