"""vitlocal's Vision Transformer with an 8-bit quantizer at every weight and activation.

The network's forward is written out here once more, step by step, since inside attention no hook reaches the
scores. Tests hold the two together: without quantizers both give the same logits.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlocal.compress.quantizer import ActivationQuantizer, quantize_weight
from vitlocal.models import ClippedSoftmaxAttention, GatedAttention, VisionTransformer


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


class QuantizedViT(nn.Module):
    """Simulated W8A8 of a trained network, per tensor and static (arXiv 2306.12929, appendix C.4).

    Quantized are all matrices, the norms' weights, the class token and the positions; and the normalised
    image, the patch embedding, the sums of the residual stream, norms, qkv, scaled scores, attention weights,
    context (once gated, where there is a gate), output projection, GELU, second MLP layer and logits. Biases
    and gate networks are not, nor is what GELU reads: as in the authors' code, it is one layer with the
    matrix before it.

    Args:
        network: is read only. Its weights must not change afterwards.

    Attributes:
        chosen: whether a point is quantized; at first, :func:`everything`.
        activations: the quantizers of activations, in the order in which a forward comes by.
        weights: the points of weights.
    """

    def __init__(self, network: VisionTransformer) -> None:
        super().__init__()
        self.network = network.eval()
        self.chosen: Callable[[Point], bool] = everything
        self.activations: dict[Point, ActivationQuantizer] = {}
        self.weights: dict[Point, None] = {}  # a set that keeps its order
        self._rounded: dict[Tensor, Tensor] = {}
        self._observing = False

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Tensor]) -> None:
        """Set every range anew from normalised images (B, C, H, W), a batch at a time.

        Meanwhile every tensor is quantized already, by its range so far, as in the authors' code.

        Raises:
            InputError: an activation is not finite.
        """
        self.activations.clear()
        before, self.chosen, self._observing = self.chosen, everything, True
        try:
            for images in batches:
                self(images)
        finally:
            self.chosen, self._observing = before, False

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, C, H, W) to logits (B, K)."""
        network, layer = self.network, "patch embedding"
        images = self._activation(layer, "image", images)
        x = self._activation(layer, "projection", self._patches(layer, images))
        x = self._norm(layer, "norm", network.patch_embed.norm, x)
        if network.cls_token is not None:
            token = self._weight(layer, "class token", network.cls_token)
            x = torch.cat([token.expand(x.shape[0], -1, -1), x], dim=1)
        if network.pos_embed is not None:
            x = x + self._weight(layer, "positions", network.pos_embed)
        x = self._activation(layer, "residual sum", x)
        for number, block in enumerate(network.blocks):
            x = self._block(f"block {number}", block, x)
        layer = "head"
        x = self._norm(layer, "norm", network.norm, x)
        x = x[:, 0] if network.cls_token is not None else self._activation(layer, "mean", x.mean(dim=1))
        x = self._norm(layer, "norm", network.fc_norm, x)
        return self._activation(layer, "logits", self._linear(layer, network.head, x))

    def _patches(self, layer: str, images: Tensor) -> Tensor:
        cut = self.network.patch_embed.proj
        weight = self._weight(layer, "matrices", cut.weight)
        return F.conv2d(images, weight, cut.bias, cut.stride).flatten(2).transpose(1, 2)

    def _block(self, layer: str, block: Any, x: Tensor) -> Tensor:
        x = x + self._attention(layer, block.attn, self._norm(layer, "norm 1", block.norm1, x))
        x = self._activation(layer, "residual sum 1", x)
        hidden = self._linear(layer, block.mlp.fc1, self._norm(layer, "norm 2", block.norm2, x))
        hidden = self._activation(layer, "GELU", block.mlp.act(hidden))
        x = x + self._activation(layer, "second MLP layer", self._linear(layer, block.mlp.fc2, hidden))
        return self._activation(layer, "residual sum 2", x)

    def _attention(self, layer: str, attention: Any, x: Tensor) -> Tensor:
        qkv = self._activation(layer, "qkv", self._linear(layer, attention.qkv, x))
        query, key, value = qkv.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        scores = self._activation(layer, "scores", scores)
        weights = scores.softmax(dim=-1)
        if isinstance(attention, ClippedSoftmaxAttention):
            gamma, zeta = attention.gamma, attention.zeta
            weights = ((zeta - gamma) * weights + gamma).clamp(0, 1)
        context = self._activation(layer, "attention weights", weights) @ value
        if isinstance(attention, GatedAttention):
            context = context * attention.gates(x)[..., None]
        context = self._activation(layer, "context", context.transpose(1, 2).flatten(2))
        return self._activation(layer, "output projection", self._linear(layer, attention.proj, context))

    def _linear(self, layer: str, linear: nn.Linear, x: Tensor) -> Tensor:
        return F.linear(x, self._weight(layer, "matrices", linear.weight), linear.bias)

    def _norm(self, layer: str, tensor: str, norm: nn.Module, x: Tensor) -> Tensor:
        if not isinstance(norm, nn.LayerNorm):
            return x  # an identity
        weight = self._weight(layer, "norm weights", norm.weight)
        x = F.layer_norm(x, norm.normalized_shape, weight, norm.bias, norm.eps)
        return self._activation(layer, tensor, x)

    def _activation(self, layer: str, tensor: str, x: Tensor) -> Tensor:
        point = Point(layer, tensor)
        if self._observing:
            self.activations.setdefault(point, ActivationQuantizer()).observe(x)
        return self.activations[point](x) if self.chosen(point) else x

    def _weight(self, layer: str, tensor: str, weight: Tensor) -> Tensor:
        point = Point(layer, tensor)
        self.weights[point] = None
        if not self.chosen(point):
            return weight
        if weight not in self._rounded:
            self._rounded[weight] = quantize_weight(weight)[0]
        return self._rounded[weight]
