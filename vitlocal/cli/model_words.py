"""What the command line says of the model: short forms, names of earlier releases, and which keys it has."""

import re
from collections.abc import Sequence
from typing import Any

from vitlocal import config_files, earlier
from vitlocal.models.factory import expanded

KINDS = {
    "attention": "Softmax, ClippedSoftmax, Gated, Subtree",
    "network": "VisionTransformer, STAGNN, GCN, GAT, timm:NAME, torchvision:NAME, transformers:NAME",
}
"""Of settings that are made later, the classes that come with vitlocal."""


def todays(words: Sequence[str]) -> list[str]:
    """The words with earlier names of settings as today's, and short names of networks as class paths.

    >>> todays(["fit", "--model.width=96", "--model.pool", "mean"])
    ['fit', '--model.network.embed_dim=96', '--model.network.global_pool=avg']
    >>> todays(["--model.network=timm:test_vit"])
    ['--model.network=vitlocal.models.Timm', '--model.network.init_args.name=test_vit']
    """
    found: list[str] = []
    rest = iter(words)
    for word in rest:
        key, given, value = word.removeprefix("--").partition("=")
        now = earlier.flag(key) if word.startswith("--") else None
        if (now or key == "model.network") and not given:
            value = next(rest, "")
        if now:
            found.append(f"--{now}={earlier.value(key.partition('.')[2], value)}")
        elif key == "model.network" and value:
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


def names_model(words: Sequence[str], name: str) -> bool:
    """Whether a word, or a configuration that it names, makes a class of this name the model.

    Raises:
        InputError: a configuration can't be read.
    """
    given: object = None
    for word, following in zip(words, [*words[1:], ""], strict=True):
        key, equals, value = word.partition("=")
        value = value if equals else following
        if key in ("--model", "--model.class_path"):
            given = value
        elif key in ("-c", "--config"):
            match config_files.read(config_files.find(value)).get("model"):
                case {"class_path": path} | str(path):
                    given = path
    return isinstance(given, str) and given.rpartition(".")[2] == name


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
