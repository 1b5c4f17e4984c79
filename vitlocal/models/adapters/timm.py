"""ViTs of timm whose every layer attends over all patches."""

from functools import partial
from typing import Any

from torch import Tensor, nn

from vitlocal.errors import InputError
from vitlocal.models.adapters.base import (
    Adapted,
    explicit,
    given,
    grid,
    made,
    make_explicit,
    pair,
    unknown,
    unsupported,
)
from vitlocal.models.attention import Tap
from vitlocal.models.attention.base import tapped


class Timm(Adapted):
    """A Vision Transformer of timm, by its name there.

    That is a ``VisionTransformer`` (ViT, DeiT, DINO, CLIP's and others), ``VisionTransformerRelPos`` or
    ``Beit`` (with relative positions), ``VisionTransformerSAM`` without windows, ``Eva`` (EVA, EVA02, DINOv3
    and others with rotary positions), or ``Cait``, whose layers of patches are observed: each head's
    softmax, before talking heads mix them.

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
        tokens = network.geometry.num_prefix_tokens
        self.class_token = tokens > 0 and network.cls_token is not None
        config = timm.data.resolve_model_data_config(network)
        self.mean, self.std = config["mean"], config["std"]


def adapt(network: Any) -> bool:
    """See :func:`vitlocal.models.adapters.adapt`."""
    from timm.layers import Attention, AttentionRope
    from timm.models import beit, vision_transformer_relpos, vision_transformer_sam
    from timm.models.cait import Cait, TalkingHeadAttn
    from timm.models.eva import Eva, EvaAttention
    from timm.models.vision_transformer import VisionTransformer

    relative, windowed = vision_transformer_relpos, vision_transformer_sam
    networks = VisionTransformer | relative.VisionTransformerRelPos | windowed.VisionTransformerSAM
    if not isinstance(network, networks | beit.Beit | Eva | Cait):
        return False
    kinds = Attention | AttentionRope | EvaAttention | beit.Attention | TalkingHeadAttn
    kinds |= relative.RelPosAttention | windowed.Attention
    embed: Any = network.patch_embed
    # A window as large as the image is none.
    if any(getattr(block, "window_size", 0) not in (0, *embed.grid_size[:1]) for block in network.blocks):
        return False
    parts: list[nn.Module] = list(network.blocks.modules())
    found: list[Any] = [part for part in parts if isinstance(part, kinds)]
    if not found or len(found) != len(network.blocks):
        return False
    for attention in found:
        mixes_heads = isinstance(attention, TalkingHeadAttn)
        if mixes_heads:
            attention.explicit = partial(talking_heads, attention)
        else:
            make_explicit(attention, attention.num_heads)
            attention.explicit = partial(fused, attention)
    # Cait's class token comes after the layers of patches.
    tokens = 0 if isinstance(network, Cait | windowed.VisionTransformerSAM) else network.num_prefix_tokens
    title = f"timm's {type(network).__name__}"
    geometry = grid(title, pair(embed.img_size), pair(embed.patch_size), tokens)
    network.geometry = geometry  # type: ignore[assignment]
    return True


def fused(attention: Any, x: Tensor, tap: Tap, queries: Tensor | None = None) -> Tensor:
    """See :meth:`vitlocal.models.attention.Attention.explicit`, which takes the fused call step by step.

    A project or the environment may have switched that call off, and finds the switch as it was.
    """
    before = attention.fused_attn
    attention.fused_attn = True
    try:
        return explicit(attention, x, tap, queries)
    finally:
        attention.fused_attn = before


def talking_heads(attention: Any, x: Tensor, tap: Tap, queries: Tensor | None = None) -> Tensor:
    """See :meth:`vitlocal.models.attention.Attention.explicit`; heads are mixed before and after the softmax.

    Shazeer et al. 2020, arXiv 2003.02436. The weights are those of the softmax: after the second mixing a
    row sums to no fixed value.
    """
    qkv = attention.qkv(x).unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    query, key, value = tapped(tap, "qkv", qkv)
    if queries is not None:
        query = query[:, :, queries]
    scores = _over_heads(attention.proj_l, (query * attention.scale) @ key.transpose(-2, -1))
    weights = tapped(tap, "weights", tapped(tap, "scores", scores.float()).softmax(-1))
    mixed = _over_heads(attention.proj_w, weights.to(value.dtype)) @ value
    return attention.proj(tapped(tap, "context", mixed.transpose(1, 2).flatten(2)))


def _over_heads(linear: nn.Module, rows: Tensor) -> Tensor:
    """A linear layer from heads to heads, (B, H, Q, N) to (B, H, Q, N)."""
    mixed: Tensor = linear(rows.permute(0, 2, 3, 1))
    return mixed.permute(0, 3, 1, 2)
