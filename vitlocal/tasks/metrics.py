"""What is measured at validation and test."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassF1Score,
    MultilabelAccuracy,
    MultilabelF1Score,
)
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.utilities.data import dim_zero_cat

UNKNOWN = -1
"""The label of padding, by which processes get equally many images, and of unlabelled images."""


class MacroAUROC(Metric):
    """Area under the ROC curve of each class against the others, mean over the classes that occur.

    torchmetrics' own mean takes a class without an image for one of area 0. All log odds are kept until
    :meth:`compute`, N x K of them: probabilities near 1 would be rounded to the same one, and images that
    are told apart would count as equal.

    >>> metric = MacroAUROC()
    >>> logits = torch.tensor([[3.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 3.0, 0.0]])
    >>> metric(logits, torch.tensor([0, 0, 1]))  # no image of the third class
    tensor(1.)
    """

    full_state_update = False
    log_odds: list[Tensor]
    positive: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("log_odds", [], dist_reduce_fx="cat")
        self.add_state("positive", [], dist_reduce_fx="cat")

    def update(self, logits: Tensor, label: Tensor) -> None:
        """Add a batch: logits (B, K) and labels int64 (B,), -1 where unknown."""
        known = label != UNKNOWN
        self.log_odds.append(log_odds(logits[known].float()))
        self.positive.append(one_hot(label[known], logits.shape[1]))

    def compute(self) -> Tensor:
        """The mean, a scalar; NaN where all images are of one class."""
        scores, positive = dim_zero_cat(self.log_odds), dim_zero_cat(self.positive)
        count = positive.sum(0)
        ranked = ((count > 0) & (count < len(positive))).nonzero().flatten().tolist()
        areas = [binary_auroc(_ranks(scores[:, k]), positive[:, k], validate_args=False) for k in ranked]
        return torch.stack(areas).mean() if areas else scores.new_tensor(float("nan"))


class MacroLabelAUROC(MacroAUROC):
    """Area under the ROC curve of each label, mean over the labels that are on some images but not on all."""

    def update(self, logits: Tensor, label: Tensor) -> None:
        """Add a batch: logits (B, K), the log odds of each label, and labels (B, K), -1 where unknown."""
        known = label[:, 0] != UNKNOWN
        self.log_odds.append(logits[known].float())
        self.positive.append(label[known])


def log_odds(logits: Tensor) -> Tensor:
    """log p - log(1 - p) of the softmax probabilities p, from logits (B, K), K above 1.

    >>> log_odds(torch.tensor([[99.0, 0.0, 0.0]]))
    tensor([[ 98.3069, -99.0000, -99.0000]])
    """
    log_p = logits.log_softmax(-1)
    top = logits.argmax(-1, keepdim=True)
    # 1 - p of the largest may round to 0: it is summed from the others.
    others = log_p.scatter(-1, top, -torch.inf).logsumexp(-1, keepdim=True)
    rest = torch.log1p(-log_p.exp()).scatter(-1, top, others)
    return log_p - rest


def _ranks(scores: Tensor) -> Tensor:
    """Scores (N,) as numbers in 0..1 in the same order: others are taken for logits, and rounded."""
    order = scores.unique(return_inverse=True)[1]
    return order.double() / len(order)


def evaluation_metrics(num_classes: int, macro: bool) -> MetricCollection:
    """Metrics of logits (B, K) and labels (B,), which take no notice of unknown labels.

    Args:
        num_classes: K.
        macro: besides accuracy also ``f1_macro`` and ``auroc_macro``, in which every class counts alike.
    """
    # Labels were checked when they were read; to check every batch's would wait for the device.
    options: dict[str, Any] = {"ignore_index": UNKNOWN, "validate_args": False}
    metrics: dict[str, Metric | MetricCollection] = {
        "acc1": MulticlassAccuracy(num_classes, average="micro", **options),
        "acc5": MulticlassAccuracy(num_classes, top_k=min(5, num_classes), average="micro", **options),
    }
    if macro:
        metrics["f1_macro"] = MulticlassF1Score(num_classes, average="macro", **options)
        metrics["auroc_macro"] = MacroAUROC()
    # Otherwise those whose counts are equal after the first batch are taken for one, and only one is updated:
    # acc5 and f1_macro, where no label is in second to fifth place.
    return MetricCollection(metrics, compute_groups=False)


class LabelAccuracy(MultilabelAccuracy):
    """Of logits (B, K). torchmetrics itself would take a batch of logits in 0..1 for probabilities."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch."""
        super().update((preds > 0).long(), target)


class LabelF1Score(MultilabelF1Score):
    """Of logits (B, K), for the same reason."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch."""
        super().update((preds > 0).long(), target)


def multilabel_metrics(num_labels: int) -> MetricCollection:
    """Metrics of logits (B, K) and labels 0 or 1, (B, K), which take no notice of unknown ones.

    ``label_accuracy``: the share of the pairs of an image and a label that are right at probability 0.5,
    which is high already where labels are rare and none is ever predicted; ``f1_macro``, at 0.5 too, and
    ``auroc_macro``: the means over labels, in which every label counts alike.

    Args:
        num_labels: K.
    """
    options: dict[str, Any] = {"num_labels": num_labels, "ignore_index": UNKNOWN, "validate_args": False}
    return MetricCollection(
        {
            "label_accuracy": LabelAccuracy(average="micro", **options),
            "f1_macro": LabelF1Score(average="macro", **options),
            "auroc_macro": MacroLabelAUROC(),
        }
    )


def mean_metric() -> MeanMetric:
    """The mean of numbers that are given one by one."""
    # float64, which mps lacks: sums in another order, as in several processes, agree to far below 1e-6.
    dtype = torch.float32 if torch.backends.mps.is_available() else torch.float64
    # NaN has to be seen. Without its check, torchmetrics 1.8 takes no notice of weights: give each image.
    mean = MeanMetric(nan_strategy="disable")
    mean.set_dtype(dtype)
    return mean
