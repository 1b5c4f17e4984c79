"""Sequences of tokens: a decoder, its loss on what follows a problem, and whether answers are right."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric

from vitlocal.data.sequences import EOS, Vocabulary
from vitlocal.errors import InputError
from vitlocal.internals import accumulated_short
from vitlocal.models import Decoder, MakeDecoder, generate, make_network, network_settings
from vitlocal.tasks.metrics import mean_metric
from vitlocal.tasks.optimisation import optimiser_with_schedule
from vitlocal.tasks.schedule import Schedule

SEQUENCE_FACTS = ("tokens", "separator", "max_length", "greedy")
IGNORED = -1
"""The target of tokens that are none."""


class SequenceModeling(LightningModule):
    """A decoder trained to give each next token of what follows a problem: the answer, or the chain to it.

    The arguments from ``tokens`` on are facts of the data set: leave them out and they are taken from the
    trainer's data module, and kept in the checkpoint.

    ``val/acc1`` and ``test/acc1`` are the share of problems that are answered right. Where the facts say
    ``greedy``, as chains of arithmetic and of equations do, the model goes on by itself from the problem, and
    its last answer counts; else all targets have to be right, each after those before it as they should be.

    Args:
        network: what is trained: a class, ``functools.partial`` of one, or a class path with its arguments;
            see :class:`~vitlocal.models.MakeDecoder`.
        lr: peak learning rate of AdamW.
        weight_decay: AdamW's, on matrices; norms and biases have none.
        warmup_epochs: epochs of linear warm-up before the schedule.
        compile: train through ``torch.compile``. Observed passes stay eager.
        schedule: after warm-up, ``linear`` or ``cosine`` to 0, or ``constant``.
        schedule_by_epoch: the learning rate changes after epochs only, and with a warm-up is 0 in the first
            one, as in the paper; else it changes after each step.
        tokens: the vocabulary.
        separator: the token that ends a problem.
        max_length: most tokens in a sequence.
        greedy: whether the model's own last answer counts.

    Raises:
        InputError: a value out of its range, or a data set that a checkpoint was not made for.
    """

    network: nn.Module
    _train_network: Callable[[Tensor], Tensor]

    def __init__(
        self,
        network: MakeDecoder = Decoder,
        lr: float = 1e-4,
        weight_decay: float = 0.01,
        warmup_epochs: int = 5,
        compile: bool = False,
        schedule: Schedule = "linear",
        schedule_by_epoch: bool = False,
        tokens: Sequence[str] | None = None,
        separator: str | None = None,
        max_length: int | None = None,
        greedy: bool | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("lr", lr), ("weight_decay", weight_decay), ("warmup_epochs", warmup_epochs)):
            if not 0 <= value < math.inf:
                raise InputError(f"model.{name} is {value}: it must be a number of 0 or more")
        settings = network_settings(network, MakeDecoder)
        network = settings  # type: ignore[assignment] # saved below: a checkpoint holds plain values
        self.save_hyperparameters(ignore=SEQUENCE_FACTS)
        self.hparams["network"] = settings
        facts = (None if tokens is None else tuple(tokens), separator, max_length, greedy)
        self.hparams.update(zip(SEQUENCE_FACTS, facts, strict=True))

    def setup(self, stage: str) -> None:
        """Take the facts of the trainer's data set, or check that they are those trained on."""
        datamodule = getattr(self.trainer, "datamodule", None)
        for fact in SEQUENCE_FACTS:
            own, given = self.hparams[fact], getattr(datamodule, fact, None)
            if own is None and given is None:
                raise InputError(
                    f"model.{fact} is not known: give a data set of sequences, such as Arithmetic, "
                    f"or model.{fact}"
                )
            if own is not None and given is not None and own != given:
                own, given = (f"{len(one)} of them" if fact == "tokens" else one for one in (own, given))
                raise InputError(
                    f"the model has {fact} {own} but the data set has {given}: "
                    "give the data set that the model was trained on, or leave that fact to the data set"
                )
            self.hparams[fact] = given if own is None else own

    def configure_model(self) -> None:
        """Build the network, once the data set or the checkpoint has said of what tokens."""
        if hasattr(self, "network"):
            return
        facts = self.hparams
        if any(facts[fact] is None for fact in SEQUENCE_FACTS):
            self.setup("fit")  # callbacks that average weights build the network before that
        self.vocabulary = Vocabulary(tuple(facts["tokens"]), facts["separator"])
        self.network = make_network(
            facts["network"], MakeDecoder, vocab_size=len(facts["tokens"]), max_length=facts["max_length"]
        )
        # For Lightning's summary, which counts the operations of one sequence.
        self.example_input_array = torch.zeros(1, facts["max_length"], dtype=torch.int64)
        self.train_loss, self.val_loss, self.test_loss = mean_metric(), mean_metric(), mean_metric()
        self.val_right, self.test_right = mean_metric(), mean_metric()
        # Beside the module, as in Classification.
        network = torch.compile(self.network) if facts["compile"] else self.network
        object.__setattr__(self, "_train_network", network)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens int64 (B, N) to the logits of each one's next, (B, N, V)."""
        return self.network(tokens)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Cross entropy of the targets, their mean over the batch's tokens from ``start`` to ``end``."""
        targets = following(batch)
        losses = _losses(self._train_network(batch["tokens"]), targets)
        loss = losses.mean()
        size = len(targets)
        self.log("loss", loss, prog_bar=True, logger=False, batch_size=size)
        self.train_loss.update(losses.detach())
        # EpochMetrics logs these, as in Classification.
        whole: dict[str, Any] = {"on_step": False, "on_epoch": True, "logger": False, "batch_size": size}
        self.log("train/loss", self.train_loss, **whole)
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"], logger=False, batch_size=size)
        return loss

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Make the gradient that of a mean, also of fewer batches than are accumulated elsewhere."""
        super().backward(loss * accumulated_short(self.trainer), *args, **kwargs)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """The loss, and where answers are not the model's own, whether they are right."""
        self._evaluate(batch, "val", self.val_loss, self.val_right)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """As in validation, on the test sequences."""
        self._evaluate(batch, "test", self.test_loss, self.test_right)

    # After the callbacks' hooks of the same name: what observes a batch is to see its one pass, not these.

    def on_validation_batch_end(
        self, outputs: Any, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Whether the answers that the model comes to by itself are right."""
        self._evaluate_greedily(batch, "val", self.val_right)

    def on_test_batch_end(
        self, outputs: Any, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """As in validation, on the test sequences."""
        self._evaluate_greedily(batch, "test", self.test_right)

    def _evaluate(self, batch: dict[str, Tensor], stage: str, loss: MeanMetric, right: MeanMetric) -> None:
        logits, targets = self(batch["tokens"]), following(batch)
        loss.update(_losses(logits, targets))
        self.log(f"{stage}/loss", loss, on_step=False, on_epoch=True, batch_size=len(targets))
        if not self.hparams["greedy"]:
            wrong = (logits.argmax(-1) != targets) & (targets != IGNORED)
            self._count(~wrong.any(1), batch, stage, right)

    def _evaluate_greedily(self, batch: dict[str, Tensor], stage: str, right: MeanMetric) -> None:
        if not self.hparams["greedy"]:
            return
        with self.trainer.precision_plugin.forward_context():
            found = self.continued(batch["tokens"], batch["start"])
        self._count(self._same_answer(found, batch["tokens"]), batch, stage, right)

    def _count(self, same: Tensor, batch: dict[str, Tensor], stage: str, right: MeanMetric) -> None:
        right.update(same[batch["index"] >= 0].float())
        name = f"{stage}/acc1"
        self.log(name, right, prog_bar=stage == "val", on_step=False, on_epoch=True, batch_size=len(same))

    def continued(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """What the model makes of problems, by itself: see :func:`vitlocal.models.generate`.

        Args:
            tokens: int64 (B, N), of which only the problems are read.
            lengths: of the problems, int64 (B,), their separators included.

        Returns:
            int64 (B, ``max_length``), problems included, 0 after the end.
        """
        network: Any = self.network
        return generate(network, tokens, lengths, EOS, self.hparams["max_length"])

    def _same_answer(self, found: Tensor, wanted: Tensor) -> Tensor:
        """Whether what comes after the last separator is the same, bool (B,)."""
        separator = self.vocabulary[self.hparams["separator"]]
        length = found.shape[1]
        places = torch.arange(length, device=found.device)
        answers = []
        for tokens in (found, wanted):
            last = torch.where(tokens == separator, places, 0).amax(1, keepdim=True)
            moved = F.pad(tokens, (0, length)).gather(1, last + 1 + places)
            answers.append(moved)
        return (answers[0] == answers[1]).all(1)

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Index, and the problem with all that the model makes of it, (B,) and (B, ``max_length``)."""
        return {"index": batch["index"], "tokens": self.continued(batch["tokens"], batch["start"])}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with warm-up and the schedule."""
        facts = self.hparams
        return optimiser_with_schedule(
            self,
            self.network,
            facts["lr"],
            facts["weight_decay"],
            facts["schedule"],
            facts["warmup_epochs"],
            by_epoch=facts["schedule_by_epoch"],
        )


def following(batch: dict[str, Tensor]) -> Tensor:
    """The target of each token of a batch, the one that follows it; -1 where that is none.

    Returns:
        int64 (B, N): token i + 1 at i where i + 1 is from ``start`` to below ``end``.
    """
    tokens = batch["tokens"]
    places = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    wanted = (places >= batch["start"][:, None]) & (places < batch["end"][:, None])
    return F.pad(tokens[:, 1:], (0, 1)).masked_fill(~wanted, IGNORED)


def _losses(logits: Tensor, targets: Tensor) -> Tensor:
    """The cross entropy of each target, (T,)."""
    wanted = targets != IGNORED
    return F.cross_entropy(logits[wanted].float(), targets[wanted], reduction="none")
