"""Networks as settings: a class path and its arguments, as a configuration and a checkpoint have them."""

import inspect
import re
from collections.abc import Mapping
from functools import cache, partial
from typing import Any, Protocol, TypeAlias

from jsonargparse import ArgumentError, ArgumentParser
from torch import nn

from vitlocal.errors import InputError, root_cause
from vitlocal.models.adapters import LIBRARIES
from vitlocal.models.attention import ClippedSoftmax, Gated, Softmax, Subtree
from vitlocal.models.decoder import Decoder, MakeDecoder
from vitlocal.models.nodes import GAT, GCN, STAGNN, MakeNodeNetwork
from vitlocal.models.vit import VisionTransformer

Settings: TypeAlias = dict[str, Any]
"""``class_path`` and ``init_args``, plain values all the way down."""


class MakeNetwork(Protocol):
    """What makes a network once the data set is known: a class, or ``functools.partial`` of one.

    In a configuration it is a class path, with the network's own arguments, those that are not here.
    """

    def __call__(self, *, img_size: tuple[int, int], in_chans: int, num_classes: int) -> nn.Module:
        """Make it.

        Args:
            img_size: height and width in pixels.
            in_chans: 1 for grey, 3 for colour.
            num_classes: number of logits.
        """


KNOWN: dict[Any, tuple[type, ...]] = {
    MakeNetwork: (VisionTransformer, ClippedSoftmax, Gated, Softmax, Subtree),
    MakeNodeNetwork: (STAGNN, GAT, GCN),
    MakeDecoder: (Decoder,),
}
"""What comes with vitlocal and is made by each, its attention included; the first is what settings are of."""

OURS = (VisionTransformer, STAGNN, GAT, GCN, Decoder)
"""Networks that other libraries have, too, by the same name."""


def expanded(given: str) -> Settings:
    """The settings that a short name means; a class path stays as it is.

    >>> expanded("VisionTransformer")
    {'class_path': 'vitlocal.models.VisionTransformer'}
    >>> expanded("timm:vit_tiny_patch16_224")
    {'class_path': 'vitlocal.models.Timm', 'init_args': {'name': 'vit_tiny_patch16_224'}}
    """
    library, _, name = given.partition(":")
    if library in LIBRARIES and name:
        path = f"vitlocal.models.{LIBRARIES[library].__name__}"
        return {"class_path": path, "init_args": {"name": name}}
    # jsonargparse finds classes by their bare name too, but other libraries have some of these names.
    ours = given in {kind.__name__ for kind in OURS}
    return {"class_path": f"vitlocal.models.{given}" if ours else given}


def network_settings(
    network: MakeNetwork | MakeNodeNetwork | MakeDecoder | Mapping[str, Any] | str, maker: Any = MakeNetwork
) -> Settings:
    """A network's settings, checked and whole, from whatever says which.

    Args:
        network: a class, ``functools.partial`` of one, a class path, or settings; without a class path they
            are those of the first class that ``maker`` has in ``KNOWN``.
        maker: what it is made by: ``MakeNetwork``, for images, ``MakeNodeNetwork``, for graphs, or
            ``MakeDecoder``, for sequences.

    Raises:
        InputError: there is no such class, or it takes no such arguments.
    """
    settings: Settings = _parsed(_given(network, KNOWN[maker][0]), maker).as_dict()["network"]
    return settings


def make_network(settings: Settings, maker: Any = MakeNetwork, **facts: Any) -> nn.Module:
    """The network.

    Args:
        settings: see :func:`network_settings`.
        maker: the same.
        facts: of the data set, see :class:`MakeNetwork`; the network gets those that it has arguments for.

    Raises:
        InputError: its settings don't go together, or not with the data set.
    """
    parsed = _parsed(settings, maker)
    make = _parser(maker).instantiate(parsed).network
    kind = _class(make)
    assert kind is not None, "a class path is one of a class"
    parameters = inspect.signature(kind).parameters
    if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values()):
        facts = {name: value for name, value in facts.items() if name in parameters}
    network: nn.Module = make(**facts)
    return network


@cache
def _parser(maker: Any) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--network", type=maker, required=True)
    return parser


def _parsed(settings: Settings, maker: Any) -> Any:
    try:
        return _parser(maker).parse_object({"network": settings})
    except ArgumentError as error:
        said = " ".join(str(root_cause(error)).split())
        if found := re.search("Expected a dot import path string: (.*)", said):
            known = sorted(kind.__name__ for kind in KNOWN[maker])
            said = f"{found[1]} is no class path, nor one of {', '.join(known)}"
        raise InputError(f"network {settings['class_path']}: {said}; give what the class takes") from error


def _given(network: Any, default: type) -> Settings:
    """As settings, yet unchecked."""
    if isinstance(network, str):
        return expanded(network)
    if isinstance(network, Mapping):
        if "class_path" in network:
            return dict(network) | expanded(network["class_path"])
        return {"class_path": _path(default), "init_args": network.get("init_args", network)}
    kind = _class(network)
    if kind is None:
        raise InputError(
            f"network is {network!r}: give a class, functools.partial of one, or its class path and arguments"
        )
    arguments = network.keywords if isinstance(network, partial) else {}
    nested = {name: _given(value, default) if _class(value) else value for name, value in arguments.items()}
    return {"class_path": _path(kind), "init_args": nested}


def _class(maker: Any) -> type | None:
    """The class that a maker makes one of; in jsonargparse's own partials it is the last argument."""
    parts = (maker.func, *maker.args) if isinstance(maker, partial) else (maker,)
    return parts[-1] if isinstance(parts[-1], type) else None


def _path(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
