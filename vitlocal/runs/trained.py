"""The network of a run with its normalisation."""

from typing import Any

from vitlocal.models.subject import Subject
from vitlocal.runs import Run


def trained_subject(run: Run) -> Subject:
    """The network of a run.

    Raises:
        InputError: there is no checkpoint, it can't be read, or is of another program.
    """
    module = run.load_module()
    network: Any = module.network
    return Subject(
        network,
        str(run.checkpoint),
        image_size=tuple(module.hparams["image_size"]),
        geometry=network.geometry,
        class_token=network.geometry.num_prefix_tokens > 0,
        mean=tuple(module.hparams["mean"]),
        std=tuple(module.hparams["std"]),
        trained=True,
    )
