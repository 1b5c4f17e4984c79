"""Gated attention against a slow loop, the paper's parameter counts, and softmax where gates are open."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from vitlocal.models import Gated, Softmax, VisionTransformer, attention_weights

KINDS = ["linear", "mlp", "all_heads_linear"]


def make(gate, dtype=torch.float32, **options):
    torch.manual_seed(0)
    attention = Gated(dim=12, num_heads=3, gate=gate, hidden=5 if gate == "mlp" else 4, **options).to(dtype)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return attention, torch.randn(2, 6, 12, dtype=dtype, requires_grad=True)


def slow_gate(attention, kind, token, head):
    """One gate from one token (D,), by the paper's table."""
    own = token[4 * head : 4 * head + 4]
    first, last = attention.gate.layers[0], attention.gate.layers[-1]
    if kind == "linear":
        score = first.weight[head, 0] @ own + first.bias[head]
    elif kind == "mlp":
        hidden = first.weight[head] @ own + first.bias[5 * head : 5 * head + 5]
        score = last.weight[head, 0] @ hidden.clamp(min=0) + last.bias[head]
    else:
        score = first.weight[0, head] @ token + first.bias[head]
    return 1 / (1 + (-score).exp())


def gates_of(attention, x):
    """The gates that the explicit forward shows."""
    shown = {}
    with torch.no_grad():
        attention.explicit(x, shown.__setitem__)
    return shown["gates"]


def slow(attention, kind, x):
    outputs = []
    for tokens, projected in zip(x, attention.qkv(x), strict=True):
        query, key, value = projected.unflatten(-1, (3, 3, 4)).unbind(1)
        for i, token in enumerate(tokens):
            mixed = []
            for head in range(3):
                weights = (key[:, head] @ query[i, head] / 2).exp()
                mixture = sum(w * v for w, v in zip(weights / weights.sum(), value[:, head], strict=True))
                mixed.append(slow_gate(attention, kind, token, head) * mixture)
            outputs.append(attention.proj(torch.cat(mixed)))
    return torch.stack(outputs).unflatten(0, (2, 6))


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_gradients_are_the_formula_s(kind):
    attention, x = make(kind, torch.float64)
    inputs = [x, *attention.parameters()]
    towards = torch.randn(2, 6, 12, dtype=torch.float64)
    ours, theirs = attention(x), slow(attention, kind, x)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    gradients = torch.autograd.grad(ours, inputs, towards)
    for gradient, expected in zip(gradients, torch.autograd.grad(theirs, inputs, towards), strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_gates_are_those_that_forward_applies(kind):
    attention, x = make(kind)
    gates = gates_of(attention, x)
    assert gates.shape == (2, 3, 6)
    for head in range(3):
        torch.testing.assert_close(gates[1, head, 4], slow_gate(attention, kind, x[1, 4], head).detach())
    value = attention.qkv(x).unflatten(-1, (3, 3, 4))[:, :, 2]
    mixed = torch.einsum("bhi,bhij,bjhd->bihd", gates, attention_weights(attention, x), value).flatten(2)
    torch.testing.assert_close(attention.proj(mixed), attention(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(attention_weights(attention, x).sum(-1), torch.ones(2, 3, 6))


@pytest.mark.parametrize(
    ("gate", "hidden", "extra"),
    [("linear", 4, 390), ("mlp", 4, 6 * (4 * 66 + 1)), ("mlp", 16, 6342), ("all_heads_linear", 4, 2310)],
)
def test_parameters_of_vit_small_are_the_paper_s(gate, hidden, extra):
    """Per layer: H (d + 1), H (hidden (d + 2) + 1) and H (D + 1), with H 6, d 64 and D 384."""
    sizes = {"img_size": (224, 224), "patch_size": 16, "embed_dim": 384, "depth": 12, "num_heads": 6}
    sizes |= {"mlp_ratio": 4.0, "num_classes": 1000}
    with torch.device("meta"):
        plain = VisionTransformer(**sizes)
        gated = VisionTransformer(**sizes, attention=partial(Gated, gate=gate, hidden=hidden))
    counts = [sum(p.numel() for p in network.parameters()) for network in (plain, gated)]
    assert counts[0] == 22_050_664  # timm's vit_small_patch16_224
    assert counts[1] - counts[0] == 12 * extra


@pytest.mark.parametrize("pi", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", KINDS)
def test_gates_begin_at_pi_init(kind, pi):
    torch.manual_seed(0)
    network = VisionTransformer(depth=2, attention=partial(Gated, gate=kind, pi_init=pi))
    attention = network.blocks[1].attn  # as the whole network is initialised
    exact = gates_of(attention, torch.zeros(1, 65, 192))
    torch.testing.assert_close(exact, torch.full((1, 12, 65), pi))
    gates = gates_of(attention, F.layer_norm(torch.randn(4, 65, 192), (192,)))
    # The weights' deviation of 0.02 over 16 or 192 features: 0.08 or 0.28 of the logit, less by an MLP.
    assert gates.mean().item() == pytest.approx(pi, abs=0.02)
    assert 0 < gates.std().item() < 1.2 * 0.28 * pi * (1 - pi)


@pytest.mark.parametrize("kind", KINDS)
def test_open_gates_are_softmax_attention(kind):
    attention, x = make(kind)
    last = attention.gate.layers[-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.constant_(last.bias, 40.0)  # whose sigmoid is 1 in float32
    assert (gates_of(attention, x) == 1).all()
    plain = Softmax(dim=12, num_heads=3)
    missing, extra = plain.load_state_dict(attention.state_dict(), strict=False)
    assert not missing and all(name.startswith("gate.") for name in extra)
    assert torch.equal(attention(x), plain(x))
    assert torch.equal(attention_weights(attention, x), attention_weights(plain, x))


@pytest.mark.parametrize("kind", KINDS)
def test_in_bfloat16_on_a_cpu_and_compiled(kind):
    attention, x = make(kind)
    expected = attention(x)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = attention(x)
    assert coarse.dtype == torch.bfloat16
    assert (coarse - expected).norm() < 0.03 * expected.norm()
    compiled = torch.compile(attention, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), expected)
    gradients = [torch.autograd.grad(f(x).square().sum(), x)[0] for f in (attention, compiled)]
    torch.testing.assert_close(*gradients)
