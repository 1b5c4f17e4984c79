"""ViTs of Hugging Face transformers."""

from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from vitlocal.errors import InputError
from vitlocal.models.adapters.base import (
    Adapted,
    explicit,
    given,
    grid,
    made,
    make_explicit,
    pair,
    unsupported,
)
from vitlocal.models.attention import Tap

HALF = (0.5, 0.5, 0.5)
KINDS = ("vit", "deit", "dinov2", "dinov2_with_registers", "dinov3_vit", "ijepa", "vit_msn")
"""The kinds of models that were compared with their own attention output."""

PREFIX = {"deit": 2, "ijepa": 0}
"""Class and distillation tokens, where there is not a class token alone."""


class Transformers(Adapted):
    """A Vision Transformer of transformers: a folder with its weights, a model of the hub, or a kind.

    Args:
        name: a folder, a model of the hub, or a kind such as ``vit``, by its default sizes.
        pretrained: fetch the hub's trained weights; those in a folder are taken anyway, others are random.
        img_size: height and width in pixels; None for the network's own.
        in_chans: 1 for grey, 3 for colour; None for the network's own.
        num_classes: number of logits; None for a network without a classifier.

    Raises:
        InputError: transformers is not there, has no such network or can't fetch it, or it is no such ViT.
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
            import transformers
        except ImportError as error:
            raise InputError(
                f"transformers:{name} needs transformers ({error}): pip install 'vitlocal[transformers]'"
            ) from error
        here = Path(name).is_dir()
        # Some kinds want one number, others want both.
        size = img_size[0] if img_size is not None and img_size[0] == img_size[1] else img_size
        facts = given(image_size=size, num_channels=in_chans, num_labels=num_classes)
        if not here and name in KINDS:
            if pretrained:
                raise InputError(
                    f"transformers:{name} is a kind of model: give a model of the hub or a folder"
                )
            config = made(
                "transformers", name, False, lambda: transformers.AutoConfig.for_model(name, **facts)
            )
        else:
            load_config = transformers.AutoConfig.from_pretrained
            config = made("transformers", name, not here, lambda: load_config(name, **facts))
        if config.model_type not in KINDS:
            raise InputError(
                f"transformers:{name} is of the kind {config.model_type}, which isn't supported; "
                f"supported are {', '.join(KINDS)}"
            )
        kind = transformers.AutoModel if num_classes is None else transformers.AutoModelForImageClassification

        def make() -> Any:
            if here or pretrained:
                # A classifier for other classes is made anew.
                fitting = {"ignore_mismatched_sizes": num_classes is not None}
                return kind.from_pretrained(name, config=config, attn_implementation="sdpa", **fitting)
            return kind.from_config(config, attn_implementation="sdpa")

        network = made("transformers", name, pretrained and not here, make)
        if not adapt(network):
            raise unsupported("transformers", name, network)
        self.model = network.float()  # a checkpoint may be in half precision
        self.trained = here or pretrained
        self.image_size = pair(config.image_size)
        self.class_token = config.model_type != "ijepa"
        self.mean = self.std = HALF[:1] * config.num_channels
        if (not here and name not in KINDS) or (Path(name) / "preprocessor_config.json").is_file():
            load = transformers.AutoImageProcessor.from_pretrained
            processor = made("transformers", name, not here, lambda: load(name))
            self.mean, self.std = tuple(processor.image_mean), tuple(processor.image_std)

    def forward(self, images: Tensor) -> Any:
        """Normalised images (B, C, H, W) to logits (B, K), or to the last hidden state without classifier."""
        output = self.model(images)
        return output.logits if hasattr(output, "logits") else output.last_hidden_state


def by_sdpa(config: Any, attention: Any, x: Tensor, tap: Tap, queries: Tensor | None = None) -> Tensor:
    """See :meth:`vitlocal.models.attention.Attention.explicit`, which takes ``sdpa`` step by step.

    A project may have chosen another implementation, such as eager, and finds its choice as it was.
    """
    before = config._attn_implementation
    config._attn_implementation = "sdpa"
    try:
        return explicit(attention, x, tap, queries)
    finally:
        config._attn_implementation = before


def adapt(network: Any) -> bool:
    """See :func:`vitlocal.models.adapters.adapt`."""
    if getattr(getattr(network, "config", None), "model_type", None) not in KINDS:
        return False
    config = network.config
    found = [part for part in network.modules() if type(part).__name__.endswith("Attention")]
    if len(found) != config.num_hidden_layers:
        return False
    prefix = PREFIX.get(config.model_type, 1) + getattr(config, "num_register_tokens", 0)
    network.geometry = grid(
        f"transformers' {type(network).__name__}", pair(config.image_size), pair(config.patch_size), prefix
    )
    for attention in found:
        make_explicit(attention, config.num_attention_heads)
        attention.explicit = partial(by_sdpa, config, attention)
    return True
