"""A run that learns from another network beside its labels, as a pruned one does from the dense one."""

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vitlocal.errors import InputError
from vitlocal.runs.run import open_run


class Distillation(Callback):
    """Adds to the loss of each training batch how far the network is from a teacher on the same images.

    Of the logits, the Kullback-Leibler divergence at a temperature, times its square (Hinton et al. 2015); of
    the tokens after each layer, the L2 distance, mean over tokens and layers, layers of one number side by
    side, as in the code of SparseFinetuning (IST-DASLab). Both weights are 1 for want of published ones.

    Args:
        teacher: a run's folder, for its best checkpoint, or a checkpoint; of the same depth and width.
        logit_weight: of the divergence; 0 leaves it out.
        token_weight: of the distance; 0 leaves it out.
        temperature: that logits are divided by.

    Raises:
        InputError: a value is out of its range, there is no such checkpoint, or, when training starts, it is
            of another depth or width, or for other classes, or images have several labels.
    """

    def __init__(
        self, teacher: str, logit_weight: float = 1.0, token_weight: float = 1.0, temperature: float = 2.0
    ) -> None:
        for name, value in (("logit_weight", logit_weight), ("token_weight", token_weight)):
            if not 0 <= value < math.inf:
                raise InputError(f"distillation.{name} is {value}: it must be a number of 0 or more")
        if not 0 < temperature < math.inf:
            raise InputError(f"distillation.temperature is {temperature}: it must be a number above 0")
        self.logit_weight, self.token_weight, self.temperature = logit_weight, token_weight, temperature
        self._run = open_run(Path(teacher))
        self._teacher: Any = None
        self._tokens: dict[str, list[Tensor]] = {"teacher": [], "student": []}
        self._hooks: list[RemovableHandle] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load the teacher, and have the module ask for what is added."""
        module: Any = pl_module
        if not hasattr(module, "loss_terms"):
            raise InputError(
                f"{type(module).__name__} can't be distilled into: its training_step must add its loss_terms"
            )
        if module.hparams.get("multilabel") and self.logit_weight:
            raise InputError(
                "distillation compares logits as those of one label an image, and the data set has several: "
                "give distillation.logit_weight=0"
            )
        teacher: Any = self._run.load_module().to(pl_module.device).eval().requires_grad_(False)
        own, others = self._shape(module), self._shape(teacher)
        if own != others:
            raise InputError(
                f"the teacher {self._run.checkpoint} has {others[0]} layers of {others[1]} features and "
                f"{others[2]} classes but the network has {own[0]}, {own[1]} and {own[2]}: give another"
            )
        self._teacher = teacher.network
        if self.token_weight:
            for name, network in (("teacher", self._teacher), ("student", module.network)):
                for block in network.blocks:
                    self._hooks.append(block.register_forward_hook(self._keeper(name)))
        module.loss_terms.append(self.term)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave no hooks behind."""
        module: Any = pl_module
        if self.term in module.loss_terms:
            module.loss_terms.remove(self.term)
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._teacher = None

    def term(self, images: Tensor, logits: Tensor) -> Tensor:
        """What is added to the loss of a batch.

        Args:
            images: normalised, (B, C, H, W), on which the network has just run.
            logits: its own, (B, K).
        """
        with torch.no_grad():
            wanted = self._teacher(images)
        loss = logits.new_zeros((), dtype=torch.float32)
        if self.logit_weight:
            loss = loss + self.logit_weight * divergence(logits, wanted, self.temperature)
        if self.token_weight:
            loss = loss + self.token_weight * distance(self._tokens["student"], self._tokens["teacher"])
            for kept in self._tokens.values():
                kept.clear()
        return loss

    def _keeper(self, name: str) -> Any:
        def keep(block: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if name == "teacher" or block.training:
                self._tokens[name].append(output)

        return keep

    @staticmethod
    def _shape(module: Any) -> tuple[int, int, int]:
        network = module.network
        if not isinstance(getattr(network, "blocks", None), nn.Sequential):
            raise InputError(
                f"a {type(network).__name__} is no teacher nor pupil: give a VisionTransformer of vitlocal"
            )
        return len(network.blocks), network.head.in_features, network.head.out_features


def divergence(logits: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """KL divergence of the classes' probabilities from the wanted ones at a temperature, times its square.

    Args:
        logits: (B, K).
        wanted: those of the teacher, the same.
        temperature: that both are divided by.

    Returns:
        (), mean over the images.

    >>> divergence(torch.tensor([[1.0, 2.0]]), torch.tensor([[4.0, 5.0]]), 2.0).item()
    0.0
    """
    own, other = ((x.float() / temperature).log_softmax(-1) for x in (logits, wanted))
    return temperature**2 * F.kl_div(own, other, reduction="batchmean", log_target=True)


def distance(own: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """L2 distance of tokens, mean over images, tokens and layers.

    Args:
        own: for each layer, (B, N, D).
        wanted: those of the teacher, the same.

    >>> distance([torch.zeros(1, 2, 2)], [torch.tensor([[[3.0, 4.0], [0.0, 1.0]]])]).item()
    3.0
    """
    layers = [
        torch.linalg.vector_norm(one.float() - other.float(), dim=-1).mean()
        for one, other in zip(own, wanted, strict=True)
    ]
    return torch.stack(layers).mean()
