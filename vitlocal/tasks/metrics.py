"""What is measured at validation and test."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.utilities.data import dim_zero_cat

UNKNOWN = -1
"""The label of padding, by which processes get equally many images, and of unlabelled images."""


class MacroAUROC(Metric):
    """Area under the ROC curve of each class against the others, mean over the classes that occur.

    torchmetrics' own mean takes a class without an image for one of area 0. All probabilities are kept until
    :meth:`compute`, N x K of them.

    >>> metric = MacroAUROC()
    >>> logits = torch.tensor([[3.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 3.0, 0.0]])
    >>> metric(logits, torch.tensor([0, 0, 1]))  # no image of the third class
    tensor(1.)
    """

    full_state_update = False
    probabilities: list[Tensor]
    labels: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("probabilities", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, logits: Tensor, label: Tensor) -> None:
        """Add a batch: logits (B, K) and labels int64 (B,), -1 where unknown."""
        known = label != UNKNOWN
        self.probabilities.append(logits[known].float().softmax(-1))
        self.labels.append(label[known])

    def compute(self) -> Tensor:
        """The mean, a scalar; NaN where all images are of one class."""
        probability = dim_zero_cat(self.probabilities)
        positive = one_hot(dim_zero_cat(self.labels), probability.shape[1])
        count = positive.sum(0)
        ranked = ((count > 0) & (count < len(positive))).nonzero().flatten().tolist()
        areas = [binary_auroc(probability[:, k], positive[:, k], validate_args=False) for k in ranked]
        return torch.stack(areas).mean() if areas else probability.new_tensor(float("nan"))


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
    return MetricCollection(metrics)
