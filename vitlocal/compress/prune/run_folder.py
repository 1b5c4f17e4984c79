"""A pruned network as a run's folder, which every command takes that takes one."""

import io
from pathlib import Path
from typing import Any

import torch
import yaml

from vitlocal import __version__
from vitlocal.compress.prune.parts import shape_of
from vitlocal.files import atomic_path
from vitlocal.models import VisionTransformer
from vitlocal.models.factory import Settings
from vitlocal.runs import Run, checkpoints
from vitlocal.tasks.schedule import decay_groups


def write(run: Run, network: VisionTransformer, folder: Path, settings: Settings | None = None) -> None:
    """Write ``config.yaml`` and ``checkpoints/last.ckpt``, the latter last.

    The checkpoint is the dense one with other weights and sizes. Its optimiser has no moments yet, and its
    callbacks no state.

    Args:
        run: of the dense network.
        network: pruned, of the same data set.
        folder: of the new run.
        settings: that make such a network with all of its heads and features; None: those of the dense one.
    """
    if run.config:
        config = dict(run.config)
        model = config["model"]
        arguments = model.get("init_args", model)
        arguments = {**arguments, "network": _cut(settings or arguments["network"], network)}
        config["model"] = {**model, "init_args": arguments} if "init_args" in model else arguments
        with atomic_path(folder / "config.yaml") as path:
            text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
            path.write_text(f"# vitlocal=={__version__}\n{text}", encoding="utf-8")
    content = checkpoints.read(run.checkpoint)
    facts = content["hyper_parameters"]
    facts["network"] = _cut(settings or facts["network"], network)
    content["state_dict"] = {f"network.{name}": value.cpu() for name, value in network.state_dict().items()}
    content["callbacks"] = {}
    _renew_optimizers(content, network)
    stream = io.BytesIO()
    torch.save(content, stream)
    with atomic_path(folder / checkpoints.FOLDER / checkpoints.LAST) as path:
        path.write_bytes(stream.getbuffer())


def _cut(settings: Settings, network: VisionTransformer) -> Settings:
    """Settings with the heads and features that a network has."""
    return {**settings, "init_args": {**settings.get("init_args", {}), **shape_of(network)}}


def _renew_optimizers(content: dict[str, Any], network: VisionTransformer) -> None:
    """An optimiser of the network's parameters, at the learning rate where the dense one was."""
    sizes: list[int] = [len(group["params"]) for group in decay_groups(network, 0.0)]  # type: ignore[arg-type]
    for state in content.get("optimizer_states", []):
        first = 0
        for group, size in zip(state["param_groups"], sizes, strict=True):
            group["params"] = list(range(first, first + size))
            first += size
        state["state"] = {}
