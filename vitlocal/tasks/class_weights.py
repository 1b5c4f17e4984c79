"""How much each class weighs in the training loss."""

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from vitlocal.errors import InputError

ClassWeights: TypeAlias = Literal["balanced"] | list[float]


def loss_weights(given: ClassWeights, labels: np.ndarray | None, class_names: Sequence[str]) -> Tensor:
    """Weights of K classes, float32 (K,).

    ``balanced`` is n / (K * n_k), with n_k of the n training images of class k: that of scikit-learn's
    ``compute_class_weight``. The mean over the training images is 1.

    Args:
        given: ``balanced``, or one number a class.
        labels: of the training images, int64 (N,); None if they are not known, and then they are not needed
            unless the weights are balanced.
        class_names: K names, for messages.

    Raises:
        InputError: a list is not one of K numbers of 0 or more, one of them above 0; or weights are to be
            balanced and the labels are not known, or no image is of some class.

    >>> loss_weights("balanced", np.array([0, 0, 0, 1]), ("cat", "dog"))
    tensor([0.6667, 2.0000])
    """
    if given != "balanced":
        return torch.tensor(_checked(given, class_names))
    labels = _known(labels)
    counts = np.bincount(labels, minlength=len(class_names))
    if not counts.all():
        name = class_names[int(counts.argmin())]
        raise InputError(
            f"model.class_weights is balanced, but class '{name}' has no training image: give images of "
            "every class, or a list"
        )
    return torch.from_numpy(len(labels) / (len(counts) * counts)).float()


def positive_weights(given: ClassWeights, labels: np.ndarray | None, class_names: Sequence[str]) -> Tensor:
    """Weights of the images that have a label, where they may have several: ``pos_weight``, float32 (K,).

    ``balanced`` is (n - n_k) / n_k, with n_k of the n training images having label k, so that those with and
    those without it weigh alike together, as torch's ``BCEWithLogitsLoss`` has it.

    Args:
        given: ``balanced``, or one number a label.
        labels: of the training images, 0 or 1, (N, K), each label on one or more; None if they are not known.
        class_names: K names, for messages.

    Raises:
        InputError: as in :func:`loss_weights`.

    >>> positive_weights("balanced", np.array([[0, 1], [0, 1], [1, 1], [0, 0]]), ("effusion", "mass"))
    tensor([3.0000, 0.3333])
    """
    if given != "balanced":
        return torch.tensor(_checked(given, class_names))
    labels = _known(labels)
    counts = labels.sum(axis=0)
    return torch.from_numpy((len(labels) - counts) / counts).float()


def _known(labels: np.ndarray | None) -> np.ndarray:
    if labels is None:
        raise InputError(
            "model.class_weights is balanced, but the data module has no train_labels to count: give a data "
            "module of vitlocal's, or a list"
        )
    return labels


def _checked(given: Sequence[float], class_names: Sequence[str]) -> Sequence[float]:
    if len(given) != len(class_names):
        raise InputError(
            f"model.class_weights has {len(given)} values, but there are {len(class_names)} classes: give "
            "one a class"
        )
    for name, weight in zip(class_names, given, strict=True):
        if not 0 <= weight < math.inf:
            raise InputError(
                f"model.class_weights has {weight} for class '{name}': give a number of 0 or more"
            )
    if not any(given):
        raise InputError("model.class_weights are all 0, so nothing is learned: give one above 0")
    return given
