"""The network of a run with its normalisation."""

from typing import Any

from lightning.pytorch import LightningModule

from vitlocal.errors import InputError
from vitlocal.models.subject import Subject
from vitlocal.runs import Run


def trained_subject(run: Run) -> Subject:
    """The network of a run on images.

    Raises:
        InputError: there is no checkpoint, it can't be read, or is of another program or of other data.
    """
    return subject_of(run.load_module(), str(run.checkpoint))


def subject_of(module: LightningModule, name: str) -> Subject:
    """The network of a LightningModule that knows its images.

    Args:
        module: with its network, such as :class:`~vitlocal.tasks.Classification`.
        name: of the model, for people.

    Raises:
        InputError: its data are no images.
    """
    if "image_size" not in module.hparams:
        raise InputError(
            f"{name} is of {type(module).__name__}, whose data are no images: "
            "give a run that was trained on images"
        )
    network: Any = module.network
    return Subject(
        network,
        name,
        image_size=tuple(module.hparams["image_size"]),
        geometry=network.geometry,
        class_token=network.geometry.num_prefix_tokens > 0,
        mean=tuple(module.hparams["mean"]),
        std=tuple(module.hparams["std"]),
        trained=True,
    )
