"""ViTs of torchvision, whose attention is ``nn.MultiheadAttention``."""

from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models

from vitlocal.errors import InputError
from vitlocal.models.adapters.base import Adapted, context, given, grid, made, unknown, unsupported
from vitlocal.models.attention import Tap


class Torchvision(Adapted):
    """A Vision Transformer of torchvision, by its name there.

    Args:
        name: such as ``vit_b_16``.
        pretrained: fetch trained weights; else they are random.
        img_size: height and width in pixels, which must be equal; None for the network's own.
        in_chans: must be 3.
        num_classes: number of logits; None for the network's own.

    Raises:
        InputError: torchvision has no such network or can't fetch it, it is no ViT, or takes no such images.
    """

    def __init__(
        self,
        name: str,
        pretrained: bool = False,
        *,
        img_size: tuple[int, int] | None = None,
        in_chans: int = 3,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        if name not in models.list_models(module=models):
            raise unknown("torchvision", name, models.list_models(module=models))
        high, wide = img_size or (None, None)
        if high != wide or in_chans != 3:
            raise InputError(
                f"torchvision:{name} takes square images in colour, not of {high}x{wide} with {in_chans} "
                "channels: give others, or a network of timm"
            )
        weights = "DEFAULT" if pretrained else None
        facts = given(image_size=high, num_classes=None if pretrained else num_classes)
        network: Any = made(
            "torchvision", name, pretrained, lambda: models.get_model(name, weights=weights, **facts)
        )
        if not adapt(network):
            raise unsupported("torchvision", name, network)
        if pretrained and num_classes is not None:  # its weights have logits for their own classes
            network.heads.head = nn.Linear(network.heads.head.in_features, num_classes)
        self.model, self.trained = network, pretrained
        self.image_size = network.image_size, network.image_size
        self.class_token = True
        transforms = models.get_model_weights(name).DEFAULT.transforms()
        self.mean, self.std = tuple(transforms.mean), tuple(transforms.std)


def adapt(network: Any) -> bool:
    """See :func:`vitlocal.models.adapters.adapt`."""
    if not isinstance(network, models.VisionTransformer):
        return False
    attention: Any
    for layer in network.encoder.layers:
        attention = layer.self_attention
        attention.explicit = partial(explicit, attention)
    side, patch = network.image_size, network.patch_size
    network.geometry = grid(
        "torchvision's VisionTransformer", (side, side), (patch, patch), num_prefix_tokens=1
    )
    return True


def explicit(attention: nn.MultiheadAttention, x: Tensor, tap: Tap, queries: Tensor | None = None) -> Tensor:
    """See :meth:`vitlocal.models.attention.Attention.explicit`."""
    # Weights that it gives itself, if asked, have scores rounded to 16 bits under autocast.
    projected = F.linear(x, attention.in_proj_weight, attention.in_proj_bias)
    qkv = projected.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    output: Tensor = attention.out_proj(context(qkv, tap, queries))
    return output
