from functools import partial

import pytest
import torch

from vitlocal.compress.network import Point, QuantizedViT, everything, nothing
from vitlocal.compress.quantizer import quantize_weight
from vitlocal.models import ClippedSoftmax, Gated, VisionTransformer

KINDS = {
    "softmax": {},
    "mean": {"global_pool": "avg"},
    "patch norm": {"patch_norm": True},
    "Lee": {"init": "lee", "pos_embed": "none"},
    "fixed positions": {"pos_embed": "sincos"},
    "clipped": {"attention": partial(ClippedSoftmax, gamma=-0.06, zeta=1.2)},
    "linear gate": {"attention": Gated},
    "MLP gate": {"attention": partial(Gated, gate="mlp", pi_init=0.25)},
    "all heads": {"attention": partial(Gated, gate="all_heads_linear")},
}


def make(**options):
    torch.manual_seed(0)
    sizes = {"img_size": (16, 12), "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}
    network = VisionTransformer(**sizes, **options)
    for parameter in network.parameters():  # far from the initial zeros, ones and uniform attention
        torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()


def images(count=6, seed=0):
    return torch.randn(count, 3, 16, 12, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def network(request):
    return make(**request.param)


@torch.no_grad()
def test_without_quantizers_it_is_the_network(network):
    quantized = QuantizedViT(network)
    quantized.choose(nothing)
    torch.testing.assert_close(quantized(images()), network(images()), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_in_8_bits_it_is_near_the_network(network):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    quantized = QuantizedViT(network)
    quantized.calibrate([images(seed=1), images(seed=2)])
    given, wanted = quantized(images()), network(images())
    off = ((given - wanted).norm() / wanted.norm()).item()
    assert 1e-4 < off < 0.3
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_every_tensor_of_the_paper_has_a_quantizer():
    quantized = QuantizedViT(make(patch_norm=True))
    quantized.calibrate([images()])
    in_block = [
        *("norm 1", "qkv", "scores", "attention weights", "context", "output projection"),
        *("residual sum 1", "norm 2", "GELU", "second MLP layer", "residual sum 2"),
    ]
    expected = [
        Point("patch embedding", tensor) for tensor in ("image", "projection", "norm", "residual sum")
    ]
    expected += [Point(f"block {number}", tensor) for number in range(2) for tensor in in_block]
    expected += [Point("head", "norm"), Point("head", "logits")]
    assert list(quantized.activations) == expected
    kinds = {point.kind for point in quantized.weights}
    assert kinds == {"matrices", "norm weights", "class token", "positions"}
    assert Point("block 0", "residual sum 2").kind == "residual sum"


def test_all_parameters_but_biases_and_gates_are_rounded():
    network = make(attention=Gated)
    rounded = dict(QuantizedViT(network).network.named_parameters())
    for name, parameter in network.named_parameters():
        if name.endswith("bias") or ".gate." in name:
            assert torch.equal(rounded[name], parameter), name
        else:
            assert torch.equal(rounded[name], quantize_weight(parameter)[0]), name


@torch.no_grad()
def test_one_point_alone():
    """Only the head's matrix in 8 bits is the network with that matrix rounded."""
    network = make()
    quantized = QuantizedViT(network)
    quantized.calibrate([images()])
    quantized.choose(lambda point: point == Point("head", "matrices"))
    given = quantized(images())
    network.head.weight.copy_(quantize_weight(network.head.weight)[0])
    torch.testing.assert_close(given, network(images()), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_ranges_by_hand():
    """Of the image, which nothing comes before: an average of two batches."""
    quantized = QuantizedViT(make())
    first, second = images(seed=1), images(seed=2)
    quantized.calibrate([first, second])
    image = quantized.activations[Point("patch embedding", "image")]
    assert image.low.item() == pytest.approx((0.9 * first.min() + 0.1 * second.min()).item())
    assert image.high.item() == pytest.approx((0.9 * first.max() + 0.1 * second.max()).item())
    weights = quantized.activations[Point("block 0", "attention weights")]
    assert weights.low >= 0 and weights.high <= 1
    assert quantized._chosen is everything


@torch.no_grad()
def test_clipped_weights_keep_their_zeros():
    """On the grid of clipped weights 0 is exact, so that what is cut stays cut."""
    quantized = QuantizedViT(make(attention=partial(ClippedSoftmax, gamma=-0.1)))
    quantized.calibrate([images()])
    quantizer = quantized.activations[Point("block 0", "attention weights")]
    assert quantizer.low == 0 and quantizer(torch.zeros(3)).tolist() == [0, 0, 0]
