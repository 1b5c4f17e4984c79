import pickle

import pytest
import torch
from torchmetrics import MetricCollection

from tests.heads.toy import random_attention
from vitlocal import heads
from vitlocal.geometry import Grid, Sequence
from vitlocal.heads import functional, metrics

HEADS = 2
GRID = Grid(2, 3, (4, 3), unit="pixels", num_prefix_tokens=1)
METRICS = {
    "mad": (heads.MeanAttentionDistance, heads.mean_attention_distance),
    "mad_without_self": (heads.MeanAttentionDistanceWithoutSelf, heads.mean_attention_distance_without_self),
    "mad_raw": (heads.RawMeanAttentionDistance, heads.raw_mean_attention_distance),
    "entropy": (heads.NormalizedEntropy, heads.normalized_entropy),
    "self_mass": (heads.SelfMass, heads.self_mass),
    "class_mass": (heads.ClassTokenMass, heads.class_token_mass),
    "window_mass": (metrics.WindowMass, functional.window_mass),
    "self_log_odds": (metrics.SelfLogOdds, functional.self_log_odds),
    "class_log_odds": (metrics.ClassLogOdds, functional.class_log_odds),
}
GEOMETRIES = [GRID.measured(class_token="keep"), Sequence(7, causal=True)]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=repr)
@pytest.mark.parametrize(("metric_class", "function"), METRICS.values(), ids=METRICS)
def test_mean_over_images_of_unequal_batches(metric_class, function, geometry):
    attention = random_attention(7, HEADS, 7)
    metric = metric_class(HEADS, geometry)
    for batch in attention.split(3):
        metric.update(batch)
    each = [function(image[None], geometry)[0] for image in attention]
    expected = [sum(value[head].item() for value in each) / 7 for head in range(HEADS)]
    assert metric.compute().tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("metric_class", "function"), METRICS.values(), ids=METRICS)
def test_states_add_up_over_processes(metric_class, function):
    attention = random_attention(5, HEADS, 7)
    parts = [metric_class(HEADS, GRID) for _ in range(2)]
    parts[0].update(attention[:1])
    parts[1].update(attention[1:])
    parts[0].merge_state(parts[1])
    mean = function(attention.double(), GRID).mean(0)
    torch.testing.assert_close(parts[0].compute(), mean, rtol=1e-5, atol=0)


def test_a_collection_keeps_them_apart():
    """As torchmetrics#1890 has it, those with equal sums after the first batch would be one."""
    batches = [torch.eye(7).expand(2, HEADS, 7, 7), random_attention(3, HEADS, 7)]
    together = MetricCollection({name: kind(HEADS, GRID) for name, (kind, _) in METRICS.items()})
    for batch in batches:
        together.update(batch)
    found = together.compute()
    for name, (kind, _) in METRICS.items():
        single = kind(HEADS, GRID)
        for batch in batches:
            single.update(batch)
        torch.testing.assert_close(found[name], single.compute())


def test_all_statistics_in_one_metric():
    attention = random_attention(5, HEADS, 7)
    together = heads.HeadStatistics(HEADS, GRID)
    together.update(attention[:2])
    together.update(attention[2:])
    values = together.compute()
    assert values.keys() == METRICS.keys()
    for name, (metric_class, _) in METRICS.items():
        single = metric_class(HEADS, GRID)
        single.update(attention)
        torch.testing.assert_close(values[name], single.compute())


def test_sums_of_many_small_values_stay_exact():
    metric = heads.ImageMean((1,), lambda attention: attention[..., 0, 0])
    metric.update(torch.full((1, 1, 1, 1), 2.0**30))
    for _ in range(8):
        metric.update(torch.ones(1, 1, 1, 1))
    assert metric.compute().item() * 9 == 2.0**30 + 8  # float32 would have lost the ones


def test_reset_forgets_and_pickling_does_not():
    metric = heads.HeadStatistics(1, Grid(2, 2))
    metric.update(torch.eye(4)[None, None])
    copy = pickle.loads(pickle.dumps(metric))
    metric.reset()
    metric.update(torch.full((1, 1, 4, 4), 0.25))
    assert copy.compute()["self_mass"].item() == 1
    assert metric.compute()["self_mass"].item() == pytest.approx(0.25)
