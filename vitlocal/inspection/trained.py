"""Runs and checkpoints of vitlocal, and the data they were trained on."""

from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from vitlocal import checkpoints, config_files, messages
from vitlocal.data import ImageDataModule
from vitlocal.errors import InputError
from vitlocal.inspection.subject import Subject
from vitlocal.tasks import Classification

CHECKPOINTS = ("best.ckpt", checkpoints.LAST, checkpoints.BEFORE_LAST)


def find_checkpoint(path: Path) -> tuple[Path, Path]:
    """The checkpoint that ``path``, a file or the folder of a run, means, and the run's folder.

    Raises:
        InputError: there is none.
    """
    if path.is_dir():
        found = [file for name in CHECKPOINTS if (file := path / "checkpoints" / name).is_file()]
        if not found:
            raise InputError(f"there is no checkpoint in {path / 'checkpoints'}: give the folder of a run")
        return found[0], path
    return path, path.parent.parent if path.parent.name == "checkpoints" else path.parent


def trained_subject(checkpoint: Path) -> Subject:
    """The network of a checkpoint of vitlocal.

    Raises:
        InputError: it can't be read, or is of another program.
    """
    content = checkpoints.read(checkpoint)
    # LightningCLI adds names of its own, with an underscore.
    facts = {k: v for k, v in content["hyper_parameters"].items() if not k.startswith("_")}
    try:
        module = Classification(**facts)
        module.configure_model()
        module.load_state_dict(content["state_dict"])
    except InputError:
        raise
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        said = str(error).splitlines()[0]
        raise InputError(f"{checkpoint} can't be restored ({said}): give one that vitlocal wrote") from error
    network = module.network
    return Subject(
        network,
        str(checkpoint),
        image_size=tuple(module.hparams["image_size"]),
        grid_size=network.grid_size,
        num_prefix_tokens=network.num_prefix_tokens,
        class_token=network.num_prefix_tokens > 0,
        mean=tuple(module.hparams["mean"]),
        std=tuple(module.hparams["std"]),
        trained=True,
    )


def read_config(path: Path) -> dict[str, Any]:
    """A YAML file's mapping.

    Raises:
        InputError: it can't be read, or holds something else.
    """
    config_files.check(path)
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def make_data(given: str | dict[str, Any]) -> ImageDataModule:
    """A data set from what says which.

    Args:
        given: a YAML file with the key ``data``, shipped or not; a class, such as ``Digits``; or a mapping
            with ``class_path`` and ``init_args``.

    Raises:
        InputError: it is none of these.
    """
    if isinstance(given, str) and given.endswith((".yaml", ".yml")):
        config = read_config(config_files.find(given))
        if not config.get("data"):
            raise InputError(
                f"config {given} has no key data: give the file of a data set, such as digits.yaml"
            )
        given = config["data"]
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ImageDataModule, "data", required=True)
    try:
        return parser.instantiate(parser.parse_object({"data": given})).data
    except ArgumentError as error:
        raise InputError(messages.condensed(str(error), parser.get_defaults().keys())) from error
