"""The Vision Transformer (Dosovitskiy et al. 2021, arXiv 2010.11929)."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from vitlocal.errors import InputError
from vitlocal.geometry import Grid
from vitlocal.models.attention import Attention, MakeAttention, Softmax
from vitlocal.models.pruning import check_kept, prune

Init = Literal["timm", "lee"]
"""How weights begin: as in timm, or as in the code of Lee et al. 2021."""

Pool = Literal["token", "avg"]
"""What the classifier reads: the class token, or the mean of the patches."""

PosEmbed = Literal["learned", "sincos", "none"]
"""Where tokens get their positions from: weights, fixed sines and cosines, or nowhere."""

LARGEST = 2**16
"""No size of a network in sight is beyond; a slip of the keyboard is."""


class PatchEmbed(nn.Module):
    """Images (B, C, H, W) to one token a patch (B, P, D), row by row."""

    def __init__(self, in_chans: int, patch_size: int, embed_dim: int, norm: bool) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6) if norm else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Cut and project: (B, C, H, W) to (B, P, D)."""
        return self.norm(self.proj(images).flatten(2).transpose(1, 2))


class Mlp(nn.Module):
    """Two linear layers with a GELU between, exact or by its ``tanh`` approximation, on each token."""

    def __init__(self, dim: int, hidden: int, drop: float, approximate: str = "none") -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU(approximate)
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class ResidualSum(nn.Module):
    """The sum of the residual stream and a branch: a module, so that hooks can see and replace it."""

    def forward(self, x: Tensor, branch: Tensor) -> Tensor:
        """Two of any shape to one of the same."""
        return x + branch


class Block(nn.Module):
    """A pre-norm transformer layer: attention, then MLP, each on a residual branch, either may be left out.

    Attributes:
        attn: the attention; None, as its norm and its sum, where it is left out.
        mlp: the same of the MLP.
    """

    attn: Attention | None
    mlp: Mlp | None

    def __init__(
        self,
        dim: int,
        attention: Attention,
        mlp_ratio: float,
        drop: float,
        drop_path: float,
        approximate: str = "none",
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = attention
        self.sum1 = ResidualSum()
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop, approximate)
        self.drop_path = StochasticDepth(drop_path, mode="row") if drop_path else nn.Identity()
        self.sum2 = ResidualSum()

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        if self.attn is not None:
            x = self.sum1(x, self.drop_path(self.attn(self.norm1(x))))
        if self.mlp is not None:
            x = self.sum2(x, self.drop_path(self.mlp(self.norm2(x))))
        return x


def sincos_positions(grid_size: tuple[int, int], dim: int) -> Tensor:
    """Fixed position embeddings of patches, (P, D): sines and cosines of the column, then of the row.

    The frequencies fall from 1 to 1/10000, as in MoCo v3 (Chen et al. 2021, arXiv 2104.02057).

    Args:
        grid_size: rows and columns of patches.
        dim: D, a multiple of 4.
    """
    frequencies = 10000.0 ** -(torch.arange(dim // 4) / (dim // 4))
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in grid_size), indexing="ij")
    angles = [place.reshape(-1, 1) * frequencies for place in (columns, rows)]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)


class VisionTransformer(nn.Module):
    """A ViT classifier with timm's parameter names, so that timm's state dicts load as they are.

    Pre-norm. Its sizes are by default those of the small-data ViT of Lee et al. 2021
    (arXiv 2112.13492) for 32x32 images; the initialisation is theirs only with ``init="lee"``.

    Args:
        img_size: height and width in pixels, each a multiple of ``patch_size``; one number for both.
        in_chans: 1 for grey, 3 for colour.
        num_classes: number of logits.
        patch_size: side of a square patch in pixels.
        embed_dim: features of a token, a multiple of ``num_heads``.
        depth: number of transformer layers.
        num_heads: attention heads in a layer.
        mlp_ratio: hidden features of the MLP over ``embed_dim``.
        global_pool: what the classifier reads: the class ``token`` put before the patches, or the mean of the
            patches, ``avg`` (then there is no class token).
        drop_rate: dropout after the position embedding, the output projections and in the MLP.
        drop_path_rate: stochastic depth: drop rate of the last layer's residual branches, growing linearly
            from 0 at the first (Huang et al. 2016).
        attention: its kind: ``Softmax``; ``ClippedSoftmax``, whose small weights are 0; ``Gated``, whose
            heads can close (both Bondarenko et al. 2023, arXiv 2306.12929); ``Subtree``, whose heads look at
            most K hops far on the grid (Huang et al. 2023); or another, by its class path.
        patch_norm: a LayerNorm after the patch embedding.
        init: ``timm``: truncated normal of 0.02 for positions and linear layers, class token near 0; ``lee``,
            as in the code of Lee et al. 2021: positions and class token N(0, 1), linear layers and patch
            embedding Xavier normal, queries, keys and values without bias.
        pos_embed: ``learned``; ``sincos``, fixed sines and cosines of row and column (Chen et al. 2021, arXiv
            2104.02057), 0 for the class token; or ``none``.
        kept_heads: for each layer, those of its ``num_heads`` heads that it has, by their numbers from 0;
            their features are those of the whole network's. None: all.
        mlp_hidden: for each layer, the hidden features of its MLP, at most those of ``mlp_ratio``. None: all.

    Attributes:
        geometry: the grid of patches, and the class token before it, if there is one.

    Raises:
        InputError: a size that does not divide, or a value out of its range.
    """

    pos_embed: Tensor | None

    def __init__(
        self,
        img_size: int | tuple[int, int] = (32, 32),
        in_chans: int = 3,
        num_classes: int = 10,
        patch_size: int = 4,
        embed_dim: int = 192,
        depth: int = 9,
        num_heads: int = 12,
        mlp_ratio: float = 2.0,
        global_pool: Pool = "token",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        attention: MakeAttention = Softmax,
        patch_norm: bool = False,
        init: Init = "timm",
        pos_embed: PosEmbed = "learned",
        kept_heads: Sequence[Sequence[int]] | None = None,
        mlp_hidden: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        sizes = {"patch_size": patch_size, "embed_dim": embed_dim, "depth": depth, "num_heads": num_heads}
        sizes |= {"image height": height, "image width": width}
        sizes |= {"in_chans": in_chans, "num_classes": num_classes}
        for name, value in sizes.items():
            if not 1 <= value <= LARGEST:
                raise InputError(f"{name} is {value}: it must be from 1 to {LARGEST}")
        for name, rate in (("drop_rate", drop_rate), ("drop_path_rate", drop_path_rate)):
            if not 0 <= rate < 1:
                raise InputError(f"{name} is {rate}: it must be at least 0 and below 1")
        if height % patch_size or width % patch_size:
            raise InputError(
                f"patch_size is {patch_size} and the images are {height}x{width}: "
                "both sides must be multiples of the patch size"
            )
        if embed_dim % num_heads:
            raise InputError(
                f"embed_dim is {embed_dim} and num_heads is {num_heads}: "
                "embed_dim must be a multiple of num_heads"
            )
        if not 1 <= embed_dim * mlp_ratio <= LARGEST:
            raise InputError(f"mlp_ratio is {mlp_ratio}: it must give the MLP 1 to {LARGEST} hidden features")
        check_kept(kept_heads, mlp_hidden, depth, num_heads, int(embed_dim * mlp_ratio))
        choices = (
            ("global_pool", global_pool, Pool),
            ("init", init, Init),
            ("pos_embed", pos_embed, PosEmbed),
        )
        for name, given, known in choices:
            if given not in get_args(known):
                raise InputError(f"{name} is {given!r}: it must be one of {', '.join(get_args(known))}")
        if pos_embed == "sincos" and embed_dim % 4:
            raise InputError(f"pos_embed is sincos and embed_dim is {embed_dim}: it must be a multiple of 4")

        if not callable(attention):
            raise InputError(
                f"attention is {attention!r}: give Softmax, ClippedSoftmax, Gated, Subtree or another class, "
                "or functools.partial of one with its arguments"
            )

        self.geometry = Grid(
            height // patch_size,
            width // patch_size,
            (patch_size, patch_size),
            num_prefix_tokens=1 if global_pool == "token" else 0,
        )
        tokens = self.geometry.num_tokens

        self.patch_embed = PatchEmbed(in_chans, patch_size, embed_dim, patch_norm)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim)) if global_pool == "token" else None
        if pos_embed == "learned":
            self.pos_embed = nn.Parameter(torch.zeros(1, tokens, embed_dim))
        elif pos_embed == "sincos":  # not in the state dict: the sizes say what it is
            positions = sincos_positions(self.geometry.size, embed_dim)
            prefix = positions.new_zeros(self.geometry.num_prefix_tokens, embed_dim)
            self.register_buffer("pos_embed", torch.cat([prefix, positions])[None], persistent=False)
        else:
            self.pos_embed = None
        self.pos_drop = nn.Dropout(drop_rate)
        blocks = []
        for rate in torch.linspace(0, drop_path_rate, depth, device="cpu").tolist():
            attn = attention(embed_dim, num_heads=num_heads, qkv_bias=init == "timm", proj_drop=drop_rate)
            attn.place(self.geometry)
            blocks.append(Block(embed_dim, attn, mlp_ratio, drop_rate, rate))
        self.blocks = nn.Sequential(*blocks)
        # As in timm, the last norm comes before the class token is read, but after the mean is taken.
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6) if global_pool == "token" else nn.Identity()
        self.fc_norm = nn.LayerNorm(embed_dim, eps=1e-6) if global_pool == "avg" else nn.Identity()
        self.head = nn.Linear(embed_dim, num_classes)
        self._initialise_timm() if init == "timm" else self._initialise_lee()
        if kept_heads is not None or mlp_hidden is not None:
            prune(blocks, kept_heads, None if mlp_hidden is None else [range(width) for width in mlp_hidden])

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
