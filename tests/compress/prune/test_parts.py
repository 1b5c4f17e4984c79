"""What comes into the parts of a network, and networks with less of them, by slow ways."""

from functools import partial

import pytest
import torch

from vitlocal.compress.prune import rivals
from vitlocal.compress.prune.obs import surgeon
from vitlocal.compress.prune.parts import (
    Part,
    check,
    collect,
    last_layer,
    levels_of,
    shape_of,
    size_of,
    stitch,
)
from vitlocal.errors import InputError
from vitlocal.models import Gated, Softmax, Subtree, VisionTransformer

HIDDEN = 48


@pytest.fixture(params=[Softmax, partial(Gated, gate="mlp")], ids=["softmax", "gated"])
def network(request):
    torch.manual_seed(0)
    made = VisionTransformer(
        img_size=8, embed_dim=24, depth=2, num_heads=4, num_classes=3, attention=request.param
    ).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def images(count=12):
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def swept(network, batches):
    levels = levels_of(network, HIDDEN)
    inputs = collect(network, levels, batches)
    sweeps = {
        part: surgeon(
            last_layer(network, part).weight.detach(), inputs[part].gram, size_of(network, part), counts
        )
        for part, counts in levels.items()
    }
    return levels, inputs, sweeps


@torch.no_grad()
def seen_by(network, part, batch):
    """Inputs (N, C) and outputs (N, D) of the last layer of a part in a whole forward, in float64."""
    seen = []
    hook = last_layer(network, part).register_forward_hook(
        lambda layer, inputs, output: seen.append((inputs[0].flatten(0, 1), output.flatten(0, 1)))
    )
    network(batch)
    hook.remove()
    return [x.double() for x in seen[0]]


@torch.no_grad()
def test_inputs_are_those_of_a_forward(network):
    batch = images()
    levels, inputs, _ = swept(network, batch.split(5))
    assert list(levels) == [Part(0, "attention"), Part(0, "mlp"), Part(1, "attention"), Part(1, "mlp")]
    for part, of in inputs.items():
        x, output = seen_by(network, part, batch)
        assert of.count == len(x)
        torch.testing.assert_close(of.gram, torch.einsum("ni,nj->ij", x, x), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(of.total, x.sum(0), rtol=1e-4, atol=1e-4)
        assert of.energy(last_layer(network, part)) == pytest.approx(float(output.square().sum()), rel=1e-4)


def test_levels_are_the_papers(network):
    levels = levels_of(network, HIDDEN)
    assert levels[Part(1, "attention")] == [4, 3, 2, 1, 0]
    assert levels[Part(0, "mlp")][:5] == [48, 43, 39, 35, 31] and levels[Part(0, "mlp")][-2:] == [1, 0]
    wide = VisionTransformer(img_size=8, embed_dim=768, depth=1, num_heads=12, mlp_ratio=4.0)
    found = levels_of(wide, 3072)[Part(0, "mlp")]
    assert found[:3] == [3072, 2765, 2488] and found == sorted(set(found), reverse=True)
    assert len(found) == 44 + 1  # none of the powers of 0.9 falls on another


@torch.no_grad()
def test_a_part_alone_changes_its_output_by_the_error_of_its_level(network):
    batch = images()
    _, _, sweeps = swept(network, [batch])
    whole = _everything(network)
    for part, count in ((Part(0, "attention"), 2), (Part(1, "mlp"), 21)):
        made = stitch(network, sweeps, whole | {part: count})
        _, before = seen_by(network, part, batch)
        _, after = seen_by(made, part, batch)
        error = float((after - before).square().sum())
        assert error > 0.1 and sweeps[part].levels[count].error == pytest.approx(error, rel=1e-3)


def _everything(network):
    return {part: counts[0] for part, counts in levels_of(network, HIDDEN).items()}


@torch.no_grad()
def test_stitched_it_is_the_whole_network_with_the_fitted_weights(network):
    batch = images()
    _, _, sweeps = swept(network, [batch])
    choice = {Part(0, "attention"): 3, Part(0, "mlp"): 0, Part(1, "attention"): 1, Part(1, "mlp"): 7}
    made = stitch(network, sweeps, choice)
    expected = stitch(network, sweeps, _everything(network))
    torch.testing.assert_close(expected(batch), network(batch), rtol=1e-4, atol=1e-4)
    for part, count in choice.items():
        layer, size = last_layer(expected, part), size_of(expected, part)
        weight = torch.zeros_like(layer.weight).unflatten(1, (-1, size))
        level = sweeps[part].levels[count]
        weight[:, list(level.kept)] = level.weight.float().unflatten(1, (-1, size))
        layer.weight.copy_(weight.flatten(1))
        if not count:
            layer.bias.zero_()
    torch.testing.assert_close(made(batch), expected(batch), rtol=1e-4, atol=1e-4)
    shape = shape_of(made)
    assert shape["mlp_hidden"] == [0, 7] and [len(heads) for heads in shape["kept_heads"]] == [3, 1]
    again = stitch(made, swept(made, [batch])[2], _everything(made))
    torch.testing.assert_close(again(batch), made(batch), rtol=1e-4, atol=1e-4)
    assert shape_of(again) == shape


def test_only_our_networks_are_pruned(network):
    assert check(network, "x") is network
    with pytest.raises(InputError, match="x is a Linear: only vitlocal's VisionTransformer and"):
        check(torch.nn.Linear(1, 1), "x")
    network.blocks[1].attn = torch.nn.Identity()
    with pytest.raises(InputError, match="attention of layer 1 of x is a Identity without an explicit form"):
        check(network, "x")


def test_subtree_attention_keeps_its_heads():
    network = VisionTransformer(img_size=8, embed_dim=16, depth=1, num_heads=2, attention=Subtree)
    with pytest.raises(InputError, match="heads can't be cut out of Subtree, whose other heads would get"):
        check(network, "x")


@torch.no_grad()
def test_importances_by_hand(network):
    _, inputs, _ = swept(network, [images()])
    attn, mlp = network.blocks[1].attn, network.blocks[1].mlp
    x, _ = seen_by(network, Part(1, "mlp"), images())
    found = rivals.magnitude(network, Part(1, "attention"), inputs[Part(1, "attention")])
    rows = [part * 24 + 6 * 2 + feature for part in range(3) for feature in range(6)]
    expected = attn.qkv.weight[rows].square().sum() + attn.proj.weight[:, 12:18].square().sum()
    assert len(found) == 4 and float(found[2]) == pytest.approx(float(expected))
    found = rivals.magnitude(network, Part(1, "mlp"), inputs[Part(1, "mlp")])
    expected = mlp.fc1.weight[5].square().sum() + mlp.fc2.weight[:, 5].square().sum()
    assert len(found) == 48 and float(found[5]) == pytest.approx(float(expected))
    found = rivals.diagonal(network, Part(1, "mlp"), inputs[Part(1, "mlp")])
    expected = (x[:, 5, None] * mlp.fc2.weight[:, 5].double()).square().sum()
    assert float(found[5]) == pytest.approx(float(expected), rel=1e-4)
    drawn = [rivals.random(seed)(network, Part(0, "mlp"), inputs[Part(0, "mlp")]) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_the_same_share_is_the_largest_that_fits():
    levels = {Part(0, "attention"): [4, 3, 2, 1, 0], Part(0, "mlp"): [10, 7, 5, 0]}
    times = {Part(0, "attention"): [4.0, 3.0, 2.0, 1.0, 0.0], Part(0, "mlp"): [10.0, 7.0, 5.0, 0.0]}
    assert rivals.uniform(levels, times, 14) == (0, 0)
    assert rivals.uniform(levels, times, 10) == (1, 1)  # three of four, seven of ten
    assert rivals.uniform(levels, times, 9) == (2, 1)  # 74.9 % are two heads and seven features
    assert rivals.uniform(levels, times, 8) == (2, 2)  # 69.9 % are two heads and five
    assert rivals.uniform(levels, times, 0) == (4, 3)
