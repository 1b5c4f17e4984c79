"""Networks of other libraries: made by name, or found in somebody's module and made observable."""

from collections.abc import Callable

from torch import nn

from vitlocal.models.adapters import timm, torchvision, transformers
from vitlocal.models.adapters.base import Adapted
from vitlocal.models.adapters.timm import Timm
from vitlocal.models.adapters.torchvision import Torchvision
from vitlocal.models.adapters.transformers import Transformers

LIBRARIES: dict[str, type[Adapted]] = {
    "timm": Timm,
    "torchvision": Torchvision,
    "transformers": Transformers,
}
"""Classes of networks by what stands before the colon of a name such as ``timm:vit_tiny_patch16_224``."""

ADAPT: dict[str, Callable[[nn.Module], bool]] = {
    "timm": timm.adapt,
    "torchvision": torchvision.adapt,
    "transformers": transformers.adapt,
}


def adapt(network: nn.Module) -> bool:
    """Give a network of timm, torchvision or transformers a ``geometry``, and its attention ``explicit``.

    What it computes, its parameters and their names stay as they are.

    Args:
        network: of any kind.

    Returns:
        Whether it is one that is supported.
    """
    of = {base.__module__.partition(".")[0] for base in type(network).__mro__}
    return any(name in of and adapt_of(network) for name, adapt_of in ADAPT.items())


__all__ = ["LIBRARIES", "Adapted", "Timm", "Torchvision", "Transformers", "adapt"]
