"""The explicit forward against the fast one, for each kind of attention and what its tap may do."""

import pytest
import torch

from vitlocal.models import Causal, ClippedSoftmax, Gated, Softmax, attention_weights
from vitlocal.models.attention import Enough

KINDS = {
    "softmax": (Softmax, {}),
    "causal": (Causal, {}),
    "clipped": (ClippedSoftmax, {"gamma": -0.05, "zeta": 1.1}),
    "linear gate": (Gated, {}),
    "MLP gate": (Gated, {"gate": "mlp"}),
    "all heads": (Gated, {"gate": "all_heads_linear"}),
}
STEPS = ["qkv", "scores", "weights", "gates", "context"]
B, N, C, H = 2, 7, 12, 3


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def make(request):
    def attention(head_dim=5, **options):
        torch.manual_seed(0)
        kind, own = request.param
        module = kind(C, H, head_dim, **own, **options).eval()
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        return module

    return attention


def tokens(dtype=torch.float32):
    return torch.randn(B, N, C, dtype=dtype, generator=torch.Generator().manual_seed(1))


def shown(attention, x, **options):
    """The steps by name, in order, and the output."""
    steps = {}
    output = attention.explicit(x, lambda name, tensor: steps.update({name: tensor.clone()}), **options)
    return steps, output


@pytest.mark.parametrize("head_dim", [None, 5, 1])
@torch.no_grad()
def test_step_by_step_it_is_the_forward(make, head_dim):
    attention, x = make(head_dim).double(), tokens(torch.float64)
    steps, output = shown(attention, x)
    torch.testing.assert_close(output, attention(x), rtol=1e-12, atol=1e-12)
    size = 4 if head_dim is None else head_dim
    assert attention.head_dim == size and attention.qkv.out_features == 3 * H * size
    shapes = {"qkv": (3, B, H, N, size), "scores": (B, H, N, N), "weights": (B, H, N, N)}
    shapes |= {"gates": (B, H, N), "context": (B, N, H * size)}
    assert list(steps) == [name for name in STEPS if name != "gates" or isinstance(attention, Gated)]
    for name, step in steps.items():
        assert step.shape == shapes[name] and step.dtype == torch.float64, name


@torch.no_grad()
def test_the_steps_are_made_of_each_other(make):
    attention, x = make(), tokens()
    steps, output = shown(attention, x)
    query, key, value = steps["qkv"]
    bias = attention._bias(N, x)  # of which test_causal.py has a slow loop
    scores = query @ key.mT / 5**0.5
    torch.testing.assert_close(steps["scores"], scores if bias is None else scores + bias)
    mixed = steps["weights"] @ value * steps.get("gates", torch.ones(B, H, N))[..., None]
    torch.testing.assert_close(steps["context"], mixed.transpose(1, 2).reshape(B, N, H * 5))
    torch.testing.assert_close(output, attention.proj(steps["context"]))


@torch.no_grad()
def test_some_queries_have_the_rows_that_all_have(make):
    attention, x, queries = make(), tokens(), torch.tensor([5, 0])
    steps, output = shown(attention, x)
    some, rows = shown(attention, x, queries=queries)
    torch.testing.assert_close(rows, output[:, queries])
    for name, step in some.items():
        dimension = {"qkv": None, "context": 1}.get(name, 2)
        whole = steps[name]
        expected = whole if dimension is None else whole.index_select(dimension, queries)
        torch.testing.assert_close(step, expected, msg=name)
    assert torch.equal(attention_weights(attention, x, queries), some["weights"])


@pytest.mark.parametrize("name", STEPS)
@torch.no_grad()
def test_what_a_tap_puts_in_its_place_is_what_counts(make, name):
    """Half of a step is half of what is linear in it."""
    attention, x = make(), tokens()
    steps, output = shown(attention, x)
    if name not in steps:
        return
    halved, changed = {}, []

    def tap(step, tensor):
        halved[step] = tensor.clone()
        if step == name:
            changed.append(step)
            return 0.5 * tensor
        return None

    given = attention.explicit(x, tap)
    assert changed == [name]
    if name in ("qkv", "scores"):
        factor = 0.25 if name == "qkv" else 1  # of queries times keys; the scores are seen before they change
        torch.testing.assert_close(halved["scores"], factor * steps["scores"])
        assert not torch.allclose(given, output)
    else:
        torch.testing.assert_close(given - attention.proj.bias, 0.5 * (output - attention.proj.bias))


def test_gradients_go_through_it(make):
    attention = make().double()
    x = tokens(torch.float64).requires_grad_()
    inputs = [x, *attention.parameters()]
    gradients = [
        torch.autograd.grad(output.square().sum(), inputs)
        for output in (attention(x), attention.explicit(x, lambda name, tensor: None))
    ]
    for fast, slow in zip(*gradients, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-12)


@torch.no_grad()
def test_a_forward_shows_its_projection_and_it_is_not_made_again(make):
    attention, x, seen, projected = make(), tokens(), [], []
    attention.qkv.register_forward_hook(lambda *_: projected.append(True))
    expected = attention(x)
    handle = attention.register_qkv_hook(lambda *given: seen.append(given))
    assert torch.equal(attention(x), expected)
    ((given, qkv),) = seen
    handle.remove()
    assert given is x and len(projected) == 2
    steps, output = shown(attention, x, qkv=qkv)
    assert len(projected) == 2
    torch.testing.assert_close(output, expected)
    assert torch.equal(attention_weights(attention, None, qkv=qkv), steps["weights"])
    attention(x)
    assert len(seen) == 1


@torch.no_grad()
def test_enough_ends_it_there(make):
    attention, seen = make(), []

    def tap(name, tensor):
        seen.append(name)
        if name == "scores":
            raise Enough

    with pytest.raises(Enough):
        attention.explicit(tokens(), tap)
    assert seen == ["qkv", "scores"]


@torch.no_grad()
def test_in_bfloat16_scores_and_weights_are_exact(make):
    attention, x = make(), tokens()
    with torch.autocast("cpu", torch.bfloat16):
        steps, output = shown(attention, x)
        coarse = attention(x)
    assert [steps[name].dtype for name in ("qkv", "scores", "weights", "context")] == [
        torch.bfloat16,
        torch.float32,
        torch.float32,
        torch.bfloat16,
    ]
    query, key, _ = steps["qkv"].double()
    bias = attention._bias(N, x)
    scores = query @ key.mT / 5**0.5 + (0 if bias is None else bias)
    torch.testing.assert_close(steps["scores"].double(), scores, rtol=1e-5, atol=1e-5)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output, coarse, rtol=0.02, atol=0.05)
