"""What attention heads look at: pure functions of attention probabilities.

Every function takes ``attention`` (B, H, N, N): for each of B images and H heads, rows are queries,
columns keys, and the N tokens are ``num_prefix_tokens`` prefix tokens (the class token, if any)
followed by the patches of the grid, row by row. Each gives (B, H): the mean over patch queries; a
prefix token is never a query. Sums run in float32, or float64 if that is what comes in.

``class_token`` says what becomes of the prefix tokens as keys:

- ``"drop"``: they are left out, and each row is renormalised over the patches;
- ``"keep"``: they are keys like the others, with no place on the grid, at distance 0 from every patch.

A row without any weight on the keys that count contributes 0.
"""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from vitlocal.errors import InputError

Unit = Literal["grid", "patches", "pixels"]
ClassToken = Literal["drop", "keep"]
GridSize = tuple[int, int]

STATISTICS = ("mad", "entropy", "self_mass", "mad_without_self", "class_mass", "mad_raw")


def pairwise_distances(
    grid_size: GridSize,
    unit: Unit = "grid",
    patch_size: tuple[int, int] | None = None,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Euclidean distances between patch centres.

    Args:
        grid_size: rows and columns of patches, P in all.
        unit: ``"patches"``: one step to a neighbour is 1; ``"grid"``: the same over the grid's largest
            distance, so 1 is corner to corner; ``"pixels"``: one step is the patch's height or width.
        patch_size: height and width of a patch in pixels; needed for ``"pixels"`` only.
        device: where to make them.
        dtype: their floating-point type.

    Returns:
        (P, P), symmetric, zeros on the diagonal. All zeros for a 1x1 grid, in every unit.

    Raises:
        InputError: an unknown unit, or pixels without a patch size.
    """
    if unit not in get_args(Unit):
        raise InputError(f"unit is {unit!r}: it must be one of {', '.join(get_args(Unit))}")
    if unit == "pixels" and patch_size is None:
        raise InputError("unit is 'pixels' but patch_size is not given: give the patch's height and width")
    height, width = patch_size if unit == "pixels" and patch_size else (1, 1)
    rows, columns = grid_size
    y = torch.arange(rows, device=device, dtype=dtype).mul(height).repeat_interleave(columns)
    x = torch.arange(columns, device=device, dtype=dtype).mul(width).repeat(rows)
    distances = torch.hypot(y[:, None] - y, x[:, None] - x)
    if unit == "grid" and len(distances) > 1:
        distances /= math.hypot(rows - 1, columns - 1)
    return distances


def uniform_mad(
    grid_size: GridSize,
    unit: Unit = "grid",
    patch_size: tuple[int, int] | None = None,
    num_prefix_tokens: int = 0,
    class_token: ClassToken = "drop",
) -> float:
    """Mean attention distance of a head that attends to every key alike: the reference to draw.

    >>> round(uniform_mad((8, 8)), 3)
    0.418
    """
    tokens = num_prefix_tokens + math.prod(grid_size)
    uniform = torch.ones((), dtype=torch.float64).expand(1, 1, tokens, tokens)
    return mean_attention_distance(
        uniform, grid_size, num_prefix_tokens, unit=unit, patch_size=patch_size, class_token=class_token
    ).item()


def mean_attention_distance(
    attention: Tensor,
    grid_size: GridSize,
    num_prefix_tokens: int = 0,
    unit: Unit = "grid",
    patch_size: tuple[int, int] | None = None,
    class_token: ClassToken = "drop",
) -> Tensor:
    """Mean attention distance (MAD), sum_j a_ij |p_i - p_j| (Dosovitskiy et al. 2021, figure 7).

    Args:
        attention: probabilities (B, H, N, N).
        grid_size: rows and columns of patches.
        num_prefix_tokens: tokens before the patches.
        unit: of the result, see :func:`pairwise_distances`.
        patch_size: height and width of a patch in pixels; for ``"pixels"``.
        class_token: prefix tokens as keys, see the module.

    Returns:
        (B, H), in ``unit``: 0 where every patch looks at itself only.

    Raises:
        InputError: sizes that do not fit each other, or an unknown choice.
    """
    patches, keys = _patch_rows(attention, num_prefix_tokens, class_token, grid_size)
    return _mean_ratio(_reach(patches, _distances_for(patches, grid_size, unit, patch_size)), keys.sum(-1))


def raw_mean_attention_distance(
    attention: Tensor,
    grid_size: GridSize,
    num_prefix_tokens: int = 0,
    unit: Unit = "grid",
    patch_size: tuple[int, int] | None = None,
) -> Tensor:
    """MAD of the weights as they are, (B, H): nothing renormalised, prefix tokens at distance 0.

    Weight on the class token shrinks it. For softmax attention, whose rows sum to 1, it equals MAD
    with ``class_token="keep"``. Arguments as in :func:`mean_attention_distance`.
    """
    patches, _ = _patch_rows(attention, num_prefix_tokens, "drop", grid_size)
    return _reach(patches, _distances_for(patches, grid_size, unit, patch_size)).mean(-1)


def mean_attention_distance_without_self(
    attention: Tensor,
    grid_size: GridSize,
    num_prefix_tokens: int = 0,
    unit: Unit = "grid",
    patch_size: tuple[int, int] | None = None,
    class_token: ClassToken = "drop",
) -> Tensor:
    """MAD over the keys other than the query's own patch, rows renormalised over them, (B, H).

    Tells a head that looks at its neighbours from one that looks at its own patch. Arguments as in
    :func:`mean_attention_distance`.
    """
    patches, keys = _patch_rows(attention, num_prefix_tokens, class_token, grid_size)
    reach = _reach(patches, _distances_for(patches, grid_size, unit, patch_size))
    return _mean_ratio(reach, _weight_without_self(keys))


def normalized_entropy(
    attention: Tensor, num_prefix_tokens: int = 0, class_token: ClassToken = "drop"
) -> Tensor:
    """Entropy of the rows over its largest value, -sum_j a_ij ln a_ij / ln K with 0 ln 0 = 0.

    Args:
        attention: probabilities (B, H, N, N).
        num_prefix_tokens: tokens before the patches.
        class_token: prefix tokens as keys; K is the number of keys that count.

    Returns:
        (B, H): 0 for one-hot rows, 1 for uniform ones; 0 where there is a single key.

    Raises:
        InputError: sizes that do not fit each other, or an unknown choice.
    """
    _, keys = _patch_rows(attention, num_prefix_tokens, class_token)
    return _entropy(keys, keys.sum(-1))


def self_mass(attention: Tensor, num_prefix_tokens: int = 0, class_token: ClassToken = "drop") -> Tensor:
    """Weight of a row on the query's own patch, (B, H): 1 where every patch looks at itself only.

    Arguments as in :func:`normalized_entropy`.
    """
    patches, keys = _patch_rows(attention, num_prefix_tokens, class_token)
    return _mean_ratio(_own_weight(patches), keys.sum(-1))


def class_token_mass(attention: Tensor, num_prefix_tokens: int = 0) -> Tensor:
    """Weight that patch queries put on the prefix tokens, (B, H); 0 where there are none."""
    prefix = _at_least_float32(attention[..., num_prefix_tokens:, :num_prefix_tokens])
    return prefix.sum(-1).mean(-1)


def head_statistics(
    attention: Tensor,
    grid_size: GridSize,
    num_prefix_tokens: int = 0,
    unit: Unit = "grid",
    patch_size: tuple[int, int] | None = None,
    class_token: ClassToken = "drop",
) -> dict[str, Tensor]:
    """All of this module's statistics at once, sharing what they have in common.

    Arguments as in :func:`mean_attention_distance`.

    Returns:
        A (B, H) tensor for each name in ``STATISTICS``, in that order.
    """
    patches, keys = _patch_rows(attention, num_prefix_tokens, class_token, grid_size)
    reach = _reach(patches, _distances_for(patches, grid_size, unit, patch_size))
    weight = keys.sum(-1)
    return {
        "mad": _mean_ratio(reach, weight),
        "entropy": _entropy(keys, weight),
        "self_mass": _mean_ratio(_own_weight(patches), weight),
        "mad_without_self": _mean_ratio(reach, _weight_without_self(keys)),
        "class_mass": class_token_mass(attention, num_prefix_tokens),
        "mad_raw": reach.mean(-1),
    }


# Below, P is the number of patches and K that of the keys that count; of K keys, the last P are patches.


def _patch_rows(
    attention: Tensor, num_prefix_tokens: int, class_token: ClassToken, grid_size: GridSize | None = None
) -> tuple[Tensor, Tensor]:
    """Rows of the patch queries: over the patches (B, H, P, P) and over the keys that count (B, H, P, K)."""
    if class_token not in get_args(ClassToken):
        raise InputError(
            f"class_token is {class_token!r}: it must be one of {', '.join(get_args(ClassToken))}"
        )
    if attention.ndim != 4 or attention.shape[-2] != attention.shape[-1]:
        raise InputError(f"attention has shape {tuple(attention.shape)}: it must be (B, H, N, N)")
    if grid_size is not None and attention.shape[-1] != num_prefix_tokens + math.prod(grid_size):
        raise InputError(
            f"attention is over {attention.shape[-1]} tokens but {num_prefix_tokens} prefix tokens and "
            f"{grid_size[0]}x{grid_size[1]} patches were given: they must add up"
        )
    rows = _at_least_float32(attention[..., num_prefix_tokens:, :])
    patches = rows[..., num_prefix_tokens:]
    return patches, rows if class_token == "keep" else patches


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _distances_for(
    patches: Tensor, grid_size: GridSize, unit: Unit, patch_size: tuple[int, int] | None
) -> Tensor:
    return pairwise_distances(grid_size, unit, patch_size, device=patches.device, dtype=patches.dtype)


def _reach(patches: Tensor, distances: Tensor) -> Tensor:
    """sum_j a_ij |p_i - p_j| of each row, (B, H, P)."""
    # Not a matrix product: autocast would run that in bfloat16, and "high" matmul precision in TF32.
    return (patches * distances).sum(-1)


def _own_weight(patches: Tensor) -> Tensor:
    """a_ii of each row, (B, H, P)."""
    return patches.diagonal(dim1=-2, dim2=-1)


def _weight_without_self(keys: Tensor) -> Tensor:
    """sum_(j != i) a_ij of each row, (B, H, P)."""
    # Summed, not 1 - a_ii: of a head that looks at its own patch almost only, that leaves rounding errors.
    queries, count = keys.shape[-2:]
    own = torch.eye(count, dtype=torch.bool, device=keys.device)[count - queries :]
    return keys.masked_fill(own, 0).sum(-1)


def _entropy(keys: Tensor, weight: Tensor) -> Tensor:
    """Normalised entropy, (B, H), of rows (B, H, P, K) that have this weight in all (B, H, P)."""
    count = keys.shape[-1]
    entropy = torch.special.entr(_ratio(keys, weight[..., None])).sum(-1)
    return entropy.mean(-1) / (math.log(count) if count > 1 else 1.0)


def _mean_ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Mean over queries of part / whole: (B, H, P) to (B, H)."""
    return _ratio(part, whole).mean(-1)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Part / whole; a whole of 0 has parts of 0 only, and their ratio is 0."""
    return part / whole.masked_fill(whole == 0, 1)
