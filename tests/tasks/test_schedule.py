"""The schedule against torch's own, and which parameters weight decay leaves alone."""

import pytest
import torch
from timm.optim import param_groups_weight_decay

from vitlocal.models import VisionTransformer
from vitlocal.tasks.schedule import decay_groups, warmup_then


@pytest.mark.parametrize(("warmup", "total"), [(10, 50), (1, 7), (0, 20)])
def test_schedule_is_linear_then_torchs_cosine(warmup, total):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=total - warmup)
    expected = [0.3 * (step + 1) / warmup for step in range(warmup)]
    for _ in range(total - warmup + 1):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        cosine.step()
    rates = [0.3 * warmup_then("cosine", step, warmup, total) for step in range(total + 1)]
    assert rates == pytest.approx(expected, abs=1e-9)
    assert rates[total] == pytest.approx(0, abs=1e-12)


def test_schedule_stays_at_zero_after_the_end():
    assert warmup_then("cosine", 31, 3, 30) == pytest.approx(0)


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_decay_groups_are_timms(pool):
    network = VisionTransformer(embed_dim=24, depth=2, num_heads=2, global_pool=pool)
    expected = param_groups_weight_decay(network, 0.05, no_weight_decay_list=("pos_embed", "cls_token"))
    mine = decay_groups(network, 0.05)
    by_decay = {group["weight_decay"]: {id(p) for p in group["params"]} for group in expected}
    assert {group["weight_decay"]: {id(p) for p in group["params"]} for group in mine} == by_decay
    assert sum(len(group["params"]) for group in mine) == len(list(network.parameters()))
