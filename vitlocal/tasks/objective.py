"""What depends on how many labels an image has: loss, metrics, and what is said of an image."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from vitlocal.tasks.class_weights import ClassWeights, loss_weights, positive_weights
from vitlocal.tasks.metrics import UNKNOWN, LabelAccuracy, evaluation_metrics, multilabel_metrics


class Objective(ABC):
    """How logits (B, K) are compared with labels.

    Attributes:
        accuracies: what accuracies are called, without their stage; the first is that of training too.
    """

    accuracies: ClassVar[tuple[str, ...]]

    @abstractmethod
    def loss(self, logits: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
        """The loss of a training batch, a scalar.

        Args:
            logits: (B, K).
            target: float32 (B, K), each from 0 to 1.
            weights: of the classes, float32 (K,), by :meth:`weights`; None: all 1.
        """

    @abstractmethod
    def losses(self, logits: Tensor, label: Tensor) -> Tensor:
        """The loss without weights of each of the n images whose label is known, (n,)."""

    @abstractmethod
    def weights(self, given: ClassWeights, labels: np.ndarray | None, class_names: Sequence[str]) -> Tensor:
        """The weights of the classes, float32 (K,); see :mod:`vitlocal.tasks.class_weights`."""

    @abstractmethod
    def training_metric(self, num_classes: int) -> Metric:
        """The accuracy of training, of logits and labels."""

    @abstractmethod
    def metrics(self, num_classes: int, macro: bool) -> MetricCollection:
        """What is measured at validation and test, of logits and labels, see :mod:`.metrics`."""

    @abstractmethod
    def predictions(self, logits: Tensor) -> dict[str, Tensor]:
        """What predictions.csv says of each image, beside its label; each (B,) or (B, K)."""

    @abstractmethod
    def table(self, rows: Sequence[Sequence[Any]], class_names: Sequence[Any]) -> list[list[Any]]:
        """predictions.csv after the column of the images: the header, then a row an image.

        Args:
            rows: of each image its label and its :meth:`predictions`.
            class_names: K names.
        """


class OneLabel(Objective):
    """An image is of one of the K classes: labels (B,), cross entropy."""

    accuracies = ("acc1", "acc5")

    def loss(self, logits: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
        """Cross entropy of probabilities, divided by the number of images, not by the sum of their weights.

        So means over processes and accumulated batches are exact.
        """
        return F.cross_entropy(logits, target, weight=weights)

    def losses(self, logits: Tensor, label: Tensor) -> Tensor:
        """Cross entropy."""
        return F.cross_entropy(logits, label, reduction="none", ignore_index=UNKNOWN)[label != UNKNOWN]

    def weights(self, given: ClassWeights, labels: np.ndarray | None, class_names: Sequence[str]) -> Tensor:
        """By :func:`loss_weights`."""
        return loss_weights(given, labels, class_names)

    def training_metric(self, num_classes: int) -> Metric:
        """The share of images whose largest logit is that of their class."""
        # Labels were checked when they were read; to check every batch's would wait for the device.
        return MulticlassAccuracy(num_classes, average="micro", validate_args=False)

    def metrics(self, num_classes: int, macro: bool) -> MetricCollection:
        """By :func:`evaluation_metrics`."""
        return evaluation_metrics(num_classes, macro)

    def predictions(self, logits: Tensor) -> dict[str, Tensor]:
        """The predicted class and its probability."""
        probability, predicted = logits.float().softmax(-1).max(-1)
        return {"predicted": predicted, "probability": probability}

    def table(self, rows: Sequence[Sequence[Any]], class_names: Sequence[Any]) -> list[list[Any]]:
        """The label, empty where unknown; the predicted class; its probability."""
        return [["label", "predicted", "probability"]] + [
            ["" if label == UNKNOWN else class_names[label], class_names[predicted], f"{probability:.6f}"]
            for label, predicted, probability in rows
        ]


class SeveralLabels(Objective):
    """Each of the K classes is on an image or not: labels 0 or 1, (B, K), binary cross entropy.

    A logit is the log odds that its class is on the image.
    """

    accuracies = ("label_accuracy",)

    def loss(self, logits: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
        """Binary cross entropy, mean over images and classes, with ``weights`` as torch's ``pos_weight``."""
        return F.binary_cross_entropy_with_logits(logits.float(), target, pos_weight=weights)

    def losses(self, logits: Tensor, label: Tensor) -> Tensor:
        """Binary cross entropy, mean over classes."""
        known = label[:, 0] != UNKNOWN
        logits, target = logits[known].float(), label[known].float()
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(1)

    def weights(self, given: ClassWeights, labels: np.ndarray | None, class_names: Sequence[str]) -> Tensor:
        """By :func:`positive_weights`."""
        return positive_weights(given, labels, class_names)

    def training_metric(self, num_classes: int) -> Metric:
        """The share of pairs of an image and a class that are right at probability 0.5."""
        return LabelAccuracy(num_classes, average="micro", validate_args=False)

    def metrics(self, num_classes: int, macro: bool) -> MetricCollection:
        """By :func:`multilabel_metrics`, whatever ``macro``."""
        return multilabel_metrics(num_classes)

    def predictions(self, logits: Tensor) -> dict[str, Tensor]:
        """The probability of each class."""
        return {"probability": logits.float().sigmoid()}

    def table(self, rows: Sequence[Sequence[Any]], class_names: Sequence[Any]) -> list[list[Any]]:
        """Where labels are known, 0 or 1 of each class; the probability of each class."""
        # Images without labels have one unknown label, whatever the classes.
        labelled = any(label != UNKNOWN for label, _ in rows)
        kinds = ["label", "probability"] if labelled else ["probability"]
        return [[f"{kind}/{name}" for kind in kinds for name in class_names]] + [
            [*(label if labelled else ()), *(f"{each:.6f}" for each in probability)]
            for label, probability in rows
        ]


def objective_of(multilabel: bool | None) -> Objective:
    """That of images that may have several labels, or of others; None, which earlier runs have: others."""
    return SeveralLabels() if multilabel else OneLabel()
