"""The script that a user would otherwise write: Lightning, timm, torchvision and a DataLoader."""

import math
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from torchmetrics.classification import MulticlassAccuracy
from torchvision.transforms import v2

MEAN, STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)


class UsualDataset(Dataset[tuple[Tensor, int]]):
    """As torchvision.datasets.CIFAR100: an array from which each item is made a PIL image and transformed.

    Args:
        images: uint8 (N, H, W, 3).
        labels: N class numbers.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels
        self.transform = v2.Compose(
            [
                v2.RandomCrop(images.shape[1], padding=4),
                v2.RandomHorizontalFlip(),
                v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """A transformed image and its label."""
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


class CutMixCollate:
    """Batches half of which are mixed, as in torchvision's own tutorial."""

    def __init__(self, classes: int) -> None:
        self.cutmix = v2.RandomApply([v2.CutMix(num_classes=classes)], p=0.5)

    def __call__(self, items: list[Any]) -> Any:
        """Collate, then mix."""
        return self.cutmix(*default_collate(items))


class UsualModule(pl.LightningModule):
    """A timm ViT, cross entropy with label smoothing, AdamW with warm-up and cosine."""

    def __init__(self, network: torch.nn.Module, classes: int) -> None:
        super().__init__()
        self.network = network
        self.loss = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
        self.accuracy = MulticlassAccuracy(classes)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Loss, and accuracy where labels are unmixed."""
        images, target = batch
        logits = self.network(images)
        loss = self.loss(logits, target)
        self.accuracy(logits, target if target.ndim == 1 else target.argmax(1))
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/acc1", self.accuracy, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> Any:
        """As vitlocal's."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3, weight_decay=0.05)
        total = self.trainer.estimated_stepping_batches

        def rate(step: int) -> float:
            return min(1.0, 10 * (step + 1) / total) * 0.5 * (1 + math.cos(math.pi * step / total))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def usual_loader(
    images: np.ndarray, labels: np.ndarray, classes: int, batch: int, workers: int
) -> DataLoader:
    """Shuffled, augmented, mixed batches from worker processes."""
    return DataLoader(
        UsualDataset(images, labels),
        batch_size=batch,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        collate_fn=CutMixCollate(classes),
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
