"""The ViT against timm's, and its attention against the definition."""

import math
from functools import partial

import pytest
import timm
import torch
from torch import nn

from vitlocal.errors import InputError
from vitlocal.models import Softmax, VisionTransformer, attention_weights

SHAPES = {
    "default": {},
    "tiny-imagenet": {"img_size": (64, 64), "patch_size": 8, "num_classes": 200},
    "grey, mean pooling": {"in_chans": 1, "global_pool": "avg", "embed_dim": 96, "depth": 3, "num_heads": 6},
    "non-square grid": {"img_size": (24, 40), "embed_dim": 64, "depth": 2, "num_heads": 4, "mlp_ratio": 4.0},
    "patch 1, one head": {"img_size": (5, 3), "patch_size": 1, "embed_dim": 16, "depth": 2, "num_heads": 1},
    "patch norm": {"embed_dim": 48, "depth": 2, "num_heads": 4, "patch_norm": True},
}


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def pair(request):
    """A vitlocal ViT with the weights of a timm ViT of the same shape, and that timm ViT."""
    shape = {
        "img_size": (32, 32),
        "in_chans": 3,
        "patch_size": 4,
        "embed_dim": 192,
        "depth": 9,
        "num_heads": 12,
    }
    shape |= {"mlp_ratio": 2.0, "num_classes": 10, "global_pool": "token"} | request.param
    torch.manual_seed(0)
    reference = timm.models.VisionTransformer(
        img_size=shape["img_size"],
        in_chans=shape["in_chans"],
        patch_size=shape["patch_size"],
        embed_dim=shape["embed_dim"],
        depth=shape["depth"],
        num_heads=shape["num_heads"],
        mlp_ratio=shape["mlp_ratio"],
        num_classes=shape["num_classes"],
        class_token=shape["global_pool"] == "token",
        global_pool="token" if shape["global_pool"] == "token" else "avg",
        embed_norm_layer=partial(nn.LayerNorm, eps=1e-6) if shape.get("patch_norm") else None,
    ).eval()
    for parameter in reference.parameters():  # biases and class token are zero at first: give them a say
        nn.init.normal_(parameter, std=0.1)
    network = VisionTransformer(**shape).eval()
    network.load_state_dict(reference.state_dict())
    images = torch.randn(3, shape["in_chans"], *shape["img_size"])
    return network, reference, images


@torch.no_grad()
def test_timm_weights_give_timm_outputs(pair):
    network, reference, images = pair
    expected = reference(images)
    assert expected.std() > 0.01
    torch.testing.assert_close(network(images), expected, rtol=1e-5, atol=1e-5)


def test_gradients_are_timms(pair):
    network, reference, images = pair
    for model in (network, reference):
        nn.functional.cross_entropy(model(images), torch.tensor([0, 1, 2])).backward()
    expected = dict(reference.named_parameters())
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-4, atol=1e-5)


def test_initialisation_is_timms():
    torch.manual_seed(0)
    network = VisionTransformer(img_size=32)
    reference = timm.models.VisionTransformer(
        img_size=32, patch_size=4, embed_dim=192, depth=9, num_heads=12, mlp_ratio=2, num_classes=10
    )
    expected = dict(reference.named_parameters())
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.std(), expected[name].std(), rtol=0.15, atol=1e-4)


@torch.no_grad()
def test_probabilities_are_what_forward_applies():
    torch.manual_seed(0)
    attention = Softmax(dim=24, num_heads=3)
    x = torch.randn(2, 7, 24)
    weights = attention_weights(attention, x)
    assert weights.shape == (2, 3, 7, 7) and weights.dtype == torch.float32
    value = attention.qkv(x)[..., 48:].view(2, 7, 3, 8).transpose(1, 2)
    mixed = (weights @ value).transpose(1, 2).reshape(2, 7, 24)
    torch.testing.assert_close(attention.proj(mixed), attention(x))


@torch.no_grad()
def test_probabilities_against_a_slow_loop():
    torch.manual_seed(0)
    attention = Softmax(dim=8, num_heads=2)
    x = torch.randn(1, 5, 8)
    weights = attention_weights(attention, x)[0]
    query, key, _ = attention.qkv(x)[0].split(8, dim=-1)
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        for i in range(5):
            scores = torch.stack([query[i, part] @ key[j, part] / 2 for j in range(5)])
            torch.testing.assert_close(weights[head, i], scores.exp() / scores.exp().sum())


def test_probabilities_are_float32_under_autocast():
    attention = Softmax(dim=24, num_heads=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weights = attention_weights(attention, torch.randn(2, 7, 24))
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 7))


def test_stochastic_depth_drops_whole_branches_in_training_only():
    torch.manual_seed(0)
    network = VisionTransformer(embed_dim=24, depth=4, num_heads=2, drop_path_rate=0.9)
    images = torch.randn(8, 3, 32, 32)
    rates = [getattr(block.drop_path, "p", 0.0) for block in network.blocks]
    assert rates == pytest.approx([0.0, 0.3, 0.6, 0.9])
    assert not torch.equal(network(images), network(images))
    network.eval()
    assert torch.equal(network(images), network(images))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"img_size": (32, 30)}, "32x30: both sides must be multiples"),
        ({"embed_dim": 100, "num_heads": 12}, "embed_dim is 100 and num_heads is 12"),
        ({"depth": 0}, "depth is 0"),
        ({"drop_rate": 1.0}, "drop_rate is 1.0"),
        ({"drop_path_rate": -0.1}, "drop_path_rate is -0.1"),
        ({"mlp_ratio": 0.0}, "mlp_ratio is 0.0"),
    ],
)
def test_wrong_shapes_are_named(wrong, sentence):
    with pytest.raises(InputError, match=sentence):
        VisionTransformer(**wrong)


def test_lees_initialisation_has_their_deviations():
    torch.manual_seed(0)
    network = VisionTransformer(embed_dim=192, depth=2, num_heads=12, init="lee")
    width, hidden, pixels = 192, 384, 3 * 4 * 4

    def xavier(inputs, outputs):
        return (2 / (inputs + outputs)) ** 0.5

    expected = {
        "pos_embed": 1.0,
        "cls_token": 1.0,
        "patch_embed.proj.weight": xavier(pixels, width),
        "blocks.0.attn.qkv.weight": xavier(width, 3 * width),
        "blocks.0.attn.proj.weight": xavier(width, width),
        "blocks.1.mlp.fc1.weight": xavier(width, hidden),
        "blocks.1.mlp.fc2.weight": xavier(hidden, width),
        "head.weight": xavier(width, 10),
    }
    for name, deviation in expected.items():
        values = network.get_parameter(name)
        # Of n normal numbers the sample deviation has a relative error of 1 / sqrt(2 n): five of them.
        assert values.std().item() == pytest.approx(deviation, rel=5 / (2 * values.numel()) ** 0.5), name
    assert all(block.attn.qkv.bias is None for block in network.blocks)
    biases = [p for name, p in network.named_parameters() if name.endswith("bias")]
    assert all(bias.eq(0).all() for bias in biases)
    # Positions are about 70 % of the first layer's input energy on normalised images.
    patches = network.patch_embed(torch.randn(64, 3, 32, 32))
    assert 0.5 < 1 / (1 + patches.pow(2).mean().item()) < 0.8


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_sincos_positions_are_the_waves_of_row_and_column(pool):
    network = VisionTransformer(
        img_size=(8, 12), embed_dim=24, depth=1, num_heads=2, global_pool=pool, pos_embed="sincos"
    )
    prefix = network.geometry.num_prefix_tokens
    assert "pos_embed" not in network.state_dict()
    positions = network.pos_embed[0]
    assert positions[:prefix].eq(0).all() and len(positions) == prefix + 6
    for row in range(2):
        for column in range(3):
            expected = []
            for place in (column, row):
                angles = [place / 10000 ** (i / 6) for i in range(6)]
                expected += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            torch.testing.assert_close(positions[prefix + 3 * row + column], torch.tensor(expected))


def test_without_positions_patches_can_change_places():
    torch.manual_seed(0)
    network = VisionTransformer(
        embed_dim=24, depth=2, num_heads=2, global_pool="avg", pos_embed="none"
    ).eval()
    images = torch.randn(2, 3, 32, 32)
    moved = images.roll(8, dims=2)  # by whole patches
    torch.testing.assert_close(network(moved), network(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"init": "he"}, "init is 'he': it must be one of timm, lee"),
        ({"pos_embed": "rotary"}, "pos_embed is 'rotary'"),
        ({"pos_embed": "sincos", "embed_dim": 18, "num_heads": 2}, "must be a multiple of 4"),
    ],
)
def test_wrong_options_are_refused(given, sentence):
    with pytest.raises(InputError, match=sentence):
        VisionTransformer(depth=1, **given)
