"""Paired differences: which conditions, and over which seeds."""

import numpy as np
import pytest
from scipy import stats

from tests.study.fake import config, write_run
from vitlocal.study.pairs import differences, pairs
from vitlocal.study.results import load, runs_table


def condition(folder, name, *components, seed=0, least=0.3, **model):
    settings = config(components, seed, 4)
    settings["model"] = settings["model"] | model
    return load(write_run(folder / name / str(seed), settings, least=least), condition=name, data="d")


def test_each_is_compared_with_the_first_that_differs_in_one_thing(tmp_path):
    runs = [
        condition(tmp_path, "timm baseline", init="timm"),
        condition(tmp_path, "timm cutmix", "mixing", init="timm"),
        condition(tmp_path, "lee baseline", init="lee"),
        condition(tmp_path, "lee cutmix", "mixing", init="lee"),
        condition(tmp_path, "all else", "mixing", "photometric", init="other"),
    ]
    assert pairs(runs) == [
        ("timm baseline", "timm cutmix", "protocol.mixing"),
        ("timm baseline", "lee baseline", "model.network.init"),
        ("timm cutmix", "lee cutmix", "model.network.init"),
        ("lee baseline", "lee cutmix", "protocol.mixing"),
        ("timm baseline", "all else", "protocol.photometric, protocol.mixing, model.network.init"),
    ]


def test_differences_are_seed_by_seed_over_the_seeds_of_both(tmp_path):
    values = {"baseline": {0: 0.3, 1: 0.2, 2: 0.25}, "cutmix": {1: 0.15, 2: 0.21, 3: 0.9}}
    runs = [
        condition(tmp_path, name, *(["mixing"] if name == "cutmix" else []), seed=seed, least=least)
        for name, of in values.items()
        for seed, least in of.items()
    ]
    table = runs_table(runs)
    found = differences(table, pairs(runs)).set_index("measure").loc["mad_min"]
    by_hand = [values["cutmix"][seed] - values["baseline"][seed] for seed in (1, 2)]
    assert found["count"] == 2 and found["mean"] == pytest.approx(np.mean(by_hand), abs=1e-4)
    low, high = stats.ttest_rel([0.15, 0.21], [0.2, 0.25]).confidence_interval()
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=1e-3)


def test_one_seed_has_a_difference_and_no_interval(tmp_path):
    runs = [condition(tmp_path, "a", least=0.3), condition(tmp_path, "b", "mixing", least=0.1)]
    found = differences(runs_table(runs), pairs(runs)).set_index("measure").loc["mad_min"]
    assert found["mean"] == pytest.approx(-0.2, abs=1e-4) and np.isnan(found["low"])
