import pytest
import torch

from tests.heads.toy import random_attention
from vitlocal.heads.rollout import rollout_step


def slow_rollout(layers, residual):
    """Abnar & Zuidema's recursion, number by number, for one image."""
    tokens = layers[0].shape[-1]
    rollout = [[float(i == j) for j in range(tokens)] for i in range(tokens)]
    for layer in layers:
        heads = len(layer)
        step = [
            [
                (1 - residual) * sum(layer[h, i, j].item() for h in range(heads)) / heads
                + (residual if i == j else 0)
                for j in range(tokens)
            ]
            for i in range(tokens)
        ]
        rollout = [
            [sum(step[i][k] * rollout[k][j] for k in range(tokens)) for j in range(tokens)]
            for i in range(tokens)
        ]
    return torch.tensor(rollout)


@pytest.mark.parametrize("residual", [0.5, 0.2])
def test_rollout_is_the_slow_loop(residual):
    layers = [random_attention(2, heads, 5, seed=seed) for seed, heads in enumerate((3, 1, 2))]
    before = [layer.clone() for layer in layers]
    rollout = None
    for layer in layers:
        rollout = rollout_step(layer, rollout, residual)
    assert rollout.shape == (2, 5, 5)
    for image in range(2):
        expected = slow_rollout([layer[image] for layer in layers], residual)
        torch.testing.assert_close(rollout[image], expected)
    torch.testing.assert_close(rollout.sum(-1), torch.ones(2, 5))
    assert all(torch.equal(one, other) for one, other in zip(layers, before, strict=True))


def test_one_step_of_attention_to_itself_is_the_identity():
    torch.testing.assert_close(rollout_step(torch.eye(4)[None, None]), torch.eye(4)[None])
