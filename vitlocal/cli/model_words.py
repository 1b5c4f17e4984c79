"""What the command line says of the model: short forms, names of earlier releases, and which keys it has."""

import re
from collections.abc import Sequence
from typing import Any

from vitlocal import earlier
from vitlocal.errors import InputError
from vitlocal.models.factory import expanded

KINDS = {
    "attention": "Softmax, ClippedSoftmax, Gated",
    "network": "VisionTransformer, timm:NAME, torchvision:NAME, transformers:NAME",
}
"""Of settings that are made later, the classes that come with vitlocal."""


def todays(words: Sequence[str]) -> list[str]:
    """The words with short names of networks as class paths.

    Raises:
        InputError: one has a key of an earlier release; the sentence has today's.

    >>> todays(["fit", "--model.network=VisionTransformer"])
    ['fit', '--model.network=vitlocal.models.VisionTransformer']
    >>> todays(["--model.network=timm:test_vit"])
    ['--model.network=vitlocal.models.Timm', '--model.network.init_args.name=test_vit']
    """
    found: list[str] = []
    for word in words:
        key, _, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and (now := earlier.flag(key)):
            given = earlier.value(key.partition(".")[2], value)
            raise InputError(f"{key} is called {now} now: give --{now}={given or 'VALUE'}")
        if key == "model.network" and value:
            settings = expanded(value)
            found.append(f"--{key}={settings['class_path']}")
            arguments = settings.get("init_args", {})
            found += [f"--{key}.init_args.{name}={given}" for name, given in arguments.items()]
        else:
            found.append(word)
    return found


def in_file(content: dict[str, Any]) -> dict[str, Any]:
    """A configuration with a short name of a network as its settings."""
    match content.get("model"):
        case {"network": str(name), **others}:
            return content | {"model": {**others, "network": expanded(name)}}
    return content


def typed_of_model(words: Sequence[str]) -> set[str]:
    """The model's settings, by dotted name, that the command line itself gives a value.

    >>> sorted(typed_of_model(["--model.network=VisionTransformer", "--model.network.init_args.depth=3"]))
    ['network', 'network.class_path', 'network.depth']
    """
    typed: set[str] = set()
    for word in words:
        if found := re.match(r"--model\.([\w.]+)", word):
            name = found[1].replace("init_args.", "")
            typed |= {name, f"{name}.class_path"} if name.rpartition(".")[2] in KINDS else {name}
    return typed


def no_class(message: str) -> str | None:
    """The sentence where jsonargparse says of a network or an attention that it is no class; else None."""
    found = re.search(r"Expected a dot import path string: (\S+?)\.?(?:\s|$)", message)
    found = found or re.search(r"Expected '(\S+)' to be a", message)
    if re.search(r"No module named|module '.*' has no attribute", message):
        found = re.search(r"val='(\S+)'\)", message)
    keys = re.findall(r'Parser key "(\w+)":', message)
    if not found or not keys or keys[-1] not in KINDS:
        return None
    return f"{'.'.join(keys)} is {found[1]!r}: it must be {KINDS[keys[-1]]}, or the class path of another one"


def of_classes(message: str) -> str:
    """jsonargparse's message with what it says of makers in the words that it has for other class paths."""
    lines: list[str] = []
    for line in message.splitlines():
        said = re.sub(r"Type <class '[\w.]+'> expects a function or a callable class: ", "", line)
        if found := re.search(r"\. Got value: Namespace\(.*?class_path='([\w.]+)'.*", said):
            lines.append(f"Problem with given class_path '{found[1]}':")
            said = said[: found.start()]
        lines.append(said)
    return "\n".join(lines)
