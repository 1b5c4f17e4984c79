"""ViTs of timm: ``VisionTransformer``, ``Beit`` and ``Eva``."""

from typing import Any

from torch import nn

from vitlocal.errors import InputError
from vitlocal.models.adapters.base import (
    Adapted,
    given,
    grid,
    made,
    make_explicit,
    pair,
    unknown,
    unsupported,
)


class Timm(Adapted):
    """A Vision Transformer of timm, by its name there.

    That is a ``VisionTransformer`` (ViT, DeiT, DINO, CLIP's and others), ``Beit`` (BEiT, with relative
    positions) or ``Eva`` (EVA, EVA02, DINOv3 and others with rotary positions).

    Args:
        name: such as ``vit_tiny_patch16_224``.
        pretrained: fetch trained weights; else they are random.
        img_size: height and width in pixels; None for the network's own.
        in_chans: 1 for grey, 3 for colour; None for the network's own.
        num_classes: number of logits; None for the network's own.

    Raises:
        InputError: timm is not there, has no such network or can't fetch it, or it is no such ViT.
    """

    def __init__(
        self,
        name: str,
        pretrained: bool = False,
        *,
        img_size: tuple[int, int] | None = None,
        in_chans: int | None = None,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise InputError(f"timm:{name} needs timm ({error}): pip install 'vitlocal[timm]'") from error
        if ":" not in name and not timm.is_model(name):
            raise unknown("timm", name, timm.list_models())
        facts = given(img_size=img_size, in_chans=in_chans, num_classes=num_classes)
        network: Any = made(
            "timm", name, pretrained, lambda: timm.create_model(name, pretrained=pretrained, **facts)
        )
        if not adapt(network):
            raise unsupported("timm", name, network)
        self.model, self.trained = network, pretrained
        self.image_size = pair(network.patch_embed.img_size)
        self.class_token = network.cls_token is not None
        config = timm.data.resolve_model_data_config(network)
        self.mean, self.std = config["mean"], config["std"]


def adapt(network: Any) -> bool:
    """See :func:`vitlocal.models.adapters.adapt`."""
    from timm.layers import Attention, AttentionRope
    from timm.models import beit
    from timm.models.eva import Eva, EvaAttention
    from timm.models.vision_transformer import VisionTransformer

    if not isinstance(network, VisionTransformer | beit.Beit | Eva):
        return False
    kinds = (Attention, AttentionRope, EvaAttention, beit.Attention)
    parts: list[nn.Module] = list(network.blocks.modules())
    found: list[Any] = [part for part in parts if isinstance(part, kinds)]
    if not found or len(found) != len(network.blocks):
        return False
    for attention in found:
        attention.fused_attn = True  # unless the environment switched it off
        make_explicit(attention, attention.num_heads)
    embed = network.patch_embed
    title = f"timm's {type(network).__name__}"
    geometry = grid(title, pair(embed.img_size), pair(embed.patch_size), network.num_prefix_tokens)
    network.geometry = geometry  # type: ignore[assignment]
    return True
