"""Networks whose layers differ, against the whole network with what they lack set to 0."""

from functools import partial

import pytest
import torch

from vitlocal.errors import InputError
from vitlocal.models import ClippedSoftmax, Gated, Softmax, VisionTransformer
from vitlocal.models.pruning import prune

SIZES = {"img_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 4, "num_classes": 3}
HEADS = [[0, 1, 2, 3], [1, 3], [], [2]]
HIDDEN = [[0, 7, 31], list(range(48)), [4, 5], []]
KINDS = {
    "softmax": Softmax,
    "clipped": partial(ClippedSoftmax, alpha=1.0),
    "linear gate": Gated,
    "MLP gate": partial(Gated, gate="mlp"),
    "all heads' gate": partial(Gated, gate="all_heads_linear"),
}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def kind(request):
    return request.param


def made(kind, **options):
    torch.manual_seed(0)
    network = VisionTransformer(**SIZES, attention=kind, **options).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


def images():
    return torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def silenced(network):
    """The whole network, in which what is to go says nothing."""
    for block, heads, hidden in zip(network.blocks, HEADS, HIDDEN, strict=True):
        gone = [head for head in range(4) if head not in heads]
        columns = [6 * head + feature for head in gone for feature in range(6)]
        block.attn.proj.weight.data[:, columns] = 0
        block.mlp.fc2.weight.data[:, [place for place in range(48) if place not in hidden]] = 0
        if not heads:
            block.attn.proj.bias.data[:] = 0
        if not hidden:
            block.mlp.fc2.bias.data[:] = 0
    return network


@torch.no_grad()
def test_what_is_cut_out_is_what_said_nothing(kind):
    network = made(kind)
    expected = silenced(made(kind))(images())
    whole = network(images())
    prune(network.blocks, HEADS, HIDDEN)
    torch.testing.assert_close(network(images()), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(expected, whole, atol=0.1)
    assert [block.attn and block.attn.num_heads for block in network.blocks] == [4, 2, None, 1]
    assert network.blocks[1].attn.head_dim == 6 and network.blocks[1].attn.head_numbers == (1, 3)
    names = dict(network.named_parameters())
    assert names["blocks.3.attn.qkv.weight"].shape == (18, 24) and "blocks.2.norm1.weight" not in names
    assert names["blocks.0.mlp.fc1.bias"].shape == (3,) and "blocks.3.norm2.weight" not in names


@torch.no_grad()
def test_step_by_step_it_is_the_forward(kind):
    network = made(kind, kept_heads=HEADS)
    x = torch.randn(2, 5, 24)
    for block in network.blocks:
        if block.attn is not None:
            output = block.attn.explicit(x, lambda name, tensor: None)
            torch.testing.assert_close(output, block.attn(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_its_settings_make_it_again(kind):
    network = made(kind)
    prune(network.blocks, HEADS, HIDDEN)
    again = made(kind, kept_heads=HEADS, mlp_hidden=[len(hidden) for hidden in HIDDEN])
    again.load_state_dict(network.state_dict())
    assert torch.equal(again(images()), network(images()))
    assert [block.attn.head_numbers for block in again.blocks if block.attn] == [(0, 1, 2, 3), (1, 3), (2,)]
    assert [block.attn.layer_number for block in again.blocks if block.attn] == [0, 1, 3]


def test_a_pruned_network_is_pruned_further(kind):
    once, twice = made(kind), made(kind)
    prune(once.blocks, [[1], [3], [], []], HIDDEN)
    prune(twice.blocks, HEADS, None)
    prune(twice.blocks, [[1], [3], [], []], HIDDEN)
    with torch.no_grad():
        assert torch.equal(once(images()), twice(images()))


def test_nothing_is_left_and_it_still_has_logits():
    network = made(Softmax, kept_heads=[[]] * 4, mlp_hidden=[0] * 4)
    logits = network(images())
    logits.sum().backward()
    assert logits.shape == (5, 3) and not list(network.blocks.parameters())


def test_gradients_reach_every_parameter(kind):
    network = made(kind, kept_heads=HEADS, mlp_hidden=[3, 48, 2, 0]).train()
    network(images()).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"kept_heads": [[0]]}, "kept_heads has 1 entries and depth is 4: give one a layer"),
        ({"mlp_hidden": [48, 48, 48, 48, 1]}, "mlp_hidden has 5 entries and depth is 4"),
        (
            {"kept_heads": [[0], [4], [], []]},
            r"layer 1 is \[4\]: give different numbers from 0 to 3",
        ),
        ({"kept_heads": [[0], [1], [1, 1], []]}, r"kept_heads of layer 2 is \[1, 1\]"),
        ({"kept_heads": [[2, 0], [1], [], []]}, r"kept_heads of layer 0 is \[2, 0\]: .*ascending"),
        ({"mlp_hidden": [48, 49, 0, 0]}, "mlp_hidden of layer 1 is 49: it must be from 0 to 48"),
        ({"mlp_hidden": [48, -1, 0, 0]}, "mlp_hidden of layer 1 is -1"),
    ],
)
def test_what_the_whole_network_does_not_have_is_refused(wrong, sentence):
    with pytest.raises(InputError, match=sentence):
        VisionTransformer(**SIZES, **wrong)


def test_a_kind_without_the_usual_layers_is_refused():
    class Bare(Softmax):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            del self.qkv

    with pytest.raises(InputError, match="heads can't be cut out of Bare, which has no layers qkv and proj"):
        prune(VisionTransformer(**{**SIZES, "init": "lee"}, attention=Bare).blocks, HEADS, None)
