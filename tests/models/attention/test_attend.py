import pytest
import torch
import torch.nn.functional as F

from vitlocal.models.attention.softmax import SHORT, attend


def inputs(tokens):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, tokens, 16, generator=generator) for _ in range(3)]


@pytest.mark.parametrize("tokens", [1, 65, SHORT, SHORT + 1])
def test_in_bfloat16_as_in_float64(tokens):
    """Each way of training in bfloat16 gives the mixture and the gradients of exact arithmetic."""
    coarse = [x.bfloat16().requires_grad_() for x in inputs(tokens)]
    exact = [x.detach().double().requires_grad_() for x in coarse]
    weight = torch.randn(2, 3, tokens, 16, generator=torch.Generator().manual_seed(1)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = attend(*coarse)
    (mixed * weight).sum().backward()
    query, key, value = exact
    reference = (query @ key.mT / 4).softmax(-1) @ value
    (reference * weight).sum().backward()
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(mixed.double(), reference, atol=0.02, rtol=0.02)
    for ours, theirs in zip(coarse, exact, strict=True):
        error = (ours.grad.double() - theirs.grad).norm() / theirs.grad.norm().clamp(min=1e-9)
        assert error < 0.01 or theirs.grad.norm() < 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_otherwise_fused(dtype):
    query, key, value = (x.to(dtype).requires_grad_() for x in inputs(65))
    assert torch.equal(attend(query, key, value), F.scaled_dot_product_attention(query, key, value))
