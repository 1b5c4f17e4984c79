import math

import numpy as np
import pytest
import torch
from scipy import stats

from vitlocal.activations import (
    IdleHeads,
    OutputOutliers,
    infinity_norm,
    kurtosis,
    nothing_share,
    outlier_mask,
    update_norm,
)

IMAGES, TOKENS, WIDTH, HEADS = 7, 11, 12, 3


@pytest.fixture
def activations():
    """Normal values with outliers in dimension 4 of two tokens, and one more in image 3."""
    x = torch.randn(IMAGES, TOKENS, WIDTH, generator=torch.Generator().manual_seed(0))
    x[:, [2, 9], 4] += 30
    x[3, 5, 7] = -40
    return x


def slow(x, deviations=6):
    """Infinity norm, kurtosis and places of the outliers of one image, value by value."""
    values = [float(value) for value in x.flatten()]
    mean = math.fsum(values) / len(values)
    s = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    fourth = math.fsum((value - mean) ** 4 for value in values) / len(values)
    places = [
        (token, dimension)
        for token in range(x.shape[0])
        for dimension in range(x.shape[1])
        if abs(float(x[token, dimension]) - mean) > deviations * s
    ]
    return max(map(abs, values)), fourth / (s**4 + 1e-6), places


def test_activations_against_loops(activations):
    for image, norm, fourth, mask in zip(
        activations, infinity_norm(activations), kurtosis(activations), outlier_mask(activations), strict=True
    ):
        expected = slow(image)
        assert norm.item() == pytest.approx(expected[0])
        assert fourth.item() == pytest.approx(expected[1], rel=1e-5)
        assert [tuple(place) for place in mask.nonzero().tolist()] == expected[2]
    assert outlier_mask(activations).sum() == 2 * IMAGES + 1 - 2  # image 3's own one hides the other two
    assert outlier_mask(activations, 3.0).sum() == sum(len(slow(image, 3)[2]) for image in activations)


def test_kurtosis_is_scipys_with_the_unbiased_deviation(activations):
    flat = activations.flatten(1).double().numpy()
    size = flat.shape[1]
    # scipy divides by the square of the biased variance; 1e-6 is nothing beside values of this size.
    expected = stats.kurtosis(100 * flat, axis=1, fisher=False) * ((size - 1) / size) ** 2
    np.testing.assert_allclose(kurtosis(100 * activations), expected, rtol=1e-5)
    normal = torch.randn(1, 1000, 300, generator=torch.Generator().manual_seed(1))
    assert kurtosis(normal).item() == pytest.approx(3, abs=0.05)
    assert kurtosis(1e-3 * normal).item() < 1e-5  # the paper's 1e-6 swallows what is that small


def test_uneven_batches_add_up_to_one(activations):
    streamed, whole = OutputOutliers(TOKENS, WIDTH), OutputOutliers(TOKENS, WIDTH)
    for part in activations.split([1, 4, 2]):
        streamed.update(part)
    whole.update(activations)
    expected = [slow(image) for image in activations]
    for metric in (streamed, whole):
        found = metric.compute()
        assert found.inf_norm.item() == pytest.approx(np.mean([norm for norm, _, _ in expected]))
        assert found.kurtosis.item() == pytest.approx(np.mean([k for _, k, _ in expected]), rel=1e-5)
        places = np.zeros((TOKENS, WIDTH))
        for _, _, of_image in expected:
            for place in of_image:
                places[place] += 1 / IMAGES
        np.testing.assert_allclose(found.by_dimension, places.sum(0), rtol=1e-6)
        np.testing.assert_allclose(found.by_position, places.sum(1), rtol=1e-6)
    # Nothing is kept of an image: means, their number, and what tells the metric from others.
    assert sum(state.numel() for state in streamed.metric_state.values()) == 2 + WIDTH + TOKENS + 1 + 1


@pytest.fixture
def heads():
    """Attention, values with small ones among them, an output projection and gates."""
    generator = torch.Generator().manual_seed(2)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    attention = draw(IMAGES, HEADS, TOKENS, TOKENS).mul(2).softmax(-1)
    values = draw(IMAGES, HEADS, TOKENS, WIDTH // HEADS)
    values[:, :, :2] *= 0.05
    values[:, 1, 5] *= 0.05
    gates = draw(IMAGES, HEADS, TOKENS).sigmoid()
    return attention, values, draw(WIDTH, WIDTH), gates


def slow_heads(attention, values, projection, gates, small_value):
    """Share of nothing and norm of the update, (B, H) each, in float64 by loops."""
    share, norm = np.zeros((IMAGES, HEADS)), np.zeros((IMAGES, HEADS))
    attention, values, gates, projection = (
        tensor.double().numpy() for tensor in (attention, values, gates, projection)
    )
    size = WIDTH // HEADS
    for image in range(IMAGES):
        for head in range(HEADS):
            norms = [math.hypot(*value) for value in values[image, head]]
            for query in range(TOKENS):
                something, mixed = 0.0, np.zeros(size)
                for key in range(TOKENS):
                    weight = gates[image, head, query] * attention[image, head, query, key]
                    mixed += weight * values[image, head, key]
                    if norms[key] >= small_value * sum(norms) / TOKENS:
                        something += weight
                share[image, head] += (1 - something) / TOKENS
                added = [projection[out, size * head : size * (head + 1)] @ mixed for out in range(WIDTH)]
                norm[image, head] += math.hypot(*added) / TOKENS
    return share, norm


@pytest.mark.parametrize("small_value", [0.5, 0.9])
@pytest.mark.parametrize("gated", [False, True])
def test_heads_against_loops(heads, small_value, gated):
    attention, values, projection, gates = heads
    share, norm = slow_heads(
        attention, values, projection, gates if gated else torch.ones_like(gates), small_value
    )
    given = gates if gated else None
    np.testing.assert_allclose(nothing_share(attention, values, given, small_value), share, atol=1e-6)
    opened = attention if given is None else attention * given[..., None]
    context = (opened @ values).transpose(1, 2).flatten(2)
    np.testing.assert_allclose(update_norm(context, projection, HEADS), norm, rtol=1e-5)
    stream = torch.rand(IMAGES) + 1
    metric = IdleHeads(HEADS, small_value)
    for part in (slice(0, 5), slice(5, 7)):
        gates_of_part = None if given is None else given[part]
        metric.update(attention[part], values[part], context[part], projection, stream[part], gates_of_part)
    found = metric.compute()
    np.testing.assert_allclose(found["do_nothing"], share.mean(0), atol=1e-6)
    np.testing.assert_allclose(found["update"], (norm / stream[:, None].numpy()).mean(0), rtol=1e-5)


def test_what_clipping_takes_away_is_nothing():
    values = torch.ones(1, 1, 2, 3)
    row = torch.tensor([[[[0.5, 0.5], [0.7, 0.0]]]])  # the second query's weights were clipped
    assert nothing_share(row, values).item() == pytest.approx(0.15)
    assert nothing_share(2 * row, values).item() == 0  # each query has 1 or more


def test_the_update_is_the_part_of_the_projection_that_is_the_heads(heads):
    """All weight on one key: the norm of that key's projected value."""
    _, values, projection, _ = heads
    context = values[:, :, 4].flatten(1)[:, None].expand(-1, TOKENS, -1)
    for head in range(HEADS):
        alone = torch.zeros(IMAGES, WIDTH)
        alone[:, 4 * head : 4 * head + 4] = values[:, head, 4]
        expected = torch.nn.functional.linear(alone, projection).norm(dim=-1)
        torch.testing.assert_close(update_norm(context, projection, HEADS)[:, head], expected)
