"""Clipped softmax against its formula in float64, and against softmax where nothing is cut."""

from functools import partial

import pytest
import torch

from vitlocal.models import ClippedSoftmax, Softmax, VisionTransformer, attention_weights
from vitlocal.models.attention import clipped_softmax

CUTS = [(-0.03, 1.0), (0.0, 1.3), (-0.1, 1.3), (-0.6, 1.0)]


@pytest.fixture(autouse=True, params=["whole", "in chunks"])
def in_chunks(request, monkeypatch):
    """Every test by both ways: of the four matrices of an image and a head here, three in one chunk."""
    if request.param == "in chunks":
        monkeypatch.setattr(clipped_softmax, "SHORT", 0)
        monkeypatch.setattr(clipped_softmax, "CHUNK_ELEMENTS", 3 * 7**2 + 5)
    return request.param == "in chunks"


def make(gamma, zeta=1.0, dtype=torch.float32, spread=3.0):
    """A module whose scores differ enough for some weights to be cut, and tokens."""
    torch.manual_seed(0)
    attention = ClippedSoftmax(dim=8, num_heads=2, gamma=gamma, zeta=zeta).to(dtype)
    torch.nn.init.normal_(attention.qkv.weight, std=spread / 8**0.5)
    return attention, torch.randn(2, 7, 8, dtype=dtype, requires_grad=True)


def slow_weights(attention, x):
    """(B, H, N, N), an entry at a time, from the formula as it stands."""
    images = []
    for tokens in attention.qkv(x):
        query, key, _ = tokens.unflatten(-1, (3, 2, 4)).unbind(1)
        rows = []
        for head in range(2):
            for i in range(7):
                scores = torch.stack([query[i, head] @ key[j, head] / 2 for j in range(7)])
                p = scores.exp() / scores.exp().sum()
                rows.append(((attention.zeta - attention.gamma) * p + attention.gamma).clamp(0, 1))
        images.append(torch.stack(rows).unflatten(0, (2, 7)))
    return torch.stack(images)


def slow(attention, x):
    weights, outputs = slow_weights(attention, x), []
    for image, tokens in zip(weights, attention.qkv(x), strict=True):
        value = tokens.unflatten(-1, (3, 2, 4))[:, 2]
        mixed = [
            torch.cat([sum(image[head, i, j] * value[j, head] for j in range(7)) for head in range(2)])
            for i in range(7)
        ]
        outputs.append(attention.proj(torch.stack(mixed)))
    return torch.stack(outputs)


@pytest.mark.parametrize(("gamma", "zeta"), CUTS)
def test_outputs_and_gradients_are_the_formula_s(gamma, zeta):
    attention, x = make(gamma, zeta, torch.float64)
    weights = slow_weights(attention, x)
    assert (gamma < 0) == bool((weights == 0).any()) and (zeta > 1) == bool((weights == 1).any())
    inputs = [x, *attention.parameters()]
    towards = torch.randn(2, 7, 8, dtype=torch.float64)
    ours, theirs = attention(x), slow(attention, x)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    gradients = torch.autograd.grad(ours, inputs, towards)
    for gradient, expected in zip(gradients, torch.autograd.grad(theirs, inputs, towards), strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("gamma", "zeta"), CUTS)
def test_probabilities_are_the_weights_that_forward_applies(gamma, zeta):
    attention, x = make(gamma, zeta)
    weights = attention_weights(attention, x)
    assert weights.dtype == torch.float32 and not weights.requires_grad
    expected = slow_weights(attention.double(), x.double())
    torch.testing.assert_close(weights.double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(weights == 0, expected == 0)
    value = attention.qkv(x.double()).unflatten(-1, (3, 2, 4))[:, :, 2]
    mixed = torch.einsum("bhij,bjhd->bihd", weights.double(), value).flatten(2)
    torch.testing.assert_close(attention.proj(mixed), attention(x.double()), rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        # Scores of the coarse projection, but exact themselves.
        projected = attention.float().split(attention.qkv(x))
        given, again = attention_weights(attention, x), attention_weights(attention, x, qkv=projected.float())
        assert projected.dtype == torch.bfloat16 and torch.equal(given, again)


def test_what_is_cut_gets_no_gradient():
    """Where every weight is 0, so are the gradients of queries, keys and values; not so one weight above."""
    attention, x = make(-0.6, spread=0.1)
    assert not attention_weights(attention, x).any()
    attention(x).sum().backward()
    assert not attention.qkv.weight.grad.any() and not x.grad.any()
    assert attention.proj.bias.grad.all()
    attention, x = make(-0.1)
    cut = attention_weights(attention, x)[0, :, 0] == 0  # of the first token's row: (H, N)
    hidden = []
    attention.qkv.register_forward_hook(lambda _, __, output: hidden.append(output))
    output = attention(x)
    (gradient,) = torch.autograd.grad(output[0, 0].sum(), hidden)
    values = gradient[0].unflatten(-1, (3, 2, 4))[:, 2]  # (N, H, D / H)
    assert cut.any() and torch.equal(cut.T, (values == 0).all(-1))


def test_nothing_cut_is_softmax_attention():
    clipped, x = make(0.0, 1.0)
    plain = Softmax(dim=8, num_heads=2)
    plain.load_state_dict(clipped.state_dict())
    towards = torch.randn(2, 7, 8)
    torch.testing.assert_close(clipped(x), plain(x))
    torch.testing.assert_close(attention_weights(clipped, x), attention_weights(plain, x))
    ours, theirs = (
        torch.autograd.grad(module(x), [x, *module.parameters()], towards) for module in (clipped, plain)
    )
    for gradient, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


def test_bfloat16_on_a_cpu(in_chunks):
    """As exact as bfloat16, and only small matrices in bfloat16 are kept, in chunks none."""
    attention, x = make(-0.1)
    exact, expected = slow_weights(attention, x), slow(attention, x)
    kept = []
    keep = torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t)
    with torch.autocast("cpu", torch.bfloat16), keep:
        mixed = attention(x)
    (gradient,) = torch.autograd.grad(mixed.float().square().sum(), x, retain_graph=True)
    (reference,) = torch.autograd.grad(expected.square().sum(), x)
    assert (mixed.float() - expected).norm() < 0.03 * expected.norm()
    assert (gradient - reference).norm() < 0.06 * reference.norm()
    square = {t.data_ptr(): t for t in kept if t.shape[-2:] == exact.shape[-2:]}
    assert [t.dtype for t in square.values()] == ([] if in_chunks else [torch.bfloat16] * 2)


@torch.no_grad()
@pytest.mark.parametrize(("alpha", "learns"), [(None, True), (0.0, True), (3.0, False)])
def test_the_default_does_not_cut_an_untrained_network(alpha, learns):
    torch.manual_seed(0)
    network = VisionTransformer(depth=2, attention=partial(ClippedSoftmax, alpha=alpha))
    weights = attention_weights(network.blocks[0].attn, torch.randn(2, 65, 192))
    assert bool((weights > 0).all()) is learns and bool((weights == 0).all()) is not learns
    given = partial(ClippedSoftmax, gamma=-(0.5 if alpha is None else alpha) / 65)
    same = VisionTransformer(depth=2, attention=given)
    same.load_state_dict(network.state_dict())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(network(images), same(images))


def test_compiled_is_eager():
    attention, x = make(-0.1)
    compiled = torch.compile(attention, backend="aot_eager", fullgraph=True)
    gradients = [torch.autograd.grad(f(x).square().sum(), x)[0] for f in (attention, compiled)]
    torch.testing.assert_close(*gradients)
