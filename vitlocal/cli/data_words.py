"""Which task goes with which data, and what takes the place of a data set."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, TypeAlias

from jsonargparse import Namespace
from lightning.pytorch import LightningModule

from vitlocal.cli.model_words import names_model
from vitlocal.data import DataModule, GraphDataModule, ImageDataModule, SequenceDataModule
from vitlocal.data.sequences import Problems
from vitlocal.errors import InputError
from vitlocal.runs.checkpoints import read
from vitlocal.tasks import Classification, NodeClassification, SequenceModeling

Kind: TypeAlias = tuple[type[DataModule], type[LightningModule], str]

IMAGES: Kind = (ImageDataModule, Classification, "images")
OTHERS: tuple[Kind, ...] = (
    (GraphDataModule, NodeClassification, "a graph"),
    (SequenceDataModule, SequenceModeling, "sequences"),
)
"""Data, the task that is theirs, and what to call them."""


def path_of(kind: type) -> str:
    """The class path of a class."""
    return f"{kind.__module__}.{kind.__qualname__}"


def class_of(given: Namespace) -> Any:
    """What a class path names; parsing has made sure that it can be imported."""
    module, _, name = given.class_path.rpartition(".")
    return getattr(import_module(module), name)


def named_task(words: Sequence[str]) -> type[LightningModule] | None:
    """The task of data that are no images, where the command line names it."""
    return next((task for _, task, _ in OTHERS if names_model(words, task.__name__)), None)


def refuse_mixed(given: Namespace) -> None:
    """Refuse data where others belong, such as nodes of a graph where images do.

    Raises:
        InputError: with the task that goes with the data.
    """
    if given.data is None:
        data = "Arithmetic" if issubclass(class_of(given.model), SequenceModeling) else "Karate"
        raise InputError(
            f"data is missing, and model is {given.model.class_path}: give --data={data} or another"
        )
    kind, model = class_of(given.data), class_of(given.model)
    _, task, what = next((each for each in OTHERS if issubclass(kind, each[0])), IMAGES)
    ours = (Classification, NodeClassification, SequenceModeling)
    if issubclass(model, ours) and not issubclass(model, task):
        raise InputError(
            f"data {given.data.class_path} are {what} and model is {given.model.class_path}: "
            f"give --model={task.__name__}, or other data"
        )
    if task is not Classification and any(value is not None for value in vars(given.protocol).values()):
        raise InputError(
            f"protocol is of images, and the data are {what}: give --protocol.crop_flip=null, "
            "and no other part"
        )


def put_problems(config: Namespace) -> None:
    """Put the file of problems in the place of the data set, as the checkpoint's model takes them.

    Raises:
        InputError: there is no checkpoint, or it is of another task.
    """
    if not config.ckpt_path:
        raise InputError("problems is given without ckpt_path: give a checkpoint, or best or last")
    facts = read(config.ckpt_path)["hyper_parameters"]
    if not facts.get("tokens"):
        raise InputError(
            f"{config.ckpt_path} is of no model of sequences: give one that SequenceModeling has trained"
        )
    given = {name: facts[name] for name in ("tokens", "separator", "max_length")}
    size = config.data.init_args.batch_size
    config.data = Namespace(
        class_path=path_of(Problems), init_args=Namespace(path=config.problems, **given, batch_size=size)
    )
