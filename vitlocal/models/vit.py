"""The Vision Transformer (Dosovitskiy et al. 2021, arXiv 2010.11929)."""

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from vitlocal.errors import InputError
from vitlocal.geometry import Grid
from vitlocal.models.attention import Attention, GateKind
from vitlocal.models.factory import AttentionKind, attention_maker

Init = Literal["timm", "lee"]
PosEmbed = Literal["learned", "sincos", "none"]

LARGEST = 2**16
"""No size of a network in sight is beyond; a slip of the keyboard is."""


class PatchEmbed(nn.Module):
    """Images (B, C, H, W) to one token a patch (B, P, D), row by row."""

    def __init__(self, in_channels: int, patch_size: int, width: int, norm: bool) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(width, eps=1e-6) if norm else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Cut and project: (B, C, H, W) to (B, P, D)."""
        return self.norm(self.proj(images).flatten(2).transpose(1, 2))


class Mlp(nn.Module):
    """Two linear layers with a GELU between, on each token."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class ResidualSum(nn.Module):
    """The sum of the residual stream and a branch: a module, so that hooks can see and replace it."""

    def forward(self, x: Tensor, branch: Tensor) -> Tensor:
        """Two of any shape to one of the same."""
        return x + branch


class Block(nn.Module):
    """A pre-norm transformer layer: attention, then MLP, each on a residual branch."""

    def __init__(
        self, width: int, attention: Attention, mlp_ratio: float, dropout: float, drop_path: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = attention
        self.sum1 = ResidualSum()
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, int(width * mlp_ratio), dropout)
        self.drop_path = StochasticDepth(drop_path, mode="row") if drop_path else nn.Identity()
        self.sum2 = ResidualSum()

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        x = self.sum1(x, self.drop_path(self.attn(self.norm1(x))))
        return self.sum2(x, self.drop_path(self.mlp(self.norm2(x))))


def sincos_positions(grid_size: tuple[int, int], width: int) -> Tensor:
    """Fixed position embeddings of patches, (P, D): sines and cosines of the column, then of the row.

    The frequencies fall from 1 to 1/10000, as in MoCo v3 (Chen et al. 2021, arXiv 2104.02057).

    Args:
        grid_size: rows and columns of patches.
        width: D, a multiple of 4.
    """
    frequencies = 10000.0 ** -(torch.arange(width // 4) / (width // 4))
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in grid_size), indexing="ij")
    angles = [place.reshape(-1, 1) * frequencies for place in (columns, rows)]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)


class VisionTransformer(nn.Module):
    """A ViT classifier with timm's parameter names, so that timm's state dicts load as they are.

    Pre-norm. Width, depth, heads and MLP ratio are by default those of the small-data ViT of Lee et al. 2021
    (arXiv 2112.13492) for 32x32 images; the initialisation is theirs only with ``init="lee"``.

    Args:
        image_size: height and width in pixels, each a multiple of ``patch_size``.
        in_channels: 1 for grey, 3 for colour.
        num_classes: number of logits.
        patch_size: side of a square patch in pixels.
        width: features of a token, a multiple of ``heads``.
        depth: number of transformer layers.
        heads: attention heads in a layer.
        mlp_ratio: hidden width of the MLP over ``width``.
        pool: what the classifier reads: the ``token`` put before the patches, or the ``mean`` of
            the patches (then there is no class token).
        dropout: dropout after the position embedding, the output projections and in the MLP.
        stochastic_depth: drop rate of the last layer's residual branches, growing linearly from 0
            at the first (Huang et al. 2016).
        attention: ``softmax``; ``clipped_softmax``, whose small weights are 0; or ``gated``, whose heads can
            close (both Bondarenko et al. 2023, arXiv 2306.12929).
        clip_gamma: of clipped softmax, -1 to 0: weights below -gamma / (zeta - gamma) are 0.
        clip_alpha: the same by the number of tokens, gamma = -alpha / tokens; 0.5 where neither is given.
            From about 1, near-uniform attention, as of an untrained ViT, is cut whole and does not learn.
        clip_zeta: of clipped softmax, 1 or more; above 1, large weights are cut to 1.
        gate: of gated attention: ``linear`` or ``mlp`` on a head's own features, or ``all_heads_linear``.
        gate_pi_init: about what gates begin with, between 0 and 1: the logit of the last bias.
        gate_hidden: hidden features of a head's ``mlp``.
        patch_norm: a LayerNorm after the patch embedding.
        init: ``timm``: truncated normal of 0.02 for positions and linear layers, class token near 0; ``lee``,
            as in the code of Lee et al. 2021: positions and class token N(0, 1), linear layers and patch
            embedding Xavier normal, queries, keys and values without bias.
        pos_embed: ``learned``; ``sincos``, fixed sines and cosines of row and column (Chen et al. 2021, arXiv
            2104.02057), 0 for the class token; or ``none``.

    Attributes:
        geometry: the grid of patches, and the class token before it, if there is one.

    Raises:
        InputError: a size that does not divide, a value out of its range, or one for another attention.
    """

    pos_embed: Tensor | None

    def __init__(
        self,
        image_size: tuple[int, int] = (32, 32),
        in_channels: int = 3,
        num_classes: int = 10,
        patch_size: int = 4,
        width: int = 192,
        depth: int = 9,
        heads: int = 12,
        mlp_ratio: float = 2.0,
        pool: Literal["token", "mean"] = "token",
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        attention: AttentionKind = "softmax",
        clip_gamma: float | None = None,
        clip_alpha: float | None = None,
        clip_zeta: float = 1.0,
        gate: GateKind = "linear",
        gate_pi_init: float = 0.5,
        gate_hidden: int = 4,
        patch_norm: bool = False,
        init: Init = "timm",
        pos_embed: PosEmbed = "learned",
    ) -> None:
        super().__init__()
        height, breadth = image_size
        sizes = {"patch_size": patch_size, "width": width, "depth": depth, "heads": heads}
        sizes |= {"image height": height, "image width": breadth}
        sizes |= {"in_channels": in_channels, "num_classes": num_classes}
        for name, value in sizes.items():
            if not 1 <= value <= LARGEST:
                raise InputError(f"{name} is {value}: it must be from 1 to {LARGEST}")
        for name, rate in (("dropout", dropout), ("stochastic_depth", stochastic_depth)):
            if not 0 <= rate < 1:
                raise InputError(f"{name} is {rate}: it must be at least 0 and below 1")
        if height % patch_size or breadth % patch_size:
            raise InputError(
                f"patch_size is {patch_size} and the images are {height}x{breadth}: "
                "both sides must be multiples of the patch size"
            )
        if width % heads:
            raise InputError(
                f"width is {width} and heads is {heads}: the width must be a multiple of the heads"
            )
        if not 1 <= width * mlp_ratio <= LARGEST:
            raise InputError(f"mlp_ratio is {mlp_ratio}: it must give the MLP 1 to {LARGEST} hidden features")
        for name, given, known in (("init", init, Init), ("pos_embed", pos_embed, PosEmbed)):
            if given not in get_args(known):
                raise InputError(f"{name} is {given!r}: it must be one of {', '.join(get_args(known))}")
        if pos_embed == "sincos" and width % 4:
            raise InputError(f"pos_embed is sincos and width is {width}: the width must be a multiple of 4")

        self.geometry = Grid(
            height // patch_size,
            breadth // patch_size,
            (patch_size, patch_size),
            num_prefix_tokens=1 if pool == "token" else 0,
        )
        tokens = self.geometry.num_tokens

        options: dict[str, Any] = {"gate": gate, "gate_pi_init": gate_pi_init, "gate_hidden": gate_hidden}
        options |= {"clip_gamma": clip_gamma, "clip_alpha": clip_alpha, "clip_zeta": clip_zeta}
        make_attention = attention_maker(attention, width, heads, tokens, dropout, init == "timm", options)

        self.patch_embed = PatchEmbed(in_channels, patch_size, width, patch_norm)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if pool == "token" else None
        if pos_embed == "learned":
            self.pos_embed = nn.Parameter(torch.zeros(1, tokens, width))
        elif pos_embed == "sincos":  # not in the state dict: the sizes say what it is
            positions = sincos_positions(self.geometry.size, width)
            prefix = positions.new_zeros(self.geometry.num_prefix_tokens, width)
            self.register_buffer("pos_embed", torch.cat([prefix, positions])[None], persistent=False)
        else:
            self.pos_embed = None
        self.pos_drop = nn.Dropout(dropout)
        rates = torch.linspace(0, stochastic_depth, depth, device="cpu").tolist()
        blocks = [Block(width, make_attention(), mlp_ratio, dropout, rate) for rate in rates]
        self.blocks = nn.Sequential(*blocks)
        # As in timm, the last norm comes before the class token is read, but after the mean is taken.
        self.norm = nn.LayerNorm(width, eps=1e-6) if pool == "token" else nn.Identity()
        self.fc_norm = nn.LayerNorm(width, eps=1e-6) if pool == "mean" else nn.Identity()
        self.head = nn.Linear(width, num_classes)
        self._initialise_timm() if init == "timm" else self._initialise_lee()

    def _initialise_timm(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        if isinstance(self.pos_embed, nn.Parameter):
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=1e-6)

    def _initialise_lee(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                # Their patch embedding is a linear layer, of which this is the convolution.
                nn.init.xavier_normal_(module.weight.flatten(1))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for parameter in (self.pos_embed, self.cls_token):
            if isinstance(parameter, nn.Parameter):
                nn.init.normal_(parameter)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, C, H, W) to logits (B, K)."""
        x = self.patch_embed(images)
        if self.cls_token is not None:
            # Not len(x), which torch.export would take for a constant.
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        if self.pos_embed is not None:
            x = x + self.pos_embed
        x = self.norm(self.blocks(self.pos_drop(x)))
        pooled = x.mean(dim=1) if self.cls_token is None else x[:, 0]
        return self.head(self.fc_norm(pooled))
