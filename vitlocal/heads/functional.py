"""What attention heads look at: pure functions of attention probabilities.

Every function takes ``attention`` (B, H, N, N): for each of B images and H heads, rows are queries,
columns keys; and the :class:`~vitlocal.geometry.Geometry` of the N tokens, which says where they are, which
of them a query sees, in what unit distances are, and what becomes of prefix tokens, such as a class token, as
keys. Rows may sum to anything, as those of clipped softmax do. Each gives (B, H): the mean over queries; a
prefix token is never a query. Weight on keys that a query does not see, and rows of queries that see nothing,
are left out. Sums run in float32, or float64 if that is what comes in.

What is renormalised is a mean over the rows with some weight on the keys that count: a query that looks
nowhere has no distance, and would pass for a local one at 0. An image of which no row has any gives 0; then
``self_mass`` is 0 too, which it is not for a head that looks at its own patch. ``class_token_mass`` and
``raw_mean_attention_distance`` renormalise nothing and are means over all rows. Below, a token that is no
prefix token is called a patch, whatever it is.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, reduce
from typing import NamedTuple

import torch
from torch import Tensor

from vitlocal.errors import InputError
from vitlocal.geometry import Geometry, Graph
from vitlocal.internals import exact_products

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


def mean_attention_distance(attention: Tensor, geometry: Geometry) -> Tensor:
    """Mean attention distance (MAD), sum_j a_ij |p_i - p_j| (Dosovitskiy et al. 2021, figure 7).

    Args:
        attention: probabilities (B, H, N, N).
        geometry: of the N tokens.

    Returns:
        (B, H), in the geometry's unit: 0 where every patch looks at itself only.

    Raises:
        InputError: the attention is not over the geometry's tokens.
    """
    return _measure(attention, geometry, ["mad"])[0]


def raw_mean_attention_distance(attention: Tensor, geometry: Geometry) -> Tensor:
    """MAD of the weights as they are, (B, H): nothing renormalised, prefix tokens at distance 0.

    Weight on the class token shrinks it. For softmax attention, whose rows sum to 1, it equals MAD
    with ``class_token="keep"``. Arguments as in :func:`mean_attention_distance`.
    """
    return _measure(attention, geometry, ["mad_raw"])[0]


def mean_attention_distance_without_self(attention: Tensor, geometry: Geometry) -> Tensor:
    """MAD over the keys other than the query's own patch, rows renormalised over them, (B, H).

    Tells a head that looks at its neighbours from one that looks at its own patch. Arguments as in
    :func:`mean_attention_distance`.
    """
    return _measure(attention, geometry, ["mad_without_self"])[0]


def normalized_entropy(attention: Tensor, geometry: Geometry) -> Tensor:
    """Entropy of the rows over its largest value, -sum_j a_ij ln a_ij / ln K_i with 0 ln 0 = 0.

    K_i is the number of keys that count and that query i sees. A query that sees a single one has no entropy
    and is left out. Arguments as in :func:`mean_attention_distance`.

    Returns:
        (B, H): 0 for one-hot rows, 1 for uniform ones; 0 where every query sees a single key.
    """
    return _measure(attention, geometry, ["entropy"])[0]


def self_mass(attention: Tensor, geometry: Geometry) -> Tensor:
    """Weight of a row on the query's own patch, (B, H): 1 where every patch looks at itself only.

    Arguments as in :func:`mean_attention_distance`.
    """
    return _measure(attention, geometry, ["self_mass"])[0]


def class_token_mass(attention: Tensor, geometry: Geometry) -> Tensor:
    """Weight that patch queries put on the prefix tokens, (B, H); 0 where there are none."""
    return _measure(attention, geometry, ["class_mass"])[0]


def window_mass(attention: Tensor, geometry: Geometry) -> Tensor:
    """Weight of a row within one step of the query's own patch, itself included, (B, H).

    On a grid, diagonal steps count. Arguments as in :func:`mean_attention_distance`.
    """
    return _measure(attention, geometry, ["window_mass"])[0]


def self_log_odds(attention: Tensor, geometry: Geometry) -> Tensor:
    """Log-odds of the weight on the query's own patch over those of uniform attention, in nats, (B, H).

    The mean over rows of logit(a_ii) - logit(1 / K_i), K_i as in :func:`normalized_entropy`: 0 for uniform
    attention, 8 where 98 % are on the own patch of 64. A weight of exactly 0 counts as the smallest normal
    number, 1.2e-38 in float32. A query that sees a single key is left out.
    """
    return _measure(attention, geometry, ["self_log_odds"])[0]


def class_log_odds(attention: Tensor, geometry: Geometry) -> Tensor:
    """The same of the weight on the prefix tokens, among all tokens, (B, H); 0 where there are none."""
    return _measure(attention, geometry, ["class_log_odds"])[0]


def head_statistics(attention: Tensor, geometry: Geometry) -> dict[str, Tensor]:
    """All of this module's statistics at once, sharing what they have in common.

    Arguments as in :func:`mean_attention_distance`.

    Returns:
        A (B, H) tensor for each name in ``STATISTICS``, in that order.
    """
    return dict(zip(STATISTICS, _measure(attention, geometry, STATISTICS), strict=True))


def uniform_statistics(geometry: Geometry) -> dict[str, float]:
    """The statistics of a head that attends alike to every key that a query sees: the reference to draw.

    >>> from vitlocal.geometry import Grid, Sequence
    >>> round(uniform_statistics(Grid(8, 8))["mad"], 3)
    0.418
    >>> uniform_statistics(Sequence(9, causal=True))["mad"]  # half the past: a mean of i / 2
    2.0
    """

    blocks = (_Rows(uniform_rows(geometry, queries), geometry, queries) for queries in geometry.queries())
    # Without the last digits, which differ from one processor to another, equal geometries have equal values.
    values = (round(value, 12) for value in _means(blocks, STATISTICS).flatten().tolist())
    return dict(zip(STATISTICS, values, strict=True))


def uniform_rows(geometry: Geometry, queries: Tensor) -> Tensor:
    """The rows of a head that attends alike to all that a query sees: float64 (1, 1, Q, N)."""
    visible = geometry.visible(queries).double()
    return (visible / visible.sum(1, keepdim=True).clamp(min=1))[None, None]


def query_sums(rows: Tensor, graph: Graph, queries: Tensor) -> tuple[Tensor, Tensor]:
    """Of some queries' rows, the sum of each statistic, and of the weight at each distance that is seen.

    Args:
        rows: (B, H, Q, N).
        graph: of the N nodes.
        queries: which rows they are, (Q,).

    Returns:
        The sums, and over how many queries each is: both (S, B, H), with a statistic for each name in
        ``STATISTICS``, then the weight at 0 to ``graph.num_hops`` edges, where that is given.
    """
    of = _Rows(rows.to(torch.promote_types(rows.dtype, torch.float32)), graph, queries)
    found = [getattr(of, name)() for name in STATISTICS]
    if graph.num_hops is not None:
        visible, reach = graph.visible(queries), of.terms.products[:, 0]
        for hops in range(graph.num_hops + 1):
            at = ((reach == hops) & visible).to(of.attention.dtype)
            mass = torch.einsum("bhqn,qn->qbh", of.attention, at)
            found.append((_ratio(mass, of.weight), of.weight))
    values, weights = (torch.stack(each) for each in zip(*found, strict=True))
    return values.sum(1), weights.ne(0).sum(1)


# Below, Q is the number of queries in a block, N that of tokens.


def _measure(attention: Tensor, geometry: Geometry, names: Sequence[str]) -> Tensor:
    """The named statistics of probabilities, (S, B, H)."""
    if attention.ndim != 4 or attention.shape[-2] != attention.shape[-1]:
        raise InputError(f"attention has shape {tuple(attention.shape)}: it must be (B, H, N, N)")
    if attention.shape[-1] != geometry.num_tokens:
        raise InputError(
            f"attention is over {attention.shape[-1]} tokens but {geometry} has "
            f"{geometry.num_prefix_tokens} prefix tokens and {geometry.num_places} others: they must add up"
        )
    attention = attention.to(torch.promote_types(attention.dtype, torch.float32))

    def blocks() -> Iterator[_Rows]:
        first = geometry.num_prefix_tokens
        for queries in geometry.queries(attention.device):
            last = first + len(queries)
            yield _Rows(attention[:, :, first:last], geometry, queries)
            first = last

    return _means(blocks(), names)


def _means(blocks: Iterable["_Rows"], names: Sequence[str]) -> Tensor:
    """Means over the rows that have any weight, (S, B, H); 0 where none has."""
    parts = []
    for block in blocks:
        # All statistics at once: small operations add up.
        values, weights = (
            torch.stack(each, dim=1) for each in zip(*(getattr(block, name)() for name in names), strict=True)
        )
        parts.append((values.sum(0), weights.ne(0).sum(0)))  # NaN counts, to be seen
    total, counted = (reduce(torch.add, each) for each in zip(*parts, strict=True))
    return total / counted.clamp_(min=1)


class _Rows:
    """What the rows of a block of queries add up to, each (Q, B, H), and what statistics make of it.

    A statistic gives its value for each row, and the weight without which a row has none.

    Args:
        attention: (B, H, Q, N).
        geometry: of the N tokens.
        queries: which rows they are.
    """

    def __init__(self, attention: Tensor, geometry: Geometry, queries: Tensor) -> None:
        terms = _terms(geometry, queries, attention.dtype)
        if terms.visible is not None:
            attention = attention.where(terms.visible, 0)
        self.attention, self.geometry, self.terms = attention, geometry, terms
        # For each query, the products times its rows in all images and heads: (Q, 5, B H).
        with exact_products(attention.device):
            sums = torch.bmm(terms.products, attention.flatten(0, 1).permute(1, 2, 0))
        self.reach, self.window, self.other_patches, self.own, self.prefix = sums.unflatten(
            2, attention.shape[:2]
        ).unbind(1)
        kept = geometry.class_token == "keep"
        self.others = self.other_patches + self.prefix if kept else self.other_patches
        self.weight = self.others + self.own  # on the keys that count

    def mad(self) -> tuple[Tensor, Tensor]:
        return _ratio(self.reach, self.weight), self.weight

    def mad_raw(self) -> tuple[Tensor, Tensor]:
        return self.reach, self.terms.sees.expand_as(self.weight)

    def mad_without_self(self) -> tuple[Tensor, Tensor]:
        return _ratio(self.reach, self.others), self.others

    def self_mass(self) -> tuple[Tensor, Tensor]:
        return _ratio(self.own, self.weight), self.weight

    def class_mass(self) -> tuple[Tensor, Tensor]:
        return self.prefix, self.terms.sees.expand_as(self.weight)

    def window_mass(self) -> tuple[Tensor, Tensor]:
        return _ratio(self.window, self.weight), self.weight

    def entropy(self) -> tuple[Tensor, Tensor]:
        # -sum_j (a_ij / w) ln (a_ij / w) = ln w - (sum_j a_ij ln a_ij) / w: no pass to renormalise.
        first = self.geometry.num_prefix_tokens if self.geometry.class_token == "drop" else 0
        # torch.special.entr and xlogy are five times as slow on a CPU.
        terms = self.attention.log().mul_(self.attention)[..., first:]
        # 0 ln 0 = 0, here NaN. (A weight that is NaN itself makes the row's weight NaN.)
        expected = _ratio(terms.nansum(-1).permute(2, 0, 1), self.weight)
        # Rounding may leave less than nothing of one-hot rows, and ln 0 of those without weight.
        entropy = (_positive(self.weight).log() - expected).clamp_(min=0)
        return entropy / self.terms.log_keys * self.terms.choice, self.weight * self.terms.choice

    def self_log_odds(self) -> tuple[Tensor, Tensor]:
        odds = _log_odds(self.own, self.others, self.terms.self_odds)
        return odds * self.terms.choice, self.weight * self.terms.choice

    def class_log_odds(self) -> tuple[Tensor, Tensor]:
        total = self.other_patches + self.own + self.prefix
        if not self.geometry.num_prefix_tokens:
            return self.prefix * 0, total  # not new zeros: a weight that is NaN has to be seen
        return _log_odds(self.prefix, self.other_patches + self.own, self.terms.class_odds), total


class _Terms(NamedTuple):
    """What a geometry says of a block of queries; the last five are (Q, 1, 1).

    Attributes:
        products: (Q, 5, N), what a key's weight counts in each of the five sums.
        visible: (Q, N) bool, which keys count at all; None for all.
        sees: 1 where the query sees anything, else 0.
        choice: 1 where it sees more than one key that counts, else 0.
        log_keys: ln of their number.
        self_odds: log-odds of uniform attention of the query itself.
        class_odds: the same of the prefix tokens.
    """

    products: Tensor
    visible: Tensor | None
    sees: Tensor
    choice: Tensor
    log_keys: Tensor
    self_odds: Tensor
    class_odds: Tensor


def _terms(geometry: Geometry, queries: Tensor, dtype: torch.dtype) -> _Terms:
    if len(queries) == geometry.num_places:
        return _whole_terms(geometry, queries.device, dtype)
    return _make_terms(geometry, queries, dtype)


@lru_cache(maxsize=8)
def _whole_terms(geometry: Geometry, device: torch.device, dtype: torch.dtype) -> _Terms:
    with torch.inference_mode(False), torch.no_grad():  # kept, so it must do in training too
        (queries,) = geometry.queries(device)
        return _make_terms(geometry, queries, dtype)


def _make_terms(geometry: Geometry, queries: Tensor, dtype: torch.dtype) -> _Terms:
    prefix = geometry.num_prefix_tokens
    visible = geometry.visible(queries)
    tokens = torch.arange(geometry.num_tokens, device=queries.device)
    own = (queries[:, None] == tokens).to(dtype)
    before = (tokens < prefix).to(dtype).expand_as(own)
    # Elsewhere a distance may be infinite, and 0 times that is none.
    distances = geometry.distances(queries, dtype).where(visible, 0)
    window = geometry.neighbours(queries).to(dtype)
    products = torch.stack([distances, window, 1 - own - before, own, before], dim=1)
    # On the CPU, since not every device has float64.
    patches = visible[:, prefix:].sum(1).cpu().double()
    keys = patches + prefix if geometry.class_token == "keep" else patches
    logs = (keys.clamp(min=2).log(), -(keys - 1).clamp(min=1).log(), (prefix / patches).log())
    facts = (fact.to(queries.device, dtype)[:, None, None] for fact in (patches > 0, keys > 1, *logs))
    return _Terms(products, None if geometry.sees_all else visible, *facts)


def _log_odds(part: Tensor, rest: Tensor, uniform: Tensor) -> Tensor:
    """ln(part / rest) - uniform, 0 where there is neither; from the sums, since 1 - part rounds."""
    odds = _positive(part).log() - _positive(rest).log() - uniform
    return odds.masked_fill_(part + rest == 0, 0)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Part / whole; a whole of 0 has parts of 0 only, and their ratio is 0."""
    return part / _positive(whole)


def _positive(x: Tensor) -> Tensor:
    return x.clamp(min=torch.finfo(x.dtype).tiny)
