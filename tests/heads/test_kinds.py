import math

import pytest
import torch

from vitlocal.geometry import Grid
from vitlocal.heads import functional as heads
from vitlocal.heads.kinds import head_kind

GRID = Grid(8, 8, num_prefix_tokens=1)


def kind_of(attention):
    """The kind of one head, from its weights (65, 65)."""
    found = heads.head_statistics(attention[None, None], GRID)
    return head_kind(*(found[name].item() for name in ("self_mass", "class_mass", "window_mass")))


def on_patches(rows):
    """Weights (64, 64) over patches, and none on the class token."""
    attention = torch.zeros(65, 65)
    attention[1:, 1:] = rows / rows.sum(1, keepdim=True)
    attention[0, 0] = 1
    return attention


def test_heads_made_to_be_of_each_kind():
    near = GRID.neighbours(torch.arange(1, 65))[:, 1:].float()
    assert kind_of(on_patches(torch.ones(64, 64))) == "broad"
    assert kind_of(on_patches(near)) == "window"
    assert kind_of(on_patches(torch.eye(64) + 0.1 * near)) == "own patch"
    parked = 0.1 * on_patches(torch.eye(64))
    parked[:, 0] = 0.9  # whatever the rest looks at
    assert kind_of(parked) == "class token"


@pytest.mark.parametrize(
    ("masses", "expected"),
    [
        ((0.9, 0.2, math.nan), "own patch"),
        ((0.9, 0.6, math.nan), "class token"),
        ((0.1, 0.1, math.nan), None),  # a table of an earlier release can't tell
        ((0.5, 0.5, 0.5), "broad"),
    ],
)
def test_what_decides(masses, expected):
    assert head_kind(*masses) == expected
