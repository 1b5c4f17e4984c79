import pytest
import timm
import torch
from timm.models.vision_transformer import Attention as TimmAttention
from torch import nn

from tests.heads.toy import HEADS, ToyModule, ToyNetwork, random_attention
from vitlocal.errors import InputError
from vitlocal.geometry import Grid
from vitlocal.heads import HeadStatistics, find_attention, find_network, head_statistics, observe
from vitlocal.models import VisionTransformer


def images(count):
    return torch.rand(count, 1, 8, 6, generator=torch.Generator().manual_seed(1))


def test_finds_network_and_attention_in_order():
    module = ToyModule()
    assert find_network(module) is module.network
    assert find_network(module.network) is module.network
    found = find_attention(module.network)
    assert [name for name, _ in found] == [f"layers.{layer}" for layer in range(4)]
    assert [attention for _, attention in found] == list(module.network.layers)


def test_nothing_to_find():
    with pytest.raises(InputError, match="Linear has no network to observe"):
        find_network(nn.Linear(1, 1))
    with pytest.raises(InputError, match="Linear has no attention to observe"):
        find_attention(nn.Linear(1, 1))


class Adapter(TimmAttention):
    """timm's attention under the contract."""

    def explicit(self, x, tap, queries=None):
        query, key, value = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (self.q_norm(query) * self.scale @ self.k_norm(key).transpose(-2, -1)).softmax(-1)
        tap("weights", weights)
        return self.proj((weights @ value).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("class_token", [True, False])
def test_maps_taken_out_of_a_timm_vit(class_token):
    torch.manual_seed(0)
    network = timm.models.VisionTransformer(
        img_size=(16, 24), patch_size=8, embed_dim=24, depth=3, num_heads=3, num_classes=2,
        class_token=class_token, global_pool="token" if class_token else "avg",
    ).eval()  # fmt: skip
    maps, geometry = [], Grid(2, 3, num_prefix_tokens=int(class_token))
    network.geometry = geometry
    for block in network.blocks:
        nn.init.normal_(block.attn.qkv.weight, std=0.5)
        # timm's own softmax, seen on its way to the values.
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda module, inputs, output: maps.append(output))
        block.attn.__class__ = Adapter
    metrics = [HeadStatistics(3, geometry) for _ in range(3)]
    x = torch.rand(5, 3, 16, 24)
    with torch.no_grad(), observe(network, [metric.update for metric in metrics]):
        network(x)
    assert len(maps) == 3
    for layer, metric in zip(maps, metrics, strict=True):
        assert layer.std() > 0.05  # not uniform: the comparison can fail
        for name, value in head_statistics(layer, geometry).items():
            torch.testing.assert_close(metric.compute()[name].float(), value.mean(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chunk_images", [1, 2, 3, 5, 100])
def test_chunks_hold_no_more_than_allowed_and_everything(chunk_images):
    network, sizes, seen = ToyNetwork(), [], []

    def consume(probabilities):
        sizes.append(len(probabilities))
        seen.append(probabilities)

    tokens = 7
    ignore = [lambda probabilities: None] * 3
    allowed = chunk_images * HEADS * tokens**2
    with observe(network, [consume, *ignore], chunk_elements=allowed):
        network(images(5))
    assert max(sizes) <= chunk_images and sum(sizes) == 5
    whole = []
    with observe(network, [whole.append, *ignore]):
        network.eval()(images(5))
    torch.testing.assert_close(torch.cat(seen), whole[0])


def test_one_image_at_a_time_where_that_is_already_more_than_allowed():
    sizes, network = [], ToyNetwork(depth=1)
    with observe(network, [lambda probabilities: sizes.append(len(probabilities))], chunk_elements=1):
        network(images(3))
    assert sizes == [1, 1, 1]


@pytest.mark.parametrize(
    "subset",
    [torch.tensor([4, 1]), torch.tensor([False, True, False, False, True])],
    ids=["positions", "mask"],
)
def test_a_part_of_the_batch(subset):
    network, seen, whole = ToyNetwork(depth=1).eval(), [], []
    with observe(network, [seen.append], subset):
        network(images(5))
    with observe(network, [whole.append]):
        network(images(5))
    torch.testing.assert_close(seen[0], whole[0][subset])


def test_no_image_of_the_batch_and_no_call():
    network = ToyNetwork(depth=1)
    with observe(network, [pytest.fail], torch.tensor([], dtype=torch.int64)):
        network(images(2))


def test_hooks_come_off_also_after_an_error():
    network, calls = ToyNetwork(depth=1), []
    with pytest.raises(RuntimeError, match="stop"), observe(network, [calls.append]):
        network(images(1))
        raise RuntimeError("stop")
    network(images(1))
    assert len(calls) == 1 and not network.layers[0]._forward_hooks


def test_one_consumer_a_layer():
    network = ToyNetwork(depth=2)
    with pytest.raises(ValueError, match="argument 2"), observe(network, [print]):
        pass
    assert not any(layer._forward_hooks for layer in network.layers)


def test_no_gradients_and_no_autocast_in_the_consumer():
    network, seen = ToyNetwork(depth=1), []

    def consume(probabilities):
        product = torch.eye(7) @ torch.eye(7)
        seen.append((probabilities.requires_grad, probabilities.dtype, product.dtype))

    with torch.autocast("cpu", dtype=torch.bfloat16), observe(network, [consume]):
        logits = network(images(1))
    assert seen == [(False, torch.float32, torch.float32)]
    assert logits.requires_grad  # the observed forward itself is as it was


def test_bfloat16_probabilities():
    network = ToyNetwork(depth=1)
    attention = random_attention(3, HEADS, 7).bfloat16()
    network.layers[0].probabilities = lambda x: attention
    metric = HeadStatistics(HEADS, network.geometry)
    network.layers[0].forward = lambda x: x
    with observe(network, [metric.update]):
        network(images(3))
    expected = head_statistics(attention.double(), network.geometry)["mad"].mean(0)
    torch.testing.assert_close(metric.compute()["mad"], expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_the_projection_runs_once_and_gives_the_probabilities(bfloat16):
    """What is read from the layer ``qkv`` is what the module says of its own input."""
    torch.manual_seed(0)
    network = VisionTransformer((8, 8), embed_dim=16, depth=2, num_heads=2, patch_size=2).eval()
    for block in network.blocks:
        nn.init.normal_(block.attn.qkv.weight, std=0.5)  # not uniform: the comparison can fail
    inputs, seen, calls = [], [[], []], []
    for block in network.blocks:
        block.attn.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
        block.attn.qkv.register_forward_hook(lambda module, args, output: calls.append(module))
    consumers = [part.append for part in seen]
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16), torch.no_grad():
        with observe(network, consumers):
            network(torch.randn(3, 3, 8, 8))
        assert calls == [block.attn.qkv for block in network.blocks]
        for block, tokens, (given,) in zip(network.blocks, inputs, seen, strict=True):
            # By torch's own softmax, from the same projection; scores in float32 in either case.
            query, key, _ = block.attn.qkv(tokens).view(3, 17, 3, 2, 8).permute(2, 0, 3, 1, 4).double()
            expected = (query @ key.mT / 8**0.5).softmax(-1)
            assert given.dtype == torch.float32 and expected.std() > 0.02
            torch.testing.assert_close(given.double(), expected, rtol=1e-4, atol=1e-6)
