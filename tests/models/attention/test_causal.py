"""Causal attention looks back only, as a slow loop has it."""

import math

import pytest
import torch

from vitlocal.models import Causal, attention_weights

B, N, C, H = 2, 6, 12, 4


def made(alibi=False, **options):
    torch.manual_seed(0)
    return Causal(C, H, alibi=alibi, **options).double().eval()


def tokens():
    return torch.randn(B, N, C, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("alibi", [False, True])
@torch.no_grad()
def test_weights_and_output_are_those_of_a_slow_loop(alibi):
    attention, x = made(alibi), tokens()
    weights, output = attention_weights(attention, x), attention(x)
    dim = C // H
    for b in range(B):
        qkv = attention.qkv(x[b])
        for i in range(N):
            mixed = []
            for h in range(H):
                first = h * dim
                query, key, value = (qkv[:, k + first : k + first + dim] for k in (0, C, 2 * C))
                slope = 2 ** (-8 * (h + 1) / H) if alibi else 0
                scores = [
                    sum(query[i, d].item() * key[j, d].item() for d in range(dim)) / math.sqrt(dim)
                    - slope * (i - j)
                    for j in range(i + 1)
                ]
                total = sum(math.exp(score) for score in scores)
                row = [math.exp(score) / total for score in scores] + [0.0] * (N - 1 - i)
                assert weights[b, h, i].tolist() == pytest.approx(row, abs=1e-12)
                mixed += [sum(row[j] * value[j, d].item() for j in range(N)) for d in range(dim)]
            expected = attention.proj(torch.tensor(mixed, dtype=torch.float64))
            assert output[b, i].tolist() == pytest.approx(expected.tolist(), abs=1e-12)


@pytest.mark.parametrize("alibi", [False, True])
@torch.no_grad()
def test_token_by_token_it_is_the_same(alibi):
    attention, x = made(alibi), tokens()
    keys, values = (torch.empty(B, H, N, C // H, dtype=torch.float64) for _ in range(2))
    parts = [attention.step(x[:, a:b], keys, values, a) for a, b in ((0, 3), (3, 4), (4, 6))]
    torch.testing.assert_close(torch.cat(parts, dim=1), attention(x))


def test_dropout_on_the_weights_is_for_training_only():
    attention, x = made(attn_drop=0.5), tokens()
    torch.testing.assert_close(attention(x), attention(x))
    assert not torch.equal(attention.train()(x), attention(x))
    dropped = attention_weights(attention, x)
    past = torch.ones(N, N).tril().bool()
    assert 0.3 < (dropped[..., past] == 0).double().mean() < 0.7


@torch.no_grad()
def test_slopes_stay_with_their_heads_when_others_are_cut_out():
    attention, x = made(alibi=True), tokens()
    whole = attention_weights(attention, x)
    attention.keep_heads([1, 3])
    torch.testing.assert_close(attention_weights(attention, x), whole[:, [1, 3]])
