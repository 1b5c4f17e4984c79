import pickle

import pytest
import torch

from tests.heads.toy import random_attention
from vitlocal import heads

GRID, PREFIX, HEADS = (2, 3), 1, 2
GRID_OPTIONS = {"grid_size": GRID, "num_prefix_tokens": PREFIX, "unit": "pixels", "patch_size": (4, 3)}
METRICS = [
    (heads.MeanAttentionDistance, heads.mean_attention_distance, {**GRID_OPTIONS, "class_token": "keep"}),
    (heads.MeanAttentionDistanceWithoutSelf, heads.mean_attention_distance_without_self, GRID_OPTIONS),
    (heads.RawMeanAttentionDistance, heads.raw_mean_attention_distance, GRID_OPTIONS),
    (heads.NormalizedEntropy, heads.normalized_entropy, {"num_prefix_tokens": PREFIX, "class_token": "keep"}),
    (heads.SelfMass, heads.self_mass, {"num_prefix_tokens": PREFIX}),
    (heads.ClassTokenMass, heads.class_token_mass, {"num_prefix_tokens": PREFIX}),
]


@pytest.mark.parametrize(("metric_class", "function", "options"), METRICS)
def test_mean_over_images_of_unequal_batches(metric_class, function, options):
    attention = random_attention(7, HEADS, 7)
    metric = metric_class(HEADS, **options)
    for batch in attention.split(3):
        metric.update(batch)
    each = [function(image[None], **options)[0] for image in attention]
    expected = [sum(value[head].item() for value in each) / 7 for head in range(HEADS)]
    assert metric.compute().tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("metric_class", "function", "options"), METRICS)
def test_states_add_up_over_processes(metric_class, function, options):
    attention = random_attention(5, HEADS, 7)
    parts = [metric_class(HEADS, **options) for _ in range(2)]
    parts[0].update(attention[:1])
    parts[1].update(attention[1:])
    parts[0].merge_state(parts[1])
    mean = function(attention.double(), **options).mean(0)
    torch.testing.assert_close(parts[0].compute(), mean, rtol=1e-6, atol=0)


def test_all_statistics_in_one_metric():
    attention = random_attention(5, HEADS, 7)
    together = heads.HeadStatistics(HEADS, **GRID_OPTIONS)
    together.update(attention[:2])
    together.update(attention[2:])
    values = together.compute()
    names = ["mad", "mad_without_self", "mad_raw", "entropy", "self_mass", "class_mass"]
    for name, (metric_class, _, options) in zip(names, METRICS, strict=True):
        single = metric_class(
            HEADS, **{**options, **({"class_token": "drop"} if "class_token" in options else {})}
        )
        single.update(attention)
        torch.testing.assert_close(values[name], single.compute())


def test_sums_of_many_small_values_stay_exact():
    metric = heads.ImageMean((1,), lambda attention: attention[..., 0, 0])
    metric.update(torch.full((1, 1, 1, 1), 2.0**30))
    for _ in range(8):
        metric.update(torch.ones(1, 1, 1, 1))
    assert metric.compute().item() * 9 == 2.0**30 + 8  # float32 would have lost the ones


def test_reset_forgets_and_pickling_does_not():
    metric = heads.HeadStatistics(1, (2, 2))
    metric.update(torch.eye(4)[None, None])
    copy = pickle.loads(pickle.dumps(metric))
    metric.reset()
    metric.update(torch.full((1, 1, 4, 4), 0.25))
    assert copy.compute()["self_mass"].item() == 1
    assert metric.compute()["self_mass"].item() == pytest.approx(0.25)
