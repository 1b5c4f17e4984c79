"""A Vision Transformer with an 8-bit quantizer at every weight and activation.

Its forward is the network's own, with hooks on layers and a tap inside attention, whose explicit forward
shows the scores that no hook reaches. Tests hold the two together: without quantizers both give the same
logits.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vitlocal.compress.quantizer import ActivationQuantizer, quantize_weight
from vitlocal.models import VisionTransformer


class Point(NamedTuple):
    """A place of a quantizer.

    Attributes:
        layer: such as ``block 0``.
        tensor: such as ``scores``; with a number at its end where a layer has two of a kind.
    """

    layer: str
    tensor: str

    @property
    def kind(self) -> str:
        """The tensor without its number."""
        return self.tensor.rstrip(" 12")


def everything(point: Point) -> bool:
    """Choose every point."""
    return True


def nothing(point: Point) -> bool:
    """Choose no point."""
    return False


OUTPUTS = {
    "patch_embed.proj": "projection",
    "patch_embed.norm": "norm",
    "pos_drop": "residual sum",
    "norm1": "norm 1",
    "attn.proj": "output projection",
    "sum1": "residual sum 1",
    "norm2": "norm 2",
    "mlp.act": "GELU",
    "mlp.fc2": "second MLP layer",
    "sum2": "residual sum 2",
    "norm": "norm",
    "fc_norm": "norm",
    "head": "logits",
}
"""What the outputs of the network's and its blocks' layers are called."""

STEPS = {"qkv": "qkv", "scores": "scores", "weights": "attention weights", "context": "context"}
"""What the steps of attention are called; others are not quantized."""


class QuantizedViT(nn.Module):
    """Simulated W8A8 of a trained network, per tensor and static (arXiv 2306.12929, appendix C.4).

    Quantized are all matrices, the norms' weights, the class token and the positions; and the normalised
    image, the patch embedding, the sums of the residual stream, norms, qkv, scaled scores, attention weights,
    context (once gated, where there is a gate), output projection, GELU, second MLP layer and logits. Biases
    and gate networks are not, nor is what GELU reads: as in the authors' code, it is one layer with the
    matrix before it.

    Args:
        network: is copied, to the device where it is.

    Attributes:
        activations: the quantizers of activations, in the order in which a forward comes by.
        weights: the points of weights.
    """

    def __init__(self, network: VisionTransformer) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.activations: dict[Point, ActivationQuantizer] = {}
        self.weights: dict[Point, None] = {}  # a set that keeps its order
        self._values: list[tuple[Point, Tensor, Tensor, Tensor]] = []  # the tensor, as it was, rounded
        for point, tensor in _weights(self.network):
            self.weights[point] = None
            self._values.append((point, tensor, tensor.clone(), quantize_weight(tensor)[0]))
        self._put_hooks()
        self._observing = False
        self.choose(everything)

    def choose(self, chosen: Callable[[Point], bool]) -> None:
        """Quantize at these points, and nowhere else; at first it is at all."""
        self._chosen = chosen
        for point, tensor, plain, rounded in self._values:
            tensor.copy_(rounded if chosen(point) else plain)

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Tensor]) -> None:
        """Set every range anew from normalised images (B, C, H, W), a batch at a time.

        Meanwhile every tensor is quantized already, by its range so far, as in the authors' code.

        Raises:
            InputError: an activation is not finite.
        """
        self.activations.clear()
        before, self._observing = self._chosen, True
        self.choose(everything)
        try:
            for images in batches:
                self(images)
        finally:
            self._observing = False
            self.choose(before)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, C, H, W) to logits (B, K)."""
        return self.network(images)

    def _put_hooks(self) -> None:
        network = self.network
        network.register_forward_pre_hook(self._input(Point("patch embedding", "image")))
        if network.cls_token is None:
            network.fc_norm.register_forward_pre_hook(self._input(Point("head", "mean")))
        for layer, name, module in _layers(network):
            if name in OUTPUTS and not isinstance(module, nn.Identity):
                module.register_forward_hook(self._output(Point(layer, OUTPUTS[name])))
            elif name == "attn":
                module.forward = self._explicit(module, layer)

    def _input(self, point: Point) -> Callable[[nn.Module, tuple[Tensor, ...]], Tensor]:
        return lambda module, inputs: self._activation(point, inputs[0])

    def _output(self, point: Point) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        return lambda module, inputs, output: self._activation(point, output)

    def _explicit(self, attention: Any, layer: str) -> Callable[[Tensor], Tensor]:
        def tap(name: str, tensor: Tensor) -> Tensor | None:
            return self._activation(Point(layer, STEPS[name]), tensor) if name in STEPS else None

        return lambda x: attention.explicit(x, tap)

    def _activation(self, point: Point, x: Tensor) -> Tensor:
        if self._observing:
            self.activations.setdefault(point, ActivationQuantizer()).observe(x)
        return self.activations[point](x) if self._chosen(point) else x


def _layers(network: VisionTransformer) -> Iterator[tuple[str, str, Any]]:
    """All modules in the order of a forward: their layer's name, their own within the network or block."""
    for name, module in network.named_modules():
        if name.startswith("blocks."):
            _, number, *inner = name.split(".")
            yield f"block {number}", ".".join(inner), module
        elif name:
            early = name.startswith("patch_embed") or name == "pos_drop"
            yield "patch embedding" if early else "head", name, module


def _weights(network: VisionTransformer) -> Iterator[tuple[Point, Tensor]]:
    """What is rounded once: of layers of which each weight is used as it is."""
    for layer, name, module in _layers(network):
        if name == "pos_drop":
            for of_positions, kind in (("cls_token", "class token"), ("pos_embed", "positions")):
                if (tensor := getattr(network, of_positions)) is not None:
                    yield Point(layer, kind), tensor
        elif isinstance(module, nn.Linear | nn.Conv2d):
            yield Point(layer, "matrices"), module.weight
        elif isinstance(module, nn.LayerNorm):
            yield Point(layer, "norm weights"), module.weight
