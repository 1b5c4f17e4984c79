"""A causal transformer over tokens, as in minGPT (Feng et al. 2023, arXiv 2305.15408)."""

from collections.abc import Sequence
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor, nn

from vitlocal import geometry
from vitlocal.errors import InputError
from vitlocal.models.attention.causal import Causal
from vitlocal.models.vit import LARGEST, Block

Positions = Literal["sinusoidal", "alibi"]
"""Where tokens get their positions from: fixed sines and cosines, or scores that fall with the distance."""

Cache = list[tuple[Tensor, Tensor]]
"""Of each layer, the keys and values of the tokens so far, (B, H, N, D)."""


class MakeDecoder(Protocol):
    """What makes a network once the task is known: a class, or ``functools.partial`` of one.

    In a configuration it is a class path, with the network's own arguments, those that are not here.
    """

    def __call__(self, *, vocab_size: int, max_length: int) -> nn.Module:
        """Make it.

        Args:
            vocab_size: number of tokens.
            max_length: most tokens in a sequence.
        """


def sinusoidal_positions(length: int, dim: int) -> Tensor:
    """Fixed position embeddings (Vaswani et al. 2017, section 3.5), float32 (length, dim).

    Feature 2i of position p is sin(p / 10000^(2i / dim)), feature 2i + 1 the cosine.

    Args:
        length: number of positions.
        dim: number of features, even.
    """
    frequencies = 10000.0 ** (-torch.arange(0, dim, 2) / dim)
    angles = torch.arange(length)[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


class DecoderBlock(Block):
    """A layer whose attention is causal, and that may go token by token."""

    attn: Causal
    mlp: nn.Module  # type: ignore[assignment] # neither is ever left out

    def step(self, x: Tensor, keys: Tensor, values: Tensor, first: int) -> Tensor:
        """As :meth:`~vitlocal.models.attention.causal.Causal.step`: (B, n, C) to (B, n, C)."""
        x = self.sum1(x, self.attn.step(self.norm1(x), keys, values, first))
        return self.sum2(x, self.mlp(self.norm2(x)))


class Decoder(nn.Module):
    """Predicts each next token from those up to it.

    Pre-norm. Positions are added to the embedded tokens, and a LayerNorm is on the sum; the MLP's GELU is the
    tanh approximation; the output layer is not tied to the embedding. Weights begin as PyTorch's do.

    Args:
        vocab_size: number of tokens; token 0 is padding, at the end of a sequence only.
        max_length: most tokens in a sequence.
        embed_dim: features of a token, a multiple of ``num_heads``, and even.
        depth: number of transformer layers.
        num_heads: attention heads in a layer.
        mlp_ratio: hidden features of the MLP over ``embed_dim``.
        drop_rate: dropout after the embedding, on attention weights, after the output projections and in the
            MLP.
        pos_embed: ``sinusoidal``, added to the tokens; or ``alibi``: none, and scores that fall with the
            distance, for sequences longer than those trained on.

    Attributes:
        geometry: a causal sequence of ``max_length`` tokens.

    Raises:
        InputError: a size that does not divide, or a value out of its range.
    """

    positions: Tensor | None
    blocks: Sequence[DecoderBlock]

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        embed_dim: int = 256,
        depth: int = 3,
        num_heads: int = 4,
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.1,
        pos_embed: Positions = "sinusoidal",
    ) -> None:
        super().__init__()
        sizes = {"vocab_size": vocab_size, "max_length": max_length, "embed_dim": embed_dim}
        for name, value in (sizes | {"depth": depth, "num_heads": num_heads}).items():
            if not 1 <= value <= LARGEST:
                raise InputError(f"{name} is {value}: it must be from 1 to {LARGEST}")
        if not 0 <= drop_rate < 1:
            raise InputError(f"drop_rate is {drop_rate}: it must be at least 0 and below 1")
        if embed_dim % num_heads or embed_dim % 2:
            raise InputError(
                f"embed_dim is {embed_dim} and num_heads is {num_heads}: "
                "embed_dim must be even and a multiple of num_heads"
            )
        if not 1 <= embed_dim * mlp_ratio <= LARGEST:
            raise InputError(f"mlp_ratio is {mlp_ratio}: it must give the MLP 1 to {LARGEST} hidden features")
        if pos_embed not in get_args(Positions):
            known = ", ".join(get_args(Positions))
            raise InputError(f"pos_embed is {pos_embed!r}: it must be one of {known}")
        self.max_length = max_length
        self.geometry = geometry.Sequence(max_length, causal=True)
        self.embed = nn.Embedding(vocab_size, embed_dim)
        # Made anew with the network, so in no checkpoint.
        fixed = sinusoidal_positions(max_length, embed_dim) if pos_embed == "sinusoidal" else None
        self.register_buffer("positions", fixed, persistent=False)
        self.norm_pre = nn.LayerNorm(embed_dim, eps=1e-6)
        self.drop = nn.Dropout(drop_rate)
        self.blocks = nn.ModuleList(  # type: ignore[assignment]
            DecoderBlock(
                embed_dim,
                Causal(
                    embed_dim,
                    num_heads,
                    proj_drop=drop_rate,
                    attn_drop=drop_rate,
                    alibi=pos_embed == "alibi",
                ),
                mlp_ratio,
                drop_rate,
                drop_path=0.0,
                approximate="tanh",
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.head = nn.Linear(embed_dim, vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens int64 (B, N) to the logits of each one's next, (B, N, vocab_size).

        Raises:
            InputError: the sequence is longer than there are positions.
        """
        x = self._embedded(tokens, 0)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))

    def step(self, tokens: Tensor, cache: Cache, first: int) -> Tensor:
        """The logits that :meth:`forward` has for further tokens, from the keys and values so far.

        Args:
            tokens: int64 (B, n).
            cache: see :meth:`new_cache`; what is new is put into it.
            first: how many tokens come before.

        Returns:
            (B, n, vocab_size).
        """
        x = self._embedded(tokens, first)
        for block, (keys, values) in zip(self.blocks, cache, strict=True):
            x = block.step(x, keys, values, first)
        return self.head(self.norm(x))

    def new_cache(self, batch: int, length: int) -> Cache:
        """Room for the keys and values of all layers, for sequences of at most ``length`` tokens."""
        weight = self.head.weight
        dtype = torch.get_autocast_dtype(weight.device.type) if torch.is_autocast_enabled() else weight.dtype
        attention = [block.attn for block in self.blocks]
        shapes = [(batch, each.num_heads, length, each.head_dim) for each in attention]
        return [
            (weight.new_empty(shape, dtype=dtype), weight.new_empty(shape, dtype=dtype)) for shape in shapes
        ]

    def _embedded(self, tokens: Tensor, first: int) -> Tensor:
        x, last = self.embed(tokens), first + tokens.shape[1]
        if self.positions is not None:
            if last > self.max_length:
                raise InputError(
                    f"a sequence has {last} tokens, and the network positions for {self.max_length}: "
                    "give shorter ones, or train with model.network.pos_embed=alibi"
                )
            x = x + self.positions[first:last]
        return self.drop(self.norm_pre(x))
