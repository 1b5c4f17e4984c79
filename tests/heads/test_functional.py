import math

import pytest
import torch

from tests.heads.slow import slow_statistics
from tests.heads.toy import random_attention
from vitlocal.errors import InputError
from vitlocal.geometry import Grid
from vitlocal.heads import functional as heads

GRIDS = [(8, 8), (4, 4), (2, 5), (1, 7), (3, 1)]


def places(grid, patch=(1, 1)):
    return [(row * patch[0], column * patch[1]) for row in range(grid[0]) for column in range(grid[1])]


def scale(grid, unit):
    return math.dist((0, 0), (grid[0] - 1, grid[1] - 1)) if unit == "grid" else 1.0


def on_grid(attention, grid):
    """:func:`slow_statistics` of a grid, its places by their rows and columns."""
    steps = places(grid.size)
    centres = places(grid.size, grid.patch_size) if grid.unit == "pixels" else steps
    largest = scale(grid.size, grid.unit)
    return slow_statistics(
        attention,
        grid,
        lambda i, j: math.dist(centres[i], centres[j]) / largest,
        lambda i, j: max(abs(a - b) for a, b in zip(steps[i], steps[j], strict=True)) <= 1,
        lambda i, j: True,
    )


@pytest.mark.parametrize("size", GRIDS)
@pytest.mark.parametrize("unit", ["grid", "patches", "pixels"])
def test_uniform_attention_goes_the_mean_distance(size, unit):
    grid = Grid(*size, (4, 2), unit=unit)
    centres = places(size, grid.patch_size if unit == "pixels" else (1, 1))
    mean = sum(math.dist(a, b) for a in centres for b in centres) / len(centres) ** 2 / scale(size, unit)
    uniform = torch.full((2, 3, len(centres), len(centres)), 1 / len(centres))
    mad = heads.mean_attention_distance(uniform, grid)
    assert mad.shape == (2, 3)
    assert mad.flatten().tolist() == pytest.approx([mean] * 6, rel=1e-5)
    assert heads.uniform_statistics(grid)["mad"] == pytest.approx(mean, rel=1e-6)
    assert heads.normalized_entropy(uniform, grid).flatten().tolist() == pytest.approx([1] * 6, rel=1e-5)


@pytest.mark.parametrize(("side", "value"), [(4, 0.473), (8, 0.418), (16, 0.392)])
def test_uniform_reference_known_values(side, value):
    assert round(heads.uniform_statistics(Grid(side, side))["mad"], 3) == value


def test_uniform_reference_with_a_class_token_among_the_keys():
    # Of 65 keys, 64 are patches; the class token is at distance 0.
    alone = heads.uniform_statistics(Grid(8, 8))["mad"]
    grid = Grid(8, 8, num_prefix_tokens=1)
    assert heads.uniform_statistics(grid.measured(class_token="keep"))["mad"] == pytest.approx(
        alone * 64 / 65
    )
    assert heads.uniform_statistics(grid) == {
        "mad": pytest.approx(alone),
        "entropy": 1,
        "self_mass": pytest.approx(1 / 64),
        "mad_without_self": pytest.approx(alone * 64 / 63),
        "class_mass": pytest.approx(1 / 65),
        "mad_raw": pytest.approx(alone * 64 / 65),
        "window_mass": pytest.approx((36 * 9 + 24 * 6 + 4 * 4) / 64**2),
        "self_log_odds": 0,
        "class_log_odds": 0,
    }


@pytest.mark.parametrize("unit", ["grid", "patches", "pixels"])
def test_identity_attention(unit):
    statistics = heads.head_statistics(torch.eye(12).expand(2, 3, 12, 12), Grid(3, 4, (4, 4), unit=unit))
    for name, value in statistics.items():
        if name == "self_log_odds":  # all of it on the own patch: 1 to the smallest number
            expected = math.log(11) - math.log(torch.finfo(torch.float32).tiny)
            assert value.flatten().tolist() == pytest.approx([expected] * 6)
        else:
            assert value.tolist() == [[float(name in ("self_mass", "window_mass"))] * 3] * 2, name


@pytest.mark.parametrize(("unit", "step"), [("patches", 1), ("pixels", 6), ("grid", 1 / math.hypot(3, 4))])
def test_one_step_shift(unit, step):
    attention = torch.zeros(1, 1, 20, 20)
    for row in range(4):  # each patch looks at its right neighbour, the last column at its left one
        for column in range(5):
            attention[0, 0, 5 * row + column, 5 * row + (column + 1 if column < 4 else 3)] = 1
    statistics = heads.head_statistics(attention, Grid(4, 5, (3, 6), unit=unit))
    for name in ("mad", "mad_raw", "mad_without_self"):
        assert statistics[name].item() == pytest.approx(step), name
    assert statistics["entropy"].item() == statistics["self_mass"].item() == 0


@pytest.mark.parametrize("class_token", ["drop", "keep"])
@pytest.mark.parametrize(
    ("size", "prefix", "unit"), [((3, 4), 1, "grid"), ((2, 5), 2, "pixels"), ((4, 2), 0, "patches")]
)
@pytest.mark.parametrize("sharpness", [1.0, 6.0])
def test_all_statistics_against_loops(size, prefix, unit, class_token, sharpness):
    grid = Grid(*size, (2, 3), unit=unit, num_prefix_tokens=prefix, class_token=class_token)
    attention = random_attention(2, 3, grid.num_tokens, sharpness=sharpness)
    fused = heads.head_statistics(attention, grid)
    assert tuple(fused) == heads.STATISTICS
    for image in range(2):
        for head in range(3):
            slow = on_grid(attention[image, head], grid)
            for name, value in fused.items():
                assert value[image, head].item() == pytest.approx(slow[name], rel=2e-5, abs=1e-7), name


@pytest.mark.parametrize("class_token", ["drop", "keep"])
def test_single_functions_against_loops(class_token):
    grid = Grid(3, 2, (5, 2), unit="pixels", num_prefix_tokens=1, class_token=class_token)
    attention = random_attention(1, 1, 7)
    functions = {
        "mad": heads.mean_attention_distance,
        "mad_without_self": heads.mean_attention_distance_without_self,
        "mad_raw": heads.raw_mean_attention_distance,
        "entropy": heads.normalized_entropy,
        "self_mass": heads.self_mass,
        "class_mass": heads.class_token_mass,
        "window_mass": heads.window_mass,
        "self_log_odds": heads.self_log_odds,
        "class_log_odds": heads.class_log_odds,
    }
    got = {name: function(attention, grid).item() for name, function in functions.items()}
    assert got == pytest.approx(on_grid(attention[0, 0], grid), rel=1e-5)


def test_class_token_shrinks_the_raw_distance_only():
    patches = random_attention(1, 2, 6)
    attention = torch.zeros(1, 2, 7, 7)
    attention[..., 0] = 0.75
    attention[..., 1:, 1:] = 0.25 * patches
    without, grid = heads.mean_attention_distance(patches, Grid(2, 3)), Grid(2, 3, num_prefix_tokens=1)
    torch.testing.assert_close(heads.mean_attention_distance(attention, grid), without)
    torch.testing.assert_close(heads.raw_mean_attention_distance(attention, grid), without / 4)
    torch.testing.assert_close(heads.class_token_mass(attention, grid), torch.full((1, 2), 0.75))


def test_weights_far_below_rounding_of_the_diagonal_count_without_self():
    # All but 1e-12 is on the own patch, the rest on the neighbour: 1 - a_ii would be 0.
    attention = torch.eye(2)[None, None] + 1e-12 * torch.eye(2).flip(0)
    assert heads.mean_attention_distance_without_self(attention, Grid(1, 2, unit="patches")).item() == 1


@pytest.mark.parametrize("class_token", ["drop", "keep"])
@pytest.mark.parametrize("alpha", [0.5, 4.0])
def test_clipped_rows_against_loops(alpha, class_token):
    """Rows with exact zeros, that sum to less than 1, or to nothing."""
    gamma = -alpha / 17
    attention = ((1 - gamma) * random_attention(3, 4, 17, sharpness=1.5) + gamma).clamp(0, 1)
    attention[1, 0, 1:, 1:] = 0  # a head that looks at the class token only
    patches = attention[:, :, 1:, 1:].sum(-1)
    assert (attention == 0).any() and ((patches > 0) & (patches < 0.9)).any() and (patches == 0).any()
    grid = Grid(4, 4, unit="patches", num_prefix_tokens=1, class_token=class_token)
    fused = heads.head_statistics(attention, grid)
    for image in range(3):
        for head in range(4):
            slow = on_grid(attention[image, head], grid)
            for name, value in fused.items():
                assert value[image, head].item() == pytest.approx(slow[name], rel=2e-5, abs=1e-6), name


def test_a_query_that_looks_nowhere_is_not_local():
    attention = torch.zeros(1, 1, 4, 4)
    attention[..., 0, 3] = attention[..., 3, 0] = 0.1  # from end to end; the two between look nowhere
    statistics = heads.head_statistics(attention, Grid(1, 4, unit="patches"))
    assert statistics["mad"].item() == statistics["mad_without_self"].item() == pytest.approx(3)
    assert statistics["mad_raw"].item() == pytest.approx(2 * 0.3 / 4)


def test_a_weight_that_is_nan_is_seen():
    attention = torch.zeros(1, 1, 4, 4)
    attention[0, 0, 1] = torch.nan
    assert all(
        value.isnan().all()
        for value in heads.head_statistics(attention, Grid(1, 3, num_prefix_tokens=1)).values()
    )


def test_an_image_without_any_weight_on_patches_gives_0():
    attention = torch.zeros(1, 1, 3, 3)
    attention[..., 0] = 1  # all weight on the class token
    for name, value in heads.head_statistics(attention, Grid(1, 2, num_prefix_tokens=1)).items():
        if name == "class_log_odds":
            assert value.item() == pytest.approx(math.log(2) - math.log(torch.finfo(torch.float32).tiny))
        else:
            assert value.item() == float(name == "class_mass"), name


@pytest.mark.parametrize("prefix", [0, 1])
def test_a_single_patch_has_no_distances(prefix):
    attention = torch.full((1, 1, 1 + prefix, 1 + prefix), 1 / (1 + prefix))
    grid = Grid(1, 1, num_prefix_tokens=prefix)
    statistics = heads.head_statistics(attention, grid)
    assert statistics["mad"].item() == statistics["entropy"].item() == 0
    assert statistics["self_mass"].item() == 1
    assert heads.uniform_statistics(grid)["mad"] == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_sums_run_in_float32_at_least(dtype):
    attention, grid = random_attention(2, 2, 50).to(dtype), Grid(7, 7, num_prefix_tokens=1)
    exact = heads.head_statistics(attention.double(), grid)
    for name, value in heads.head_statistics(attention, grid).items():
        assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        torch.testing.assert_close(value.double(), exact[name], rtol=1e-5, atol=1e-7)


def test_autocast_does_not_reach_the_sums():
    attention = random_attention(1, 2, 16)
    expected = heads.mean_attention_distance(attention, Grid(4, 4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(heads.mean_attention_distance(attention, Grid(4, 4)), expected)


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        (Grid(2, 2, num_prefix_tokens=1), "over 4 tokens but .* 1 prefix tokens and 4 others"),
        (Grid(3, 3), "0 prefix tokens and 9 others"),
    ],
)
def test_another_geometry_is_named(grid, words):
    with pytest.raises(InputError, match=words):
        heads.mean_attention_distance(random_attention(1, 1, 4), grid)


def test_log_odds_of_uniform_attention_are_0_and_of_the_papers_numbers_known():
    """The paper's 0.008 on an 8x8 grid is about 98 % on the class token, or on the own patch: 7 to 8 nats."""
    uniform = torch.full((1, 1, 65, 65), 1 / 65)
    grid = Grid(8, 8, num_prefix_tokens=1)
    assert heads.self_log_odds(uniform, grid).item() == pytest.approx(0, abs=1e-6)
    keep = grid.measured(class_token="keep")
    assert heads.self_log_odds(uniform, keep).item() == pytest.approx(0, abs=1e-6)
    assert heads.class_log_odds(uniform, grid).item() == pytest.approx(0, abs=1e-6)
    parked = torch.full((1, 1, 65, 65), 0.02 / 64)
    parked[..., 0] = 0.98
    assert heads.class_log_odds(parked, grid).item() == pytest.approx(math.log(49) + math.log(64), rel=1e-6)
    assert heads.raw_mean_attention_distance(parked, grid).item() == pytest.approx(0.00836, abs=1e-5)
    own = torch.full((1, 1, 64, 64), 0.02 / 63) + (0.98 - 0.02 / 63) * torch.eye(64)
    assert heads.self_log_odds(own, Grid(8, 8)).item() == pytest.approx(math.log(49) + math.log(63), rel=1e-6)


def test_log_odds_are_a_mean_of_logits_and_not_the_logit_of_a_mean():
    attention = torch.tensor([[0.9, 0.1], [0.2, 0.8]])[None, None]
    expected = (math.log(9) + math.log(4)) / 2
    assert heads.self_log_odds(attention, Grid(1, 2)).item() == pytest.approx(expected, rel=1e-6)


def test_uniform_attention_has_the_windows_share_of_the_grid():
    # Of an 8x8 grid: 36 inner patches with 9 in the window, 24 on an edge with 6, 4 corners with 4.
    uniform = torch.full((1, 1, 64, 64), 1 / 64)
    expected = (36 * 9 + 24 * 6 + 4 * 4) / 64**2
    assert heads.window_mass(uniform, Grid(8, 8)).item() == pytest.approx(expected, rel=1e-6)


def test_wrong_shape_is_named():
    with pytest.raises(InputError, match=r"shape \(4, 4\)"):
        heads.self_mass(torch.eye(4), Grid(2, 2))


def hard_rows(kind):
    """Probabilities (1, 1, 17, 17) of a class token and 4x4 patches that make sums hard."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(17, 17, generator=generator, dtype=torch.float64)
    if kind == "own patch":  # all but 1e-9 of the weight
        scores += 22 * torch.eye(17, dtype=torch.float64)
    elif kind == "class token":
        scores[:, 0] += 18
    else:  # weights down to 1e-30
        scores *= 15
    return scores.softmax(-1)[None, None]


@pytest.mark.parametrize("class_token", ["drop", "keep"])
@pytest.mark.parametrize("kind", ["own patch", "class token", "sharp"])
def test_hard_rows_in_float32_as_by_loops(kind, class_token):
    attention = hard_rows(kind).float()
    grid = Grid(4, 4, unit="patches", num_prefix_tokens=1, class_token=class_token)
    expected = on_grid(attention[0, 0], grid)
    values = heads.head_statistics(attention, grid)
    for name, value in values.items():
        # Entropy is a difference: of rows that weigh 1e-8 in all it is right to some 1e-6.
        assert value.item() == pytest.approx(
            expected[name], rel=2e-5, abs=3e-6 if name == "entropy" else 0
        ), name


def test_products_are_in_full_precision_whatever_is_set():
    """Even where the user lets float32 products be made in bfloat16, as CPUs with AMX then do."""
    attention = random_attention(64, 2, 65)
    grid = Grid(8, 8, num_prefix_tokens=1)
    before = heads.head_statistics(attention, grid)
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16):
            after = heads.head_statistics(attention, grid)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    for name, value in before.items():
        assert torch.equal(value, after[name]), name
