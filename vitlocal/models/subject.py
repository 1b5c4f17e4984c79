"""A ViT of any library with its normalisation: what commands that read a trained network work on."""

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as TF

from vitlocal.geometry import Grid
from vitlocal.models.adapters import Adapted


class Subject(nn.Module):
    """A ViT that takes uint8 images, says where its tokens are, and normalises as it was trained.

    Args:
        network: takes normalised images (B, C, H, W); its attention modules have ``num_heads`` and
            ``explicit``, see :func:`vitlocal.heads.find_attention`.
        name: of the model, for people.
        image_size: height and width in pixels.
        geometry: the grid of patches, and the tokens before it.
        class_token: whether the first of these is a class token.
        mean: mean of each channel, on the scale 0 to 1; their number is that of the channels.
        std: standard deviation of each channel, on the same scale.
        trained: whether the weights are; else they are random.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        name: str,
        image_size: tuple[int, int],
        geometry: Grid,
        class_token: bool,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        trained: bool,
    ) -> None:
        super().__init__()
        self.network = network
        self.name = name
        self.image_size = image_size
        self.geometry = geometry
        self.class_token = class_token
        self.trained = trained
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1) * 255)

    @classmethod
    def of(cls, network: Adapted, name: str) -> "Subject":
        """A network of another library, with the normalisation that its trained weights want."""
        return cls(
            network,
            name,
            network.image_size,
            network.geometry,
            network.class_token,
            network.mean,
            network.std,
            network.trained,
        )

    def forward(self, images: Tensor) -> object:
        """Whatever the network makes of uint8 images (B, C, H, W)."""
        return self.network((images - self.mean) / self.std)

    def fit(self, image: Tensor) -> Tensor:
        """Bring an image into the network's size and channels, (C, H, W).

        The shorter side, relative to what is wanted, is resized (bilinear, antialiased) and the centre cut
        out; grey becomes three equal channels, and colour becomes grey where the network wants that.

        Args:
            image: uint8 (1 or 3, any height, any width).
        """
        channels, (height, width) = len(self.mean), self.image_size
        if len(image) != channels:
            image = TF.rgb_to_grayscale(image) if channels == 1 else image.expand(channels, -1, -1)
        high, wide = image.shape[1:]
        if (high, wide) != (height, width):
            scale = max(height / high, width / wide)
            image = TF.resize(image, [max(height, round(high * scale)), max(width, round(wide * scale))])
            image = TF.center_crop(image, [height, width])
        return image
