"""Label smoothing."""

import torch
from torch import Tensor

from vitlocal.protocol.base import Augmentation, check


class LabelSmoothing(Augmentation):
    """Each target: mixed with the uniform distribution over the K classes.

    Szegedy et al. 2016, arXiv 1512.00567: (1 - epsilon) * target + epsilon / K.

    Args:
        epsilon: the uniform distribution's share.
        num_classes: K, which labels that are class numbers need; a data module of vitlocal's has it.

    Raises:
        InputError: if ``epsilon`` is not in 0..1, 1 itself excluded.
    """

    changes_labels = True

    def __init__(self, epsilon: float = 0.1, num_classes: int | None = None) -> None:
        check(0 <= epsilon < 1, self, "epsilon", epsilon, "from 0 to below 1")
        self.epsilon = epsilon
        self.num_classes = num_classes

    def apply(self, batch: dict[str, Tensor], generator: torch.Generator) -> None:
        """Change ``batch["target"]``; see :meth:`Augmentation.apply`."""
        target = batch["target"]
        batch["target"] = (1 - self.epsilon) * target + self.epsilon / target.shape[1]
