"""Image classification: a network, its loss, accuracy, optimiser and schedule."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection

from vitlocal.data import Resize
from vitlocal.errors import InputError
from vitlocal.internals import accumulated_short
from vitlocal.models import MakeNetwork, VisionTransformer, make_network, network_settings
from vitlocal.tasks.class_weights import ClassWeights
from vitlocal.tasks.metrics import mean_metric
from vitlocal.tasks.objective import Objective, objective_of
from vitlocal.tasks.optimisation import optimiser_with_schedule
from vitlocal.tasks.schedule import Schedule

NOT_NEEDED = ("class_names", "resize", "multilabel")  # to train, and earlier releases did not keep them
DATA_FACTS = ("image_size", "in_channels", "num_classes", "mean", "std", *NOT_NEEDED)


class Classification(LightningModule):
    """A network trained to classify images, the same under every protocol.

    Takes uint8 images and normalises them itself, so that a checkpoint needs nothing beside it. Where images
    have several labels (``multilabel``), each is trained by itself, by binary cross entropy.
    The arguments from ``image_size`` on are facts of the data set: leave them out and they are taken from
    the trainer's data module, and kept in the checkpoint.

    Args:
        network: what is trained: a class, ``functools.partial`` of one, or a class path with its arguments;
            see :class:`~vitlocal.models.MakeNetwork`.
        lr: peak learning rate of AdamW.
        weight_decay: AdamW's, on matrices; norms, biases, positions and the class token have none.
        warmup_epochs: epochs of linear warm-up before the schedule.
        compile: train through ``torch.compile``. Observed passes stay eager.
        schedule: after warm-up, ``cosine`` to 0 or ``constant``.
        macro_metrics: measure macro F1 and macro AUROC beside accuracy at validation and test, as is always
            done of several labels an image.
        class_weights: how much each class weighs in the training loss, see :meth:`training_step`: a number a
            class, or ``balanced``, n / (K * n_k) with n_k of the n training images of class k, as in
            scikit-learn. Of several labels an image it is torch's ``pos_weight``, the weight of the images
            that have the label, and ``balanced`` (n - n_k) / n_k. Losses of validation and test are not
            weighted.
        image_size: height and width in pixels.
        in_channels: 1 for grey, 3 for colour.
        num_classes: number of classes.
        mean: mean of each channel, on the scale 0 to 1.
        std: standard deviation of each channel, on the same scale.
        class_names: name of each class.
        resize: how images of another shape were brought to ``image_size``.
        multilabel: whether an image may have several labels or none.

    Raises:
        InputError: a value out of its range, or a data set that a checkpoint was not made for.
    """

    network: nn.Module
    mean: Tensor
    std: Tensor
    class_weights: Tensor | None
    loss_terms: list[Callable[[Tensor, Tensor], Tensor]]
    _train_network: Callable[[Tensor], Tensor]

    def __init__(
        self,
        network: MakeNetwork = VisionTransformer,
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        warmup_epochs: int = 10,
        compile: bool = False,
        schedule: Schedule = "cosine",
        macro_metrics: bool = False,
        class_weights: ClassWeights | None = None,
        image_size: tuple[int, int] | None = None,
        in_channels: int | None = None,
        num_classes: int | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        class_names: tuple[str, ...] | None = None,
        resize: Resize | None = None,
        multilabel: bool | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("lr", lr), ("weight_decay", weight_decay), ("warmup_epochs", warmup_epochs)):
            if not 0 <= value < math.inf:
                raise InputError(f"model.{name} is {value}: it must be a number of 0 or more")
        if std is not None and not all(0 < value < math.inf for value in std):
            raise InputError(f"model.std is {std}: its values must be above 0")
        settings = network_settings(network)
        network = settings  # type: ignore[assignment] # saved below: a checkpoint holds plain values
        # The data set's facts are kept in checkpoints, but loggers don't see them: Lightning refuses to log
        # what the data module has by the same name with another value, such as an image_size of its own.
        self.save_hyperparameters(ignore=DATA_FACTS)
        self.hparams["network"] = settings  # a subclass may have been given something else
        facts = (image_size, in_channels, num_classes, mean, std, class_names, resize, multilabel)
        self.hparams.update(zip(DATA_FACTS, facts, strict=True))
        self.register_buffer("class_weights", None, persistent=False)
        self.loss_terms = []

    def setup(self, stage: str) -> None:
        """Take the facts of the trainer's data set, or check that they are those trained on."""
        datamodule = getattr(self.trainer, "datamodule", None)
        for fact in DATA_FACTS:
            own, given = self._plain(self.hparams[fact]), getattr(datamodule, fact, None)
            if own is None and given is None and fact not in NOT_NEEDED:
                raise InputError(f"model.{fact} is not known: give a vitlocal data module, or model.{fact}")
            if own is not None and given is not None and not self._agree(fact, own, given):
                own, given = _first_difference(own, given) if fact == "class_names" else (own, given)
                raise InputError(
                    f"the model has {fact} {own} but the data set has {given}: "
                    "give the data set that the model was trained on, or leave that fact to the data set"
                )
            self.hparams[fact] = given if own is None else own
        if stage == "fit" and self.hparams["class_weights"] is not None:
            names = self.hparams["class_names"] or [str(k) for k in range(self.hparams["num_classes"])]
            labels = getattr(datamodule, "train_labels", None)
            self.class_weights = self.objective.weights(self.hparams["class_weights"], labels, names)

    @property
    def objective(self) -> Objective:
        """Loss and metrics, once the data set or the checkpoint has said how many labels an image has."""
        return objective_of(self.hparams["multilabel"])

    @staticmethod
    def _agree(fact: str, own: Any, given: Any) -> bool:
        if fact in ("mean", "std", "resize"):  # may differ: a model goes on normalising as it was trained
            return True
        # Data sets without names number their classes.
        numbers = tuple(str(number) for number in range(len(own))) if fact == "class_names" else None
        return own == given or numbers in (own, given)

    @staticmethod
    def _plain(value: Any) -> Any:
        """YAML and checkpoints give lists where the data module has tuples."""
        return tuple(value) if isinstance(value, list) else value

    def configure_model(self) -> None:
        """Build the network, once the data set or the checkpoint has said for what images."""
        if hasattr(self, "network"):
            return
        facts = self.hparams
        if any(facts[fact] is None for fact in DATA_FACTS if fact not in NOT_NEEDED):
            self.setup("fit")  # callbacks that average weights build the network before that
        mean, std = torch.tensor(facts["mean"]), torch.tensor(facts["std"])
        if not len(mean) == len(std) == facts["in_channels"]:
            raise InputError(f"model.mean has {len(mean)} values and std {len(std)}: give one a channel")
        self.network = make_network(
            facts["network"],
            img_size=tuple(facts["image_size"]),
            in_chans=facts["in_channels"],
            num_classes=facts["num_classes"],
        )
        # For Lightning's summary, which counts the operations of one image.
        self.example_input_array = torch.zeros(
            1, facts["in_channels"], *facts["image_size"], dtype=torch.uint8
        )
        # Not in the checkpoint as buffers: they are there as hyperparameters.
        self.register_buffer("mean", mean.view(-1, 1, 1) * 255, persistent=False)
        self.register_buffer("std", std.view(-1, 1, 1) * 255, persistent=False)
        classes = facts["num_classes"]
        self.train_accuracy = self.objective.training_metric(classes)
        measured = self.objective.metrics(classes, facts["macro_metrics"])
        self.val_metrics, self.test_metrics = measured.clone(prefix="val/"), measured.clone(prefix="test/")
        self.train_loss, self.val_loss, self.test_loss = mean_metric(), mean_metric(), mean_metric()
        # Beside the module, not in it, so that the state dict has one network, with timm's names; and
        # apart from the network that forward runs, so that hooks of observed passes are seen.
        network = torch.compile(self.network) if facts["compile"] else self.network
        object.__setattr__(self, "_train_network", network)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 images (B, C, H, W) to logits (B, K)."""
        return self.network(self.normalize(images))

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 images (B, C, H, W) to floats of mean 0 and deviation 1 over the training images."""
        return (images - self.mean) / self.std

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Cross entropy with the batch's target probabilities y, weighted by class if there are weights w.

        With softmax probabilities p, it is the mean over images of the sum of -w_k y_k log p_k over classes.
        Of several labels an image, with p the sigmoid of each logit, it is the mean over images and classes
        of -w_k y_k log p_k - (1 - y_k) log(1 - p_k). ``train/loss`` is weighted too.

        Callbacks add to it by ``loss_terms``: functions of the normalised images and the network's logits.
        """
        images = self.normalize(batch["image"])
        logits = self._train_network(images)
        loss = self.objective.loss(logits, batch["target"], self.class_weights)
        for term in self.loss_terms:
            loss = loss + term(images, logits)
        # Against the image's own label: under mixing the image shows more than that class.
        self.train_accuracy.update(logits, batch["label"])
        size = len(logits)
        self.log("loss", loss, prog_bar=True, logger=False, batch_size=size)
        self.train_loss.update(loss.detach().expand(size))
        # EpochMetrics logs these: what Lightning logs of an epoch or a step comes after its checkpoint
        # and would be missing if the run is killed between the two.
        whole: dict[str, Any] = {"on_step": False, "on_epoch": True, "logger": False, "batch_size": size}
        self.log("train/loss", self.train_loss, **whole)
        self.log(f"train/{self.objective.accuracies[0]}_augmented", self.train_accuracy, **whole)
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"], logger=False, batch_size=size)
        return loss

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Make the gradient that of a mean, also of fewer batches than are accumulated elsewhere."""
        super().backward(loss * accumulated_short(self.trainer), *args, **kwargs)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """The loss without weights and metrics over the images with a label, whatever the protocol."""
        self._evaluate(batch, "val", self.val_loss, self.val_metrics)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """As in validation, on the test images."""
        self._evaluate(batch, "test", self.test_loss, self.test_metrics)

    def _evaluate(
        self, batch: dict[str, Tensor], stage: str, loss: MeanMetric, metrics: MetricCollection
    ) -> None:
        logits, label = self(batch["image"]), batch["label"]
        metrics.update(logits, label)
        loss.update(self.objective.losses(logits, label))
        size = len(logits)
        self.log(f"{stage}/loss", loss, on_step=False, on_epoch=True, batch_size=size)
        for name, metric in metrics.items(keep_base=False):
            shown = name == f"val/{self.objective.accuracies[0]}"
            self.log(name, metric, prog_bar=shown, on_step=False, on_epoch=True, batch_size=size)

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Index, label, and what the objective says: class and probability, or all probabilities."""
        said = self.objective.predictions(self(batch["image"]))
        return {"index": batch["index"], "label": batch["label"], **said}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with warm-up and the schedule, stepped with the optimiser."""
        facts = self.hparams
        return optimiser_with_schedule(
            self, self.network, facts["lr"], facts["weight_decay"], facts["schedule"], facts["warmup_epochs"]
        )


def _first_difference(own: Sequence[str], given: Sequence[str]) -> tuple[str, str]:
    """The number and the name of the first class that two lists call differently, of each."""
    number = next(number for number, names in enumerate(zip(own, given, strict=True)) if len(set(names)) > 1)
    return f"'{own[number]}' as number {number}", f"'{given[number]}'"
