"""Label smoothing."""

import torch
from torch import Tensor

from vitlocal.errors import InputError
from vitlocal.protocol.base import Augmentation, check

TOLERANCE = 1e-2
"""Of the sum of an image's probabilities, which may have been rounded to bfloat16."""


class LabelSmoothing(Augmentation):
    """Each target: mixed with the uniform distribution over the K classes.

    Szegedy et al. 2016, arXiv 1512.00567: (1 - epsilon) * target + epsilon / K. Where each class is on an
    image or not by itself, its target is a distribution over two, so that 2 takes the place of K, as in
    Keras' ``BinaryCrossentropy``.

    Args:
        epsilon: the uniform distribution's share.
        num_classes: K, which labels that are class numbers need; a data module of vitlocal's has it.
        multilabel: whether labels (B, K) are each on or off by itself; a data module of vitlocal's says that.

    Raises:
        InputError: if ``epsilon`` is not in 0..1, 1 itself excluded; when applied, if labels (B, K) of
            elsewhere neither sum to 1 nor are said to be ``multilabel``.
    """

    changes_labels = True

    def __init__(
        self, epsilon: float = 0.1, num_classes: int | None = None, multilabel: bool = False
    ) -> None:
        check(0 <= epsilon < 1, self, "epsilon", epsilon, "from 0 to below 1")
        self.epsilon = epsilon
        self.num_classes = num_classes
        self.multilabel = multilabel

    def apply(self, batch: dict[str, Tensor], generator: torch.Generator) -> None:
        """Change ``batch["target"]``; see :meth:`Augmentation.apply`."""
        target = batch["target"]
        multilabel = batch["label"].ndim == 2 if "label" in batch else self.multilabel
        if "label" not in batch and not multilabel and (target.sum(1) - 1).abs().amax() > TOLERANCE:
            raise InputError(
                "LabelSmoothing: labels (B, K) are no probabilities of classes, whose sum is 1 in each row: "
                "give those, or multilabel=True where an image may have several labels"
            )
        classes = 2 if multilabel else target.shape[1]
        batch["target"] = (1 - self.epsilon) * target + self.epsilon / classes
