"""Attention across pasted borders against slow loops, closed forms, and CutMix itself."""

import pytest
import torch

from tests.heads.toy import random_attention
from vitlocal.geometry import Grid
from vitlocal.heads.border import BORDER, BorderMass, border_mass, mixed_images, pasted_share


def slow_border(attention, pasted, prefix):
    """One image and head, by loops over Python floats."""
    rows, f = attention.double().tolist(), pasted.double().tolist()
    total = 0.0
    for i, row in enumerate(rows[prefix:]):
        weight = sum(row[prefix:])
        for j, a in enumerate(row[prefix:]):
            total += a / weight * (f[i] * (1 - f[j]) + (1 - f[i]) * f[j])
    return total / len(f)


@pytest.mark.parametrize("prefix", [0, 1])
def test_against_loops_split_included(prefix):
    attention, pasted = random_attention(5, 2, 6 + prefix, sharpness=3), torch.rand(5, 6)
    grid = Grid(2, 3, num_prefix_tokens=prefix)
    direct = border_mass(attention, pasted, grid)
    metric = BorderMass(2, grid)
    metric.update(attention[:2], pasted[:2])
    metric.update(attention[2:], pasted[2:])
    found = metric.compute()
    assert tuple(found) == BORDER
    uniform_rows = torch.full((6 + prefix, 6 + prefix), 1.0)
    uniform = sum(slow_border(uniform_rows, share, prefix) for share in pasted) / 5
    patches = attention[..., prefix:, prefix:]
    mean_map = (patches / patches.sum(-1, keepdim=True)).mean(0)
    for head in range(2):
        slow = [slow_border(attention[image, head], pasted[image], prefix) for image in range(5)]
        assert direct[:, head].tolist() == pytest.approx(slow, rel=1e-5)
        whole = sum(slow) / 5 / uniform
        by_position = sum(slow_border(mean_map[head], share, 0) for share in pasted) / 5 / uniform
        assert found["border_mass"][head].item() == pytest.approx(whole, rel=1e-5)
        assert found["border_position"][head].item() == pytest.approx(by_position, rel=1e-5)
        assert found["border_content"][head].item() == pytest.approx(whole - by_position, abs=1e-5)


def test_a_head_that_never_crosses_and_one_that_always_does():
    pasted = torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0]])
    same = (pasted[:, :, None] == pasted[:, None]).float() / 2
    attention = torch.stack([same, 0.5 - same], dim=1)
    metric = BorderMass(2, Grid(2, 2))
    metric.update(attention, pasted)
    found = metric.compute()
    # Uniform attention crosses half of the time.
    assert found["border_mass"].tolist() == pytest.approx([0, 2])
    # Mean maps: of the first head 1/2 on the own patch, 1/4 on two others, of which one is beyond the border.
    assert found["border_position"].tolist() == pytest.approx([0.5, 1.5])
    assert found["border_content"].tolist() == pytest.approx([-0.5, 0.5])


def test_windows_cross_as_seldom_as_by_direct_simulation():
    """Shares of foreign pixels attended on an 8x8 grid under CutMix with p = 1, by alpha = 1 boxes."""
    size = 32
    pasted = torch.cat([mixed_images(torch.zeros(500, 1, size, size), 0, part)[1] for part in range(8)])
    grid = Grid(8, 8)
    share = pasted_share(pasted, grid)
    place = torch.arange(64)
    steps = torch.maximum((place[:, None] // 8 - place // 8).abs(), (place[:, None] % 8 - place % 8).abs())
    window = (steps <= 1).float()
    maps = {0.35: torch.ones(64, 64) / 64, 0.117: window / window.sum(1, keepdim=True), 0.051: torch.eye(64)}
    for expected, weights in maps.items():
        mass = border_mass(weights.expand(4000, 1, 64, 64), share, grid).mean().item()
        assert mass == pytest.approx(expected, rel=0.06)
    # By pixels drawn at random, without patches' shares: uniform attention.
    draws = torch.randint(size * size, (4000, 2, 200))
    flat = pasted.flatten(1)
    first, second = (flat.gather(1, draws[:, side]) for side in range(2))
    assert (first != second).float().mean().item() == pytest.approx(0.35, rel=0.06)


def test_mixed_images_are_pasted_where_the_mask_says_and_the_same_every_time():
    images = torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(6, 3, 16, 12).contiguous()
    mixed, pasted = mixed_images(images, 3, 0, 7)
    again, _ = mixed_images(images, 3, 0, 7)
    other, _ = mixed_images(images, 3, 0, 8)
    assert torch.equal(mixed, again) and not torch.equal(mixed, other)
    assert mixed.dtype == torch.uint8 and pasted.shape == (6, 1, 16, 12)
    kept = pasted.expand_as(images) == 0
    assert torch.equal(mixed[kept], images[kept])
    for number in range(6):  # inside a box all pixels are one other image's
        inside = mixed[number][pasted[number].expand(3, -1, -1) == 1]
        assert len(inside.unique()) <= 1
    assert 0 < pasted.mean() < 1


def test_pasted_shares_of_a_box_that_cuts_patches():
    pasted = torch.zeros(1, 1, 8, 8)
    pasted[..., 2:6, 0:4] = 1  # the lower half of one patch, the upper half of the one below
    assert pasted_share(pasted, Grid(2, 2)).tolist() == [[0.5, 0, 0.5, 0]]
    assert pasted_share(pasted, Grid(8, 8)).sum().item() == 16
