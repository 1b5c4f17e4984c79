import itertools
import math
import re

import numpy as np
import pandas as pd
import pytest

from vitlocal.study.statistics import (
    MEASURES,
    conditions_table,
    effects,
    gap,
    layers_table,
    over_heads,
    over_seeds,
)

# Student's t, 97.5 %, from printed tables: by degrees of freedom
T = {1: 12.706, 2: 4.303, 3: 3.182, 9: 2.262, 17: 2.110}


def test_t_interval_against_the_printed_table():
    values = [0.30, 0.32, 0.37]
    summary = over_seeds(values)
    mean, sd = sum(values) / 3, math.sqrt(sum((x - 0.33) ** 2 for x in values) / 2)
    assert (summary.count, summary.mean, summary.sd) == (3, pytest.approx(mean), pytest.approx(sd))
    half = T[2] * sd / math.sqrt(3)
    assert summary.low == pytest.approx(mean - half, abs=1e-5)
    assert summary.high == pytest.approx(mean + half, abs=1e-5)


def test_too_few_values_have_no_interval():
    one = over_seeds([0.4, math.nan])
    assert one.count == 1 and one.mean == 0.4 and np.isnan([one.sd, one.low, one.high]).all()
    assert over_seeds([]).count == 0 and math.isnan(over_seeds([]).mean)
    assert over_seeds([0.4, 0.4]).low == over_seeds([0.4, 0.4]).high == 0.4
    assert math.isnan(over_heads([0.4]).low) and over_heads([0.4, 0.4]).high == 0.4


def test_bootstrap_agrees_with_resampling_by_hand():
    values = np.random.default_rng(3).normal(0.3, 0.05, 60)
    summary = over_heads(values.tolist())
    drawn = np.random.default_rng(4).choice(values, (20000, 60)).mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert summary.mean == pytest.approx(values.mean())
    # symmetric values: BCa is close to the plain percentiles; a tenth of the interval's length
    assert [summary.low, summary.high] == pytest.approx([low, high], abs=(high - low) / 10)


def table(cells, seeds=3, noise=0.01, measure="mad_min"):
    """Rows of runs.csv; ``cells`` maps a condition to (photometric, cutmix, label_smoothing, mean)."""
    rng = np.random.default_rng(1)
    rows = [
        {"data": "d", "condition": name, "photometric": p, "cutmix": c, "label_smoothing": s}
        | {measure: mean + noise * rng.normal()}
        for name, (p, c, s, mean) in cells.items()
        for _ in range(seeds)
    ]
    return pd.DataFrame(rows)


def factorial(effect=lambda p, c, s: 0.4 - 0.3 * c + 0.02 * s + 0.04 * p * c):
    levels = itertools.product([False, True], repeat=3)
    return {f"{p:d}{c:d}{s:d}": (p, c, s, effect(p, c, s)) for p, c, s in levels}


def test_effects_are_differences_of_means_with_intervals_of_the_residuals():
    runs = table(factorial())
    result, note = effects(runs, "mad_min")
    found = result.set_index("effect")
    y = runs["mad_min"].to_numpy()
    level = {name: runs[name].to_numpy() for name in ("photometric", "cutmix", "label_smoothing")}
    fitted = np.full(24, y.mean())
    for name, on in level.items():
        difference = y[on].mean() - y[~on].mean()
        assert found.loc[name, "estimate"] == pytest.approx(difference)
        fitted += difference * (on - 0.5)
    for first, second in itertools.combinations(level, 2):
        a, b = level[first], level[second]
        with_it, without = y[a & b].mean() - y[~a & b].mean(), y[a & ~b].mean() - y[~a & ~b].mean()
        assert found.loc[f"{first} x {second}", "estimate"] == pytest.approx(with_it - without)
        fitted += (with_it - without) * (a - 0.5) * (b - 0.5)
    s = math.sqrt(((y - fitted) ** 2).sum() / (24 - 7))  # 7 parameters are fitted
    half = T[17] * s * math.sqrt(1 / 12 + 1 / 12)  # of a difference of two means of 12
    width = found.loc["cutmix", "high"] - found.loc["cutmix", "low"]
    assert width == pytest.approx(2 * half, rel=1e-3)
    # A pair's is a difference of differences of means of 6.
    width = found.loc["photometric x cutmix", "high"] - found.loc["photometric x cutmix", "low"]
    assert width == pytest.approx(2 * T[17] * s * math.sqrt(4 / 6), rel=1e-3)
    assert len(found) == 6 and note == "3 seeds a condition."
    assert found.loc["photometric x cutmix", "low"] < 0.04 < found.loc["photometric x cutmix", "high"]


def test_one_seed_gives_estimates_and_no_intervals():
    result, note = effects(table(factorial(), seeds=1, noise=0), "mad_min")
    found = result.set_index("effect")
    assert found.loc["cutmix", "estimate"] == pytest.approx(-0.28)
    assert found.loc["photometric x cutmix", "estimate"] == pytest.approx(0.04)
    assert found[["low", "high"]].isna().all(axis=None) and "without intervals" in note


def test_effects_of_the_components_that_vary_only():
    cells = {"a": (True, False, True, 0.3), "b": (True, True, True, 0.1)}
    result, _ = effects(table(cells, noise=0.001), "mad_min")
    assert result["effect"].tolist() == ["cutmix"]
    assert result["estimate"].item() == pytest.approx(-0.2, abs=0.005)


def test_what_is_no_factorial_design_is_said():
    half = {"baseline": (False, False, False, 0.3), "modern": (True, True, True, 0.1)}
    alike = {"a": (False, True, False, 0.3), "b": (False, True, False, 0.2)}
    twice = alike | {"c": (False, False, False, 0.2)}
    for cells, said in ((half, "2 of the 8"), (alike, "do not differ"), (twice, "same components")):
        result, note = effects(table(cells), "mad_min")
        assert result.empty and said in note


def test_unequal_numbers_of_seeds_are_said():
    runs = table(factorial()).iloc[1:]
    result, note = effects(runs, "mad_min")
    assert len(result) == 6 and "same number" in note


def runs(**conditions):
    """Minimum MADs by condition; a name that begins with c has CutMix."""
    return pd.DataFrame(
        {"data": "d", "condition": name, "cutmix": name.startswith("c"), "mad_min": value}
        for name, values in conditions.items()
        for value in values
    )


@pytest.mark.parametrize(
    "conditions, verdict, said",
    [
        ({"c1": [0.02, 0.03], "c2": [0.02, 0.021], "n": [0.3, 0.31]}, "holds", "all runs and intervals"),
        # Ordered, but t with one degree of freedom reaches from 0.01 to 0.39: 0.2 +- 12.7 * 0.015
        ({"c": [0.185, 0.215], "n": [0.3, 0.301]}, "undecided", "every run with CutMix.*intervals overlap"),
        ({"c": [0.30, 0.31, 0.305], "n": [0.2, 0.21, 0.205]}, "doesn't hold", "c lies above n"),
        # One bad pair is enough against the claim.
        (
            {"c1": [0.01, 0.011], "c2": [0.40, 0.401], "n1": [0.3, 0.301], "n2": [0.41, 0.411]},
            "doesn't hold",
            "c2 lies above n1",
        ),
        ({"c": [0.2, 0.3], "n": [0.25, 0.35]}, "undecided", "not every run.*none lies clearly above"),
        ({"c": [0.02], "n": [0.3]}, "undecided", "every run with CutMix lies below.*one seed"),
        ({"c": [0.344], "n": [0.342]}, "undecided", "not every run.*one seed"),
    ],
)
def test_gap(conditions, verdict, said):
    found = gap(runs(**conditions))
    assert found.verdict == verdict
    assert re.search(said, found.reason), found.reason


def test_gap_names_the_conditions_at_its_edges():
    found = gap(runs(c1=[0.01, 0.012], c2=[0.02, 0.022], n1=[0.4, 0.402], n2=[0.3, 0.302]))
    assert (found.largest_with, found.smallest_without) == (pytest.approx(0.021), pytest.approx(0.301))
    assert "0.021 (c2)" in found.reason and "0.301 (n2)" in found.reason
    assert gap(runs(c=[0.1])) is None and gap(runs(n=[0.1])) is None


def test_tables_keep_data_sets_and_conditions_apart():
    rows = pd.concat([table(factorial(), noise=0).assign(data=data) for data in "ab"])
    for name in set(MEASURES) - {"mad_min"}:
        rows[name] = rows["mad_min"] * (1 + (rows["data"] == "b"))
    summary = conditions_table(rows).set_index(["data", "condition", "measure"])
    assert len(summary) == 2 * 8 * len(MEASURES)
    assert summary.loc[("b", "010", "acc1"), "mean"] == pytest.approx(0.2)
    assert summary.loc[("a", "010", "acc1"), "mean"] == pytest.approx(0.1)


def test_layers_table_is_of_each_runs_last_epoch():
    heads = pd.DataFrame(
        {"run": run, "data": "d", "condition": "c", "epoch": epoch, "layer": layer, "head": head}
        | {"mad": 100 * epoch + 10 * run + layer + 0.5 * head, "entropy": 1.0, "self_mass": 0.0}
        for run, epochs in ((0, 2), (1, 3))
        for epoch in range(epochs)
        for layer in range(2)
        for head in range(2)
    )
    mad = layers_table(heads).set_index(["layer", "statistic"])
    assert mad.loc[(1, "mad"), "mean"] == pytest.approx(np.mean([101, 101.5, 211, 211.5]))
    assert mad.loc[(0, "mad"), "count"] == 4


def test_intervals_of_shares_stay_within_0_and_1():
    """The interval of 0.95 and 1.0 was [0.850, 1.055] once."""
    few = over_seeds([0.9, 0.98], share=True)
    logits = [np.log(x / (1 - x)) for x in (0.9, 0.98)]
    half = 12.7062 * abs(logits[1] - logits[0]) / 2
    ends = [1 / (1 + np.exp(-(np.mean(logits) + sign * half))) for sign in (-1, 1)]
    assert (few.low, few.high) == pytest.approx(ends, rel=1e-4)
    assert few.mean == pytest.approx(0.94)
    touching = over_seeds([0.95, 1.0], share=True)
    assert 0 <= touching.low < touching.high == 1
    assert over_seeds([0.0, 0.0], share=True).high == 0
    rows = table(factorial(), noise=0.3)
    for name in set(MEASURES) - {"mad_min"}:
        rows[name] = np.linspace(0.9, 0.999, len(rows))
    summary = conditions_table(rows).set_index("measure").loc[["acc1", "self_mass_mean"]]
    assert (summary["high"] <= 1).all() and (summary["low"] >= 0).all()


def test_the_gap_can_hold_in_one_definition_and_not_in_the_other():
    """A sink: renormalised the heads are as broad with CutMix as without, raw they are near 0."""
    rows = [
        {"data": "d", "condition": condition, "cutmix": condition == "cutmix", "mad_min": 0.3 + noise}
        | {"mad_raw_min": (0.01 if condition == "cutmix" else 0.29) + noise}
        for condition in ("baseline", "cutmix")
        for noise in (0.0, 0.001, 0.002)
    ]
    rows = pd.DataFrame(rows)
    assert gap(rows, "mad_raw_min").verdict == "holds"
    assert gap(rows, "mad_min").verdict == "undecided"
