"""Statistics over runs: intervals, effects of the protocol's components, and the paper's gap.

scipy and statsmodels compute; here is only what is put into them and when it means nothing. Intervals
cover 95 %. What can't be known, such as an interval from one seed, is NaN.
"""

import itertools
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit, logit

from vitlocal.study import sequences
from vitlocal.study.results import FACTORS, last_epoch

LEVEL = 0.95
MEASURES = {
    "mad_min": "minimum MAD",
    "self_mass_of_min": "self mass of that head",
    "class_mass_of_min": "class mass of that head",
    "mad_raw_min": "minimum raw MAD",
    "class_mass_max": "largest class mass",
    "mad_min_early": "minimum MAD, early third",
    "mad_mean_early": "mean MAD, early third",
    "entropy_mean_early": "mean entropy, early third",
    "self_mass_mean": "mean self mass",
    "acc1": "validation accuracy",
}
"""Columns of ``runs.csv`` that conditions are compared by, and what they are called."""

OPTIONAL_MEASURES = {
    "local_heads": "heads with a MAD below 0.1",
    "self_log_odds_max": "largest log-odds of self mass",
    "class_log_odds_max": "largest log-odds of class mass",
    "border_mass_early": "mass across borders, early third",
    "border_position_early": "by position",
    "border_content_early": "by content",
    "inf_norm_max": "maximum infinity norm",
    "kurtosis_mean": "mean kurtosis",
    "outlier_count": "outliers an image",
    "do_nothing_mean": "share of attention that does nothing",
    "update_mean": "mean update of a head",
    "acc1_fp32": "best accuracy, fp32",
    "acc1_w8a8": "best accuracy, simulated W8A8",
    "acc1_int8": "best accuracy, int8",
    "int8_latency": "latency, int8 over fp32",
    "int8_size": "file, int8 over fp32",
    "acc1_pruned_1.5": "accuracy pruned to 1.5x",
    "acc1_pruned_2": "accuracy pruned to 2x",
    "acc1_pruned_3": "accuracy pruned to 3x",
    "acc1_gradual_1.5": "accuracy pruned gradually to 1.5x",
    "acc1_gradual_2": "accuracy pruned gradually to 2x",
    "acc1_gradual_3": "accuracy pruned gradually to 3x",
    "prune_order_mad": "order of heads pruned, with MAD",
    "prune_order_self_mass": "order of heads pruned, with self mass",
    "prune_order_class_mass": "order of heads pruned, with class mass",
    "prune_order_entropy": "order of heads pruned, with entropy",
    **sequences.MEASURES,
}
"""The same, where some run has them."""

SHARES = re.compile(r"acc1|entropy|self_mass|class_mass|do_nothing|first_mass|previous_mass|mad_share|share_")
"""Measures that lie from 0 to 1, by the beginning of their names."""

GAPS = {
    "mad_min": "minimum MAD",
    "mad_min_early": "minimum MAD, early third",
    "mad_raw_min": "minimum raw MAD",
    "mad_raw_min_early": "minimum raw MAD, early third",
}
"""Columns on which the gap is tested: both definitions of MAD, over all layers and over the early ones."""

IN_LAYERS = {
    "mad": "MAD",
    "entropy": "entropy",
    "self_mass": "self mass",
    "first_mass": "weight on the first token",
    "previous_mass": "weight on the token before",
}
"""Columns of ``heads.csv`` whose means over layers are shown, and what they are called."""

Verdict = Literal["holds", "doesn't hold", "undecided"]


@dataclass(frozen=True)
class Summary:
    """Mean and spread of a few values, with the interval of the mean; NaN where there are too few."""

    count: int
    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class Gap:
    """The gap test on one data set and measure.

    Attributes:
        data: name of the data set.
        measure: the column of ``runs.csv`` that is tested.
        verdict: see :func:`gap`.
        reason: one sentence with the numbers behind it.
        largest_with: largest mean among conditions with CutMix.
        smallest_without: smallest mean among those without.
    """

    data: str
    measure: str
    verdict: Verdict
    reason: str
    largest_with: float
    smallest_without: float


def over_seeds(values: Sequence[float], share: bool = False) -> Summary:
    """Mean, standard deviation (of a sample) and Student's t interval of the mean.

    Args:
        values: one a seed; NaN is left out.
        share: they lie from 0 to 1, and so does the interval: it is made of their logits. Where one is 0 or 1
            itself and has none, the interval of the values is cut off there.

    >>> summary = over_seeds([1.0, 2.0, 3.0])
    >>> round(summary.low, 3), round(summary.high, 3)
    (-0.484, 4.484)
    >>> summary = over_seeds([0.9, 0.99], share=True)
    >>> round(summary.low, 3), round(summary.high, 3)
    (0.0, 1.0)
    """
    known = np.asarray(values, float)
    known = known[~np.isnan(known)]
    count = len(known)
    if count < 2:
        return Summary(count, float(known.mean()) if count else np.nan, np.nan, np.nan, np.nan)
    mean, spread = float(known.mean()), float(known.std(ddof=1))
    if np.ptp(known) == 0:
        return Summary(count, mean, spread, mean, mean)
    within = share and known.min() > 0 and known.max() < 1
    scaled: np.ndarray = logit(known) if within else known
    low, high = stats.t.interval(LEVEL, count - 1, scaled.mean(), stats.sem(scaled))
    if within:
        low, high = expit(low), expit(high)
    elif share:
        low, high = max(low, 0), min(high, 1)
    return Summary(count, mean, spread, float(low), float(high))


def over_heads(values: Sequence[float]) -> Summary:
    """The same for heads, which are many and far from normal: a bootstrap (BCa) interval of the mean.

    Heads are drawn as if each were on its own; those of one run are not quite, so it is rather too narrow.
    """
    known = np.asarray(values, float)
    mean, count = float(known.mean()), len(known)
    if count < 2:
        return Summary(count, mean, np.nan, np.nan, np.nan)
    low = high = mean
    if np.ptp(known) > 0:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # gives NaN, which is shown
            result = stats.bootstrap(
                (known,), np.mean, confidence_level=LEVEL, n_resamples=2000, rng=np.random.default_rng(0)
            )
        low, high = result.confidence_interval
    return Summary(count, mean, float(known.std(ddof=1)), float(low), float(high))


def measures(table: pd.DataFrame) -> dict[str, str]:
    """Of ``MEASURES`` and the optional ones those that some row of ``runs.csv`` has."""
    every = MEASURES | OPTIONAL_MEASURES
    return {name: words for name, words in every.items() if name in table and table[name].notna().any()}


def conditions_table(table: pd.DataFrame) -> pd.DataFrame:
    """One row a data set, condition and measure: the summary over seeds."""
    return pd.DataFrame(
        {
            "data": data,
            "condition": condition,
            "measure": measure,
            **vars(over_seeds(group[measure].tolist(), share=SHARES.match(measure) is not None)),
        }
        for (data, condition), group in table.groupby(["data", "condition"], sort=False)
        for measure in measures(table)
    )


def layers_table(heads: pd.DataFrame) -> pd.DataFrame:
    """One row a data set, condition, layer and statistic: the summary over heads of all seeds, at the end."""
    rows, shown = [], [name for name in IN_LAYERS if name in heads and heads[name].notna().all()]
    for (data, condition), group in heads.groupby(["data", "condition"], sort=False):
        for layer, of_layer in last_epoch(group).groupby("layer"):
            for name in shown:
                summary = over_heads(of_layer[name].tolist())
                front = {"data": data, "condition": condition, "layer": layer, "statistic": name}
                rows.append(front | vars(summary))
    return pd.DataFrame(rows)


def effects(table: pd.DataFrame, measure: str) -> tuple[pd.DataFrame, str]:
    """Main effects and pairwise interactions of the components, from one data set's runs.

    Ordinary least squares on components coded -1/2 and +1/2, over the components that vary. So a main
    effect is the mean with the component minus the mean without it, over the other components alike; an
    interaction is the effect of one with the other minus its effect without the other. Their intervals
    take the seeds' variance to be the same in all conditions.

    Args:
        table: rows of ``runs.csv`` of one data set.
        measure: the column to explain.

    Returns:
        A table (effect, estimate, low, high) and a sentence on what limits it. The table is empty if the
        conditions are no full factorial design; intervals are NaN if no condition has a second seed.
    """
    import statsmodels.api as sm

    empty = pd.DataFrame(columns=["effect", "estimate", "low", "high"])
    table = table[table[measure].notna()]
    varying = [name for name in FACTORS if table[name].nunique() > 1]
    if not varying:
        return empty, "The conditions do not differ in a component, so there are no effects to estimate."
    groups = table.groupby(varying)["condition"]
    if (groups.nunique() > 1).any():
        return empty, (
            "Some conditions have the same components and differ in something else, so effects of components "
            "are not estimated."
        )
    if groups.ngroups < 2 ** len(varying):
        return empty, (
            f"Not a full factorial design: {groups.ngroups} of the {2 ** len(varying)} combinations of "
            f"{', '.join(varying)} are there, so effects can't be told apart."
        )
    coded = table[varying].astype(float) - 0.5
    for first, second in itertools.combinations(varying, 2):
        coded[f"{first} x {second}"] = coded[first] * coded[second]
    model = sm.OLS(table[measure].astype(float), sm.add_constant(coded)).fit()
    repeated = len(table) > groups.ngroups
    interval = model.conf_int(1 - LEVEL) if repeated else pd.DataFrame(np.nan, model.params.index, [0, 1])
    result = pd.DataFrame({"estimate": model.params, "low": interval[0], "high": interval[1]}).drop("const")
    if not repeated:
        note = "One seed a condition: estimates without intervals."
    elif groups.size().nunique() > 1:
        note = "Not all conditions have the same number of seeds."
    else:
        note = f"{groups.size().iloc[0]} seeds a condition."
    return result.rename_axis("effect").reset_index(), note


def gap(table: pd.DataFrame, measure: str = "mad_min") -> Gap | None:
    """The paper's gap: every condition with CutMix has a lower minimum MAD than every one without.

    Of each condition the mean over seeds and its 95 % t interval are taken. The gap

    - *holds* if every run with CutMix lies below every run without, and the highest upper end of an
      interval with CutMix is below the lowest lower end of one without;
    - *doesn't hold* if for some pair of conditions the order is clearly the other way: all runs of the one
      with CutMix lie above all runs of the one without, and its interval lies above the other's;
    - is *undecided* otherwise: seeds or intervals overlap, or a condition that matters has one seed and
      so no interval. The reason then says how the runs lie.

    Each interval is taken alone: nothing is corrected for the number of conditions.

    Args:
        table: rows of ``runs.csv`` of one data set.
        measure: one of ``GAPS``.

    Returns:
        The verdict; None if there are no conditions with CutMix, or none without.
    """
    found: dict[bool, list[tuple[str, np.ndarray, Summary]]] = {True: [], False: []}
    for (condition, cutmix), group in table.groupby(["condition", "cutmix"], sort=False):
        values = group[measure].to_numpy(float)
        found[bool(cutmix)].append((str(condition), values, over_seeds(values.tolist())))
    if not found[True] or not found[False]:
        return None
    highest = max(found[True], key=lambda cell: cell[2].mean)
    lowest = min(found[False], key=lambda cell: cell[2].mean)
    numbers = (
        f"largest with CutMix {highest[2].mean:.3f} ({highest[0]}), "
        f"smallest without {lowest[2].mean:.3f} ({lowest[0]})"
    )
    cells = found[True] + found[False]
    ordered = max(c[1].max() for c in found[True]) < min(c[1].min() for c in found[False])
    single = any(c[2].count < 2 for c in cells)
    # Comparisons with NaN, the interval of one seed, are false.
    apart = not single and max(c[2].high for c in found[True]) < min(c[2].low for c in found[False])
    wrong = [
        (one, other)
        for one, other in itertools.product(found[True], found[False])
        if one[1].min() > other[1].max() and one[2].low > other[2].high
    ]
    verdict: Verdict
    if ordered and apart:
        verdict, why = "holds", "all runs and intervals with CutMix lie below all those without"
    elif wrong:
        one, other = wrong[0]
        verdict, why = "doesn't hold", f"{one[0]} lies above {other[0]} with all its runs and its interval"
    else:
        verdict = "undecided"
        why = f"{'every' if ordered else 'not every'} run with CutMix lies below every run without, "
        if single:
            why += f"{'but' if ordered else 'and'} a condition has one seed and so no interval"
        else:
            why += "but intervals overlap" if ordered else "and none lies clearly above one without"
    return Gap(
        str(table["data"].iloc[0]), measure, verdict, f"{numbers}: {why}.", highest[2].mean, lowest[2].mean
    )
