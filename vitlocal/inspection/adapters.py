"""ViTs of timm, torchvision and Hugging Face transformers, with an ``explicit`` forward for their attention.

Steps are shown where they are made: an attention module's own forward is run, and PyTorch's
``scaled_dot_product_attention``, which all of them call, is replaced for that run by one that goes step by
step. So whatever comes before it, such as normalised queries or rotary positions, counts. torchvision's
``nn.MultiheadAttention`` has nothing there, and its queries and keys are made anew.
"""

import difflib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vitlocal.errors import InputError
from vitlocal.geometry import Grid
from vitlocal.inspection.subject import Subject
from vitlocal.models.attention import Tap, explicit_attention
from vitlocal.models.attention.base import tapped

HALF = (0.5, 0.5, 0.5)
SEED = 0  # of random weights
HUGGING_FACE = ("vit", "deit", "dinov2", "dinov2_with_registers", "dinov3_vit", "ijepa", "vit_msn")
"""The kinds of models of transformers that were compared with their own attention output."""


class _StepByStep(TorchFunctionMode):
    """Within it, scaled dot-product attention is carried out step by step, under a tap."""

    def __init__(self, tap: Tap, queries: Tensor | None) -> None:
        super().__init__()
        self.tap, self.queries = tap, queries

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
        if attn_mask is not None or is_causal:
            raise InputError("the model masks its attention: only full self-attention can be inspected")
        qkv = torch.stack([query, key, value])
        context = _context(qkv, self.tap, self.queries, scale)
        if self.queries is not None:  # the module goes on with a row for each token
            rows = context.new_zeros(len(context), query.shape[2], context.shape[2])
            context = rows.index_copy(1, self.queries, context)
        return context.unflatten(-1, (query.shape[1], -1)).transpose(1, 2)


def _context(qkv: Tensor, tap: Tap, queries: Tensor | None, scale: float | None = None) -> Tensor:
    """What the output projection reads, (B, Q, H D), from queries, keys and values (3, B, H, N, D)."""
    mixed = explicit_attention(qkv, tap, queries, scale=scale)
    return tapped(tap, "context", mixed.transpose(1, 2).flatten(2))


class _Adapted(nn.Module):
    """Put before the class of a library's attention module, gives it ``explicit``.

    Its arguments besides the tokens, such as rotary positions, are those of its last forward.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The module's own."""
        self._beside = args, kwargs
        return super().forward(x, *args, **kwargs)

    def explicit(self, x: Tensor, tap: Tap, queries: Tensor | None = None) -> Tensor:
        """See :class:`vitlocal.models.attention.Attention`."""
        args, kwargs = self._beside
        with _StepByStep(tap, queries):
            output = super().forward(x, *args, **kwargs)
        output = output[0] if isinstance(output, tuple) else output
        return output if queries is None else output[:, queries]


class _AdaptedMultihead(nn.MultiheadAttention):
    """``nn.MultiheadAttention`` with ``explicit``."""

    def explicit(self, x: Tensor, tap: Tap, queries: Tensor | None = None) -> Tensor:
        """See :class:`vitlocal.models.attention.Attention`."""
        # Weights that it gives itself, if asked, have scores rounded to 16 bits under autocast.
        projected = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        qkv = projected.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out_proj(_context(qkv, tap, queries))


def _adapt(attention: Any, num_heads: int) -> None:
    """Give a library's attention module ``num_heads`` and ``explicit``."""
    kind = type(attention)
    attention.__class__ = type(kind.__name__, (_Adapted, kind), {})
    attention.num_heads = num_heads


def timm_subject(name: str, pretrained: bool) -> Subject:
    """A ``VisionTransformer`` or ``Eva`` (EVA, EVA02, DINOv3 and others with rotary positions) of timm."""
    try:
        import timm
        from timm.layers import Attention, AttentionRope
        from timm.models.eva import Eva, EvaAttention
        from timm.models.vision_transformer import VisionTransformer
    except ImportError as error:
        raise InputError(f"timm:{name} needs timm ({error}): pip install 'vitlocal[timm]'") from error
    if ":" not in name and not timm.is_model(name):
        raise _unknown("timm", name, timm.list_models())
    network: Any = _made("timm", name, pretrained, lambda: timm.create_model(name, pretrained=pretrained))
    kinds = (Attention, AttentionRope, EvaAttention)
    supported = isinstance(network, VisionTransformer | Eva)
    found = [part for part in network.blocks.modules() if isinstance(part, kinds)] if supported else []
    if not found or len(found) != len(network.blocks):
        raise _unsupported("timm", name, network)
    attention: Any
    for attention in found:
        attention.fused_attn = True  # unless the environment switched it off
        _adapt(attention, attention.num_heads)
    config = timm.data.resolve_model_data_config(network)
    return Subject(
        network,
        f"timm:{name}",
        image_size=network.patch_embed.img_size,
        geometry=_grid(
            network.patch_embed.img_size, network.patch_embed.grid_size, network.num_prefix_tokens
        ),
        class_token=network.cls_token is not None,
        mean=config["mean"],
        std=config["std"],
        trained=pretrained,
    )


def torchvision_subject(name: str, pretrained: bool) -> Subject:
    """A ``VisionTransformer`` of torchvision."""
    from torchvision import models

    if name not in models.list_models(module=models):
        raise _unknown("torchvision", name, models.list_models(module=models))
    weights = "DEFAULT" if pretrained else None
    network: Any = _made("torchvision", name, pretrained, lambda: models.get_model(name, weights=weights))
    if not isinstance(network, models.VisionTransformer):
        raise _unsupported("torchvision", name, network)
    for layer in network.encoder.layers:
        layer.self_attention.__class__ = _AdaptedMultihead
    transforms = models.get_model_weights(name).DEFAULT.transforms()
    side, grid = network.image_size, network.image_size // network.patch_size
    return Subject(
        network,
        f"torchvision:{name}",
        image_size=(side, side),
        geometry=_grid((side, side), (grid, grid), num_prefix_tokens=1),
        class_token=True,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        trained=pretrained,
    )


def transformers_subject(name: str, pretrained: bool) -> Subject:
    """A ViT of transformers: a folder with its weights, a model of the hub, or a kind by its defaults."""
    try:
        import transformers
    except ImportError as error:
        raise InputError(
            f"transformers:{name} needs transformers ({error}): pip install 'vitlocal[transformers]'"
        ) from error
    here = Path(name).is_dir()
    if not here and name in HUGGING_FACE:
        if pretrained:
            raise InputError(f"transformers:{name} is a kind of model: give a model of the hub or a folder")
        config = transformers.AutoConfig.for_model(name)
    else:
        config = _made("transformers", name, not here, lambda: transformers.AutoConfig.from_pretrained(name))
    if config.model_type not in HUGGING_FACE:
        raise InputError(
            f"transformers:{name} is of the kind {config.model_type}, which isn't supported; "
            f"supported are {', '.join(HUGGING_FACE)}"
        )

    def make() -> Any:
        if here or pretrained:
            return transformers.AutoModel.from_pretrained(name, attn_implementation="sdpa")
        return transformers.AutoModel.from_config(config, attn_implementation="sdpa")

    network = _made("transformers", name, pretrained and not here, make)
    found = [part for part in network.modules() if type(part).__name__.endswith("Attention")]
    if len(found) != config.num_hidden_layers:
        raise _unsupported("transformers", name, network)
    for attention in found:
        _adapt(attention, config.num_attention_heads)
    network = network.float().eval()  # a checkpoint may be in half precision
    image_size, patch_size = _pair(config.image_size), _pair(config.patch_size)
    grid_size = (image_size[0] // patch_size[0], image_size[1] // patch_size[1])
    blank = torch.zeros(1, config.num_channels, *image_size)
    with torch.no_grad():
        output = _made("transformers", name, False, lambda: network(blank))
    tokens = output.last_hidden_state.shape[1]
    mean = std = HALF[:1] * config.num_channels
    if (not here and name not in HUGGING_FACE) or (Path(name) / "preprocessor_config.json").is_file():
        load = transformers.AutoImageProcessor.from_pretrained
        processor = _made("transformers", name, not here, lambda: load(name))
        mean, std = tuple(processor.image_mean), tuple(processor.image_std)
    return Subject(
        network,
        f"transformers:{name}",
        image_size=image_size,
        geometry=_grid(image_size, grid_size, tokens - grid_size[0] * grid_size[1]),
        class_token=config.model_type != "ijepa",
        mean=mean,
        std=std,
        trained=here or pretrained,
    )


LIBRARIES = {"timm": timm_subject, "torchvision": torchvision_subject, "transformers": transformers_subject}


def _made(library: str, name: str, fetched: bool, make: Callable[[], Any]) -> Any:
    """What ``make`` gives, random weights the same every time; in a sentence what goes wrong."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            return make()
    # Libraries, their download and damaged files raise many kinds of errors.
    except Exception as error:
        said = (str(error) or type(error).__name__).strip().splitlines()[0]
        what = "couldn't be fetched" if fetched else "can't be made"
        does = (
            "a network, a downloaded copy, or another name" if fetched else "another name, or a whole folder"
        )
        raise InputError(f"{library}:{name} {what} ({said}): give {does}") from error


def _grid(image_size: tuple[int, int], grid_size: tuple[int, int], num_prefix_tokens: int) -> Grid:
    patch_size = (image_size[0] // grid_size[0], image_size[1] // grid_size[1])
    return Grid(*grid_size, patch_size, num_prefix_tokens=num_prefix_tokens)


def _pair(size: int | Iterable[int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def _unknown(library: str, name: str, known: list[str]) -> InputError:
    near = difflib.get_close_matches(name, known) or [each for each in known if each.startswith("vit")][:5]
    return InputError(f"{library} has no model {name}: perhaps {' or '.join(near)} is meant")


def _unsupported(library: str, name: str, network: nn.Module) -> InputError:
    return InputError(
        f"{library}:{name} is a {type(network).__name__}: inspect needs a plain Vision Transformer, "
        "each of whose layers attends over all patches"
    )
