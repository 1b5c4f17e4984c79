"""What networks of all libraries have in common, and attention that is taken step by step.

Steps are shown where they are made: an attention module's own forward is run, and PyTorch's
``scaled_dot_product_attention``, which all of them call, is replaced for that run by one that goes step by
step. So whatever comes before it, such as normalised queries or rotary positions, counts.
"""

import difflib
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vitlocal.errors import InputError
from vitlocal.geometry import Grid
from vitlocal.models.attention import Tap, explicit_attention
from vitlocal.models.attention.base import tapped


class Adapted(nn.Module):
    """A network of another library.

    Attributes:
        model: the library's own network; what it computes and its parameters' names are unchanged.
        image_size: height and width of its images in pixels.
        class_token: whether the first of its tokens is a class token.
        trained: whether its weights are trained; else they are random.
        mean: what its trained weights were normalised with, a channel, on the scale 0 to 1.
        std: the same.
    """

    model: nn.Module
    image_size: tuple[int, int]
    class_token: bool
    trained: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def geometry(self) -> Grid:
        """Where its tokens are."""
        found: Any = self.model.geometry
        assert isinstance(found, Grid)
        return found

    def forward(self, images: Tensor) -> Any:
        """Normalised images (B, C, H, W) to what the library's network makes of them, such as logits."""
        return self.model(images)


def make_explicit(attention: Any, num_heads: int) -> None:
    """Give a library's attention module ``num_heads`` and ``explicit``.

    Its arguments besides the tokens, such as rotary positions, are those of its last forward.
    """
    # Partials of functions, not a class made here: so modules can still be copied and pickled.
    attention.explicit = partial(explicit, attention)
    attention.num_heads = num_heads
    attention.register_forward_pre_hook(remember, with_kwargs=True)


def remember(attention: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Keep what a forward has been given besides its tokens."""
    attention.beside = args[1:], kwargs


def explicit(attention: Any, x: Tensor, tap: Tap, queries: Tensor | None = None) -> Tensor:
    """See :meth:`vitlocal.models.attention.Attention.explicit`."""
    args, kwargs = attention.beside
    with _StepByStep(tap, queries, attention.num_heads):
        output = attention.forward(x, *args, **kwargs)
    output = output[0] if isinstance(output, tuple) else output
    return output if queries is None else output.flatten(1, -2)[:, queries]


def context(
    qkv: Tensor, tap: Tap, queries: Tensor | None, scale: float | None = None, bias: Tensor | None = None
) -> Tensor:
    """What the output projection reads, (B, Q, H D), from queries, keys and values (3, B, H, N, D)."""
    mixed = explicit_attention(qkv, tap, queries, scale=scale, bias=bias)
    return tapped(tap, "context", mixed.transpose(1, 2).flatten(2))


class _StepByStep(TorchFunctionMode):
    """Within it, scaled dot-product attention is carried out step by step, under a tap."""

    def __init__(self, tap: Tap, queries: Tensor | None, num_heads: int) -> None:
        super().__init__()
        self.tap, self.queries, self.num_heads = tap, queries, num_heads

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        return self._attend(*args, **(kwargs or {}))

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
    ) -> Tensor:
        if is_causal or (attn_mask is not None and attn_mask.dtype == torch.bool):
            raise InputError("the model masks its attention: only full self-attention can be observed")
        qkv = torch.stack([query, key, value])
        flat = query.ndim == 3  # images and heads in one dimension
        if flat:
            qkv = qkv.unflatten(1, (-1, self.num_heads))
            attn_mask = None if attn_mask is None else attn_mask.unflatten(0, (-1, self.num_heads))
        mixed = context(qkv, self.tap, self.queries, scale, attn_mask)
        if self.queries is not None:  # the module wants a row for each token
            rows = mixed.new_zeros(len(mixed), query.shape[-2], mixed.shape[2])
            mixed = rows.index_copy(1, self.queries, mixed)
        mixed = mixed.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        return mixed.flatten(0, 1) if flat else mixed


def made(library: str, name: str, fetched: bool, make: Callable[[], Any]) -> Any:
    """What ``make`` gives; in a sentence what goes wrong.

    Raises:
        InputError: the library refuses, or can't fetch its weights.
    """
    try:
        return make()
    # Libraries, their download and damaged files raise many kinds of errors.
    except Exception as error:
        said = (str(error) or type(error).__name__).strip().splitlines()[0]
        what = "couldn't be fetched" if fetched else "can't be made"
        does = (
            "a network, a downloaded copy, or another name" if fetched else "another name, or a whole folder"
        )
        raise InputError(f"{library}:{name} {what} ({said}): give {does}") from error


def given(**facts: Any) -> dict[str, Any]:
    """Those of a data set's facts that are known."""
    return {name: value for name, value in facts.items() if value is not None}


def grid(
    title: str, image_size: tuple[int, int], patch_size: tuple[int, int], num_prefix_tokens: int
) -> Grid:
    """The grid of patches.

    Raises:
        InputError: patches do not fit into the images.
    """
    if any(side % step for side, step in zip(image_size, patch_size, strict=True)):
        (high, wide), (height, width) = image_size, patch_size
        raise InputError(
            f"{title} has patches of {height}x{width} pixels, into which images of {high}x{wide} can't be "
            "cut: give a network with smaller patches, or images of a multiple of them"
        )
    rows, columns = (side // step for side, step in zip(image_size, patch_size, strict=True))
    return Grid(rows, columns, patch_size, num_prefix_tokens=num_prefix_tokens)


def pair(size: int | Iterable[int]) -> tuple[int, int]:
    """A size as height and width."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def unknown(library: str, name: str, known: list[str]) -> InputError:
    """Of a name that the library does not have."""
    near = difflib.get_close_matches(name, known) or [each for each in known if each.startswith("vit")][:5]
    return InputError(f"{library} has no model {name}: perhaps {' or '.join(near)} is meant")


def unsupported(library: str, name: str, network: nn.Module) -> InputError:
    """Of a network that is no plain ViT."""
    return InputError(
        f"{library}:{name} is a {type(network).__name__}: give a plain Vision Transformer, "
        "each of whose layers attends over all patches"
    )
