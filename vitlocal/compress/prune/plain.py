"""ViTs of timm that are plain ones, as vitlocal's own: the same layers by the same names."""

from pathlib import Path
from typing import Any

import torch

from vitlocal.compress.prune import run_folder
from vitlocal.errors import InputError
from vitlocal.models import VisionTransformer
from vitlocal.models.adapters import Timm
from vitlocal.models.factory import Settings, network_settings
from vitlocal.runs import Run, open_run

TOLERANCE = 1e-3
"""Largest difference of a logit, over the largest logit or 1."""


def as_plain(run: Run, folder: Path) -> Run:
    """The run itself; of a network of timm one of the same network as vitlocal's own.

    Args:
        run: of any network.
        folder: where the other run is written to.

    Raises:
        InputError: see :func:`plain`.
    """
    network: Any = run.load_module().eval().network
    if not isinstance(network, Timm):
        return run
    ours, settings = plain(network, str(run.checkpoint))
    run_folder.write(run, ours, folder, settings)
    return open_run(folder)


@torch.no_grad()
def plain(given: Timm, name: str) -> tuple[VisionTransformer, Settings]:
    """A network that computes what timm's does, with its weights, and the settings that make it.

    Args:
        given: in evaluation.
        name: of the run, for people.

    Raises:
        InputError: it has layers that vitlocal's does not have, such as registers, layer scale or normalised
            queries.
    """
    model: Any = given.model
    try:
        block = model.blocks[0]
        arguments: dict[str, Any] = {
            "patch_size": model.patch_embed.patch_size[0],
            "embed_dim": model.embed_dim,
            "depth": len(model.blocks),
            "num_heads": block.attn.num_heads,
            "mlp_ratio": block.mlp.fc1.out_features / model.embed_dim,
            "global_pool": model.global_pool,
            "init": "lee" if block.attn.qkv.bias is None else "timm",
        }
        convolution = model.patch_embed.proj
        facts = {"in_chans": convolution.in_channels, "num_classes": model.num_classes}
        ours = VisionTransformer(given.image_size, **facts, **arguments).eval()
        ours.load_state_dict(model.state_dict())
        ours.to(convolution.weight.device)
        images = torch.randn(2, facts["in_chans"], *given.image_size, device=convolution.weight.device)
        wanted = model(images)
        same = bool((ours(images) - wanted).abs().max() <= TOLERANCE * max(1.0, float(wanted.abs().max())))
    # What is not there, or has other sizes or names.
    except (AttributeError, IndexError, InputError, RuntimeError, TypeError):
        same = False
    if not same:
        raise InputError(
            f"{name} is a network of timm with other layers than vitlocal's VisionTransformer, such as "
            "registers or layer scale: only plain ViTs can be pruned"
        )
    return ours, network_settings({"class_path": "vitlocal.models.VisionTransformer", "init_args": arguments})
