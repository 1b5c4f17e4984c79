"""A small network under the contract of the heads room, and a module that trains it."""

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import nn
from torch.utils.data import DataLoader, Dataset

from vitlocal.geometry import Grid

GRID, PATCH, WIDTH, HEADS, DEPTH = (2, 3), (4, 2), 8, 2, 4


class ToyAttention(nn.Module):
    def __init__(self, heads=HEADS):
        super().__init__()
        self.num_heads = heads
        self.qk = nn.Linear(WIDTH, 2 * WIDTH)

    def probabilities(self, x):
        query, key = self.qk(x).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return (2 * query @ key.transpose(-2, -1)).softmax(-1).float()

    def forward(self, x):
        return self.explicit(x, lambda name, tensor: None)

    def explicit(self, x, tap, queries=None):
        value = x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        weights = self.probabilities(x)
        tap("weights", weights)
        return (weights.to(value.dtype) @ value).transpose(1, 2).flatten(2)


class ToyNetwork(nn.Module):
    """Grey 8x6 images in patches of 4x2: a grid of 2 rows and 3 columns."""

    def __init__(self, depth=DEPTH, class_token=True):
        super().__init__()
        self.geometry = Grid(*GRID, PATCH, num_prefix_tokens=int(class_token))
        self.embed = nn.Conv2d(1, WIDTH, PATCH, PATCH)
        self.positions = nn.Parameter(torch.randn(self.geometry.num_tokens, WIDTH))
        self.layers = nn.ModuleList(ToyAttention() for _ in range(depth))
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, images):
        x = self.embed(images).flatten(2).transpose(1, 2)
        x = F.pad(x, (0, 0, self.geometry.num_prefix_tokens, 0)) + self.positions
        for layer in self.layers:
            x = x + self.dropout(layer(F.layer_norm(x, (WIDTH,))))
        return self.head(x.mean(1))


class ToyModule(LightningModule):
    def __init__(self):
        super().__init__()
        self.network = ToyNetwork()
        self.losses, self.lr = [], 0.1

    def forward(self, images):
        return self.network(images.float() / 255)

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self(batch["image"]), batch["label"])
        self.losses.append(loss.item())
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", F.cross_entropy(self(batch["image"]), batch["label"]))

    def test_step(self, batch, batch_idx):
        self(batch["image"])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class ToyData(Dataset):
    """Random images; ``positions`` are the indices of its images in a larger set."""

    def __init__(self, count, first=0):
        generator = torch.Generator().manual_seed(first)
        self.images = torch.randint(0, 256, (count, 1, 8, 6), dtype=torch.uint8, generator=generator)
        self.labels = torch.randint(0, 3, (count,), generator=generator)
        self.positions = torch.arange(first, first + count)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, position):
        return {
            "image": self.images[position],
            "label": self.labels[position],
            "index": self.positions[position],
        }


def loader(count, first=0, batch_size=4, **options):
    return DataLoader(ToyData(count, first), batch_size, **options)


def random_attention(*shape, sharpness=2.0, seed=0):
    """Softmax rows (*shape, N, N) from the last number of ``shape``."""
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(*shape, shape[-1], generator=generator)).softmax(-1)
