"""Classification of the nodes of a graph: all of it in each step."""

import math
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from vitlocal.data.graphs import NodeBatch
from vitlocal.errors import InputError
from vitlocal.models import STAGNN, MakeNodeNetwork, make_network, network_settings
from vitlocal.tasks.metrics import MacroAUROC
from vitlocal.tasks.schedule import trainable

NodeMetric = Literal["accuracy", "auroc"]
"""What training stops by: accuracy, or the area under the ROC curve."""

NODE_FACTS = ("num_features", "num_classes", "class_names")
MONITORED: dict[NodeMetric, str] = {"accuracy": "val/acc1", "auroc": "val/auroc_macro"}
UNDECAYED = ("hop_gate", "head_gate")


class NodeClassification(LightningModule):
    """A graph network trained to classify nodes, as in Huang et al. 2023; the whole graph is one step.

    Adam; training ends after ``patience`` epochs without a better validation metric. The arguments from
    ``num_features`` on are facts of the graph: leave them out and they are taken from the trainer's data
    module, and kept in the checkpoint. The graph itself is the data module's.

    Args:
        network: what is trained: a class, ``functools.partial`` of one, or a class path with its arguments;
            see :class:`~vitlocal.models.MakeNodeNetwork`.
        lr: learning rate of Adam.
        weight_decay: Adam's, on all parameters but gates of hops.
        patience: epochs without a better validation metric before training stops.
        metric: ``accuracy``, with cross entropy as loss; or ``auroc``, the mean over classes of the area
            under the ROC curve, with binary cross entropy of each class.
        num_features: features of a node.
        num_classes: number of classes.
        class_names: name of each class.

    Raises:
        InputError: a value out of its range, or a graph that a checkpoint was not made for.
    """

    network: nn.Module

    def __init__(
        self,
        network: MakeNodeNetwork = STAGNN,
        lr: float = 0.01,
        weight_decay: float = 5e-4,
        patience: int = 200,
        metric: NodeMetric = "accuracy",
        num_features: int | None = None,
        num_classes: int | None = None,
        class_names: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("lr", lr), ("weight_decay", weight_decay)):
            if not 0 <= value < math.inf:
                raise InputError(f"model.{name} is {value}: it must be a number of 0 or more")
        if patience < 1:
            raise InputError(f"model.patience is {patience}: it must be at least 1")
        if metric not in get_args(NodeMetric):
            raise InputError(f"model.metric is {metric!r}: it must be accuracy or auroc")
        settings = network_settings(network, MakeNodeNetwork)
        network = settings  # type: ignore[assignment] # saved below: a checkpoint holds plain values
        self.save_hyperparameters(ignore=NODE_FACTS)
        self.hparams["network"] = settings  # a subclass may have been given something else
        self.hparams.update(zip(NODE_FACTS, (num_features, num_classes, class_names), strict=True))

    def setup(self, stage: str) -> None:
        """Take the facts of the trainer's graph, or check that they are those trained on."""
        datamodule = getattr(self.trainer, "datamodule", None)
        for fact in NODE_FACTS:
            own, given = self.hparams[fact], getattr(datamodule, fact, None)
            own = tuple(own) if isinstance(own, list) else own
            if own is None and given is None:
                raise InputError(f"model.{fact} is not known: give data that are a graph, such as Karate")
            if own is not None and given is not None and own != given:
                raise InputError(
                    f"the model has {fact} {own} but the graph has {given}: give the graph that the model "
                    "was trained on, or leave that fact to the graph"
                )
            self.hparams[fact] = given if own is None else own
        self._place()

    def configure_model(self) -> None:
        """Build the network, once the graph or the checkpoint has said for what nodes."""
        if hasattr(self, "network"):
            return
        features, classes = self.hparams["num_features"], self.hparams["num_classes"]
        if features is None or classes is None:
            self.setup("fit")  # callbacks that average weights build the network before that
            features, classes = self.hparams["num_features"], self.hparams["num_classes"]
        self.network = make_network(
            self.hparams["network"], MakeNodeNetwork, num_features=features, num_classes=classes
        )
        self.metrics = nn.ModuleDict({stage: self._metric(classes) for stage in ("val", "test")})
        self._place()

    def _metric(self, classes: int) -> nn.ModuleDict:
        metrics: dict[str, Metric] = {
            "acc1": MulticlassAccuracy(classes, average="micro", validate_args=False)
        }
        if self.hparams["metric"] == "auroc":
            metrics["auroc_macro"] = MacroAUROC()
        return nn.ModuleDict(metrics)

    def _place(self) -> None:
        """Tell the network its graph."""
        network: Any = getattr(self, "network", None)
        graph = getattr(getattr(self._trainer, "datamodule", None), "graph", None)
        if network is not None and graph is not None:
            network.place(graph)

    def on_fit_start(self) -> None:
        """Say where ever more hops would not see the whole graph alike."""
        walk = getattr(getattr(self.network, "attn", None), "walk", None)
        if walk is not None and (obstacle := walk.obstacle()):
            rank_zero_info(
                f"vitlocal: {obstacle}; so however many hops, they do not come to global attention"
            )

    def on_fit_end(self) -> None:
        """Say how good the best epoch was, and when: nothing else is printed of so short epochs."""
        every: Any = self.trainer.callbacks  # type: ignore[attr-defined]
        stopping = next(each for each in every if isinstance(each, EarlyStopping))
        epochs, score = self.trainer.current_epoch, float(stopping.best_score)
        if math.isfinite(score):
            best = epochs - stopping.wait_count
            rank_zero_info(
                f"vitlocal: the best {stopping.monitor} is {score:.4f}, after {best} of {epochs} epochs"
            )

    def configure_callbacks(self) -> list[Callback]:
        """Stop early by the metric."""
        monitored = MONITORED[self.hparams["metric"]]
        return [EarlyStopping(monitored, mode="max", patience=self.hparams["patience"])]

    def forward(self, features: Tensor) -> Tensor:
        """Features of all nodes (N, F) to logits (N, K)."""
        return self.network(features)

    def training_step(self, batch: NodeBatch, batch_idx: int) -> Tensor:
        """The mean loss of the nodes that train."""
        logits, nodes = self(batch["features"]), batch["nodes"]
        loss = self._loss(logits[nodes], batch["label"][nodes])
        self.log("loss", loss, prog_bar=True, logger=False, batch_size=len(nodes))
        # EpochMetrics logs it: what Lightning logs of an epoch comes after its checkpoint.
        self.log("train/loss", loss, on_step=False, on_epoch=True, logger=False, batch_size=len(nodes))
        self.log("lr", self.hparams["lr"], logger=False, batch_size=len(nodes))
        return loss

    def validation_step(self, batch: NodeBatch, batch_idx: int) -> None:
        """The same of those that validate, and the metrics."""
        self._evaluate(batch, "val")

    def test_step(self, batch: NodeBatch, batch_idx: int) -> None:
        """As in validation, of those that test."""
        self._evaluate(batch, "test")

    def _evaluate(self, batch: NodeBatch, stage: str) -> None:
        nodes = batch["nodes"]
        logits, label = self(batch["features"])[nodes], batch["label"][nodes]
        self.log(f"{stage}/loss", self._loss(logits, label), batch_size=len(nodes))
        of_stage: Any = self.metrics[stage]
        for name, metric in of_stage.items():
            metric.update(logits, label)
            self.log(
                f"{stage}/{name}", metric, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(nodes)
            )

    def _loss(self, logits: Tensor, label: Tensor) -> Tensor:
        if self.hparams["metric"] == "auroc":
            target = F.one_hot(label, logits.shape[1]).to(logits.dtype)
            return F.binary_cross_entropy_with_logits(logits, target)
        return F.cross_entropy(logits, label)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam, with weight decay on all but gates of hops."""
        named = list(trainable(self.network))
        gates = [parameter for name, parameter in named if name.rpartition(".")[2] in UNDECAYED]
        rest = [parameter for name, parameter in named if name.rpartition(".")[2] not in UNDECAYED]
        groups = [
            {"params": rest, "weight_decay": self.hparams["weight_decay"]},
            {"params": gates, "weight_decay": 0.0},
        ]
        return torch.optim.Adam([group for group in groups if group["params"]], lr=self.hparams["lr"])
