"""What attention heads look at: pure functions of attention probabilities.

Every function takes ``attention`` (B, H, N, N): for each of B images and H heads, rows are queries,
columns keys, and the N tokens are ``num_prefix_tokens`` prefix tokens (the class token, if any)
followed by the patches of the grid, row by row. Rows may sum to anything, as those of clipped softmax
do. Each gives (B, H): the mean over patch queries; a prefix token is never a query. Sums run in float32,
or float64 if that is what comes in.

``class_token`` says what becomes of the prefix tokens as keys:

- ``"drop"``: they are left out, and each row is renormalised over the patches;
- ``"keep"``: they are keys like the others, with no place on the grid, at distance 0 from every patch.

What is renormalised is a mean over the rows with some weight on the keys that count: a query that looks
nowhere has no distance, and would pass for a local one at 0. An image of which no row has any gives 0; then
``self_mass`` is 0 too, which it is not for a head that looks at its own patch. ``class_token_mass`` and
``raw_mean_attention_distance`` renormalise nothing and are means over all rows.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from vitlocal.errors import InputError
from vitlocal.internals import float32_products

Unit = Literal["grid", "patches", "pixels"]
ClassToken = Literal["drop", "keep"]
GridSize = tuple[int, int]

STATISTICS = (
    "mad",
    "entropy",
    "self_mass",
    "mad_without_self",
    "class_mass",
    "mad_raw",
    "window_mass",
    "self_log_odds",
    "class_log_odds",
)


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
    sums = _row_sums(attention, num_prefix_tokens, class_token, grid_size, unit, patch_size)
    return _mean(_ratio(sums.reach, sums.weight), sums.weight)


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
    return _row_sums(attention, num_prefix_tokens, "drop", grid_size, unit, patch_size).reach.mean(0)


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
    sums = _row_sums(attention, num_prefix_tokens, class_token, grid_size, unit, patch_size)
    return _mean(_ratio(sums.reach, sums.others), sums.others)


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
    weight = _row_sums(attention, num_prefix_tokens, class_token).weight
    return _mean(_entropy(_at_least_float32(attention), num_prefix_tokens, class_token, weight), weight)


def self_mass(attention: Tensor, num_prefix_tokens: int = 0, class_token: ClassToken = "drop") -> Tensor:
    """Weight of a row on the query's own patch, (B, H): 1 where every patch looks at itself only.

    Arguments as in :func:`normalized_entropy`.
    """
    sums = _row_sums(attention, num_prefix_tokens, class_token)
    return _mean(_ratio(sums.own, sums.weight), sums.weight)


def class_token_mass(attention: Tensor, num_prefix_tokens: int = 0) -> Tensor:
    """Weight that patch queries put on the prefix tokens, (B, H); 0 where there are none."""
    return _row_sums(attention, num_prefix_tokens, "drop").prefix.mean(0)


def window_mass(
    attention: Tensor, grid_size: GridSize, num_prefix_tokens: int = 0, class_token: ClassToken = "drop"
) -> Tensor:
    """Weight of a row within one step of the query's own patch, diagonal steps and itself included, (B, H).

    Arguments as in :func:`mean_attention_distance`.
    """
    sums = _row_sums(attention, num_prefix_tokens, class_token, grid_size)
    return _mean(_ratio(sums.window, sums.weight), sums.weight)


def self_log_odds(attention: Tensor, num_prefix_tokens: int = 0, class_token: ClassToken = "drop") -> Tensor:
    """Log-odds of the weight on the query's own patch over those of uniform attention, in nats, (B, H).

    The mean over rows of logit(a_ii) - logit(1 / K), K the number of keys that count: 0 for uniform
    attention, 8 where 98 % are on the own patch of 64. A weight of exactly 0 counts as the smallest normal
    number, 1.2e-38 in float32. 0 where there is a single key. Arguments as in :func:`normalized_entropy`.
    """
    sums = _row_sums(attention, num_prefix_tokens, class_token)
    return _mean(_self_log_odds(sums), sums.weight)


def class_log_odds(attention: Tensor, num_prefix_tokens: int = 0) -> Tensor:
    """The same of the weight on the prefix tokens, among all tokens, (B, H); 0 where there are none."""
    sums = _row_sums(attention, num_prefix_tokens, "drop")
    return _mean(_class_log_odds(sums, num_prefix_tokens), sums.total)


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
    attention = _at_least_float32(attention)
    sums = _row_sums(attention, num_prefix_tokens, class_token, grid_size, unit, patch_size)
    weight = sums.weight
    rows = {
        "mad": _ratio(sums.reach, weight),
        "entropy": _entropy(attention, num_prefix_tokens, class_token, weight),
        "self_mass": _ratio(sums.own, weight),
        "mad_without_self": _ratio(sums.reach, sums.others),
        "class_mass": sums.prefix,
        "mad_raw": sums.reach,
        "window_mass": _ratio(sums.window, weight),
        "self_log_odds": _self_log_odds(sums),
        "class_log_odds": _class_log_odds(sums, num_prefix_tokens),
    }
    # Of each statistic, the weights without which a row has none. At once: small operations add up.
    every = weight.new_ones(()).expand_as(weight)
    counted = {"mad_without_self": sums.others, "class_mass": every, "mad_raw": every}
    counted["class_log_odds"] = sums.total
    whole = torch.stack([counted.get(name, weight) for name in STATISTICS], dim=1)
    means = _mean(torch.stack([rows[name] for name in STATISTICS], dim=1), whole)
    return dict(zip(STATISTICS, means, strict=True))


@contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """Within the block, matrix products of float32 are in float32: no autocast, TF32 or bfloat16."""
    with float32_products(device), torch.autocast(device.type, enabled=False):
        yield


# Below, P is the number of patches, N that of all tokens; the last P tokens are the patches.


class _RowSums(NamedTuple):
    """What the rows of the patch queries add up to, each (P, B, H).

    Attributes:
        reach: sum_j a_ij |p_i - p_j|.
        window: weight within one step of the query's own patch, itself included.
        other_patches: weight on the other patches.
        own: weight on the query's own patch, a_ii.
        prefix: weight on the prefix tokens.
        others: weight on the keys that count, without the query's own patch.
        keys: number of keys that count.
    """

    reach: Tensor
    window: Tensor
    other_patches: Tensor
    own: Tensor
    prefix: Tensor
    others: Tensor
    keys: int

    @property
    def weight(self) -> Tensor:
        """Weight on the keys that count."""
        return self.others + self.own

    @property
    def total(self) -> Tensor:
        """Weight on all tokens."""
        return self.other_patches + self.own + self.prefix


def _row_sums(
    attention: Tensor,
    num_prefix_tokens: int,
    class_token: ClassToken,
    grid_size: GridSize | None = None,
    unit: Unit = "patches",
    patch_size: tuple[int, int] | None = None,
) -> _RowSums:
    """One pass over the rows of the patch queries; without a grid, distances mean nothing."""
    if class_token not in get_args(ClassToken):
        raise InputError(
            f"class_token is {class_token!r}: it must be one of {', '.join(get_args(ClassToken))}"
        )
    if attention.ndim != 4 or attention.shape[-2] != attention.shape[-1]:
        raise InputError(f"attention has shape {tuple(attention.shape)}: it must be (B, H, N, N)")
    tokens = attention.shape[-1]
    if grid_size is None:
        grid_size = (1, tokens - num_prefix_tokens)
    if tokens != num_prefix_tokens + math.prod(grid_size):
        raise InputError(
            f"attention is over {tokens} tokens but {num_prefix_tokens} prefix tokens and "
            f"{grid_size[0]}x{grid_size[1]} patches were given: they must add up"
        )
    attention = _at_least_float32(attention)
    terms = _terms(
        tuple(grid_size),
        num_prefix_tokens,
        unit,
        None if patch_size is None else tuple(patch_size),
        attention.device,
        attention.dtype,
    )
    # For each query, the terms times its rows in all images and heads: (P, 5, B H).
    rows = attention.flatten(0, 1)[:, num_prefix_tokens:].permute(1, 2, 0)
    with exact_products(attention.device):
        sums = torch.bmm(terms, rows)
    reach, window, patches, own, prefix = sums.unflatten(2, attention.shape[:2]).unbind(1)
    kept = class_token == "keep"
    others = patches + prefix if kept else patches
    keys = tokens if kept else tokens - num_prefix_tokens
    return _RowSums(reach, window, patches, own, prefix, others, keys)


@lru_cache(maxsize=8)
def _terms(
    grid_size: GridSize,
    num_prefix_tokens: int,
    unit: Unit,
    patch_size: tuple[int, int] | None,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """For each query and key, what the key's weight counts in the first five of ``_RowSums``: (P, 5, N)."""
    with torch.inference_mode(False), torch.no_grad():  # kept, so it must do in training too
        distances = pairwise_distances(grid_size, unit, patch_size, device=device, dtype=dtype)
        own = torch.eye(len(distances), device=device, dtype=dtype)
        steps = pairwise_distances(grid_size, "patches", device=device, dtype=dtype)
        window = (steps < 1.5).to(dtype)  # a diagonal step is 1.41
        patches = torch.stack([distances, window, 1 - own, own, torch.zeros_like(own)], dim=1)
        prefix = patches.new_tensor([0, 0, 0, 0, 1])[:, None]
        return torch.cat([prefix.expand(len(patches), -1, num_prefix_tokens), patches], dim=2)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _entropy(attention: Tensor, num_prefix_tokens: int, class_token: ClassToken, weight: Tensor) -> Tensor:
    """Normalised entropy of rows that have this weight on the keys that count, both (P, B, H).

    -sum_j (a_ij / w) ln (a_ij / w) = ln w - (sum_j a_ij ln a_ij) / w: no pass to renormalise.
    """
    first = num_prefix_tokens if class_token == "drop" else 0
    # Of the whole matrix, which is contiguous. torch.special.entr and xlogy are five times as slow on a CPU.
    terms = attention.log().mul_(attention)[..., num_prefix_tokens:, first:]
    # 0 ln 0 = 0, here NaN. (A weight that is NaN itself makes the row's weight NaN.)
    expected = _ratio(terms.nansum(-1).permute(2, 0, 1), weight)
    # Rounding may leave less than nothing of one-hot rows, and ln 0 of those without weight.
    entropy = (_positive(weight).log() - expected).clamp_(min=0)
    return entropy / math.log(max(terms.shape[-1], 2))


def _log_odds(part: Tensor, rest: Tensor, uniform: float) -> Tensor:
    """ln(part / rest) - ln(uniform), 0 where there is neither; from the sums, since 1 - part rounds."""
    odds = _positive(part).log() - _positive(rest).log() - math.log(uniform)
    return odds.masked_fill_(part + rest == 0, 0)


def _self_log_odds(sums: _RowSums) -> Tensor:
    return _log_odds(sums.own, sums.others, 1 / (sums.keys - 1)) if sums.keys > 1 else sums.others * 0


def _class_log_odds(sums: _RowSums, num_prefix_tokens: int) -> Tensor:
    if num_prefix_tokens == 0:
        return sums.prefix * 0  # not new zeros: a weight that is NaN has to be seen
    patches = sums.other_patches + sums.own
    return _log_odds(sums.prefix, patches, num_prefix_tokens / len(patches))


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean over the rows, the first dimension, that have any weight; 0 where none has."""
    return values.sum(0) / weight.ne(0).sum(0).clamp_(min=1)  # NaN counts, to be seen


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Part / whole; a whole of 0 has parts of 0 only, and their ratio is 0."""
    return part / _positive(whole)


def _positive(x: Tensor) -> Tensor:
    return x.clamp(min=torch.finfo(x.dtype).tiny)
