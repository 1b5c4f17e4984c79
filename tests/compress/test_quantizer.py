import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vitlocal.compress.quantizer import ActivationQuantizer, asymmetric_grid, quantize_weight
from vitlocal.errors import InputError


def half_even(value):
    low = int(np.floor(value))
    rest = value - low
    if rest != 0.5:
        return low + (rest > 0.5)
    return low if low % 2 == 0 else low + 1


def slow(values, scale, zero_point, lowest, highest):
    """The formula a value at a time, in float64."""
    integers = [min(highest, max(lowest, half_even(v / scale) + zero_point)) for v in values]
    return integers, [scale * (i - zero_point) for i in integers]


def ranged(low, high):
    quantizer = ActivationQuantizer()
    quantizer.observe(torch.tensor([low, high]))
    return quantizer


def test_halves_are_rounded_to_even_and_ends_are_clamped():
    # low -64 and high 191 make the scale 1 and the zero point 64.
    values = [-0.5, 0.5, 1.5, 2.5, -1.5, 3.49, 190.5, 191.5, 400.0, -64.0, -64.6, -1e6, 0.0]
    _, expected = slow(values, 1.0, 64, 0, 255)
    given = ranged(-64.0, 191.0)(torch.tensor(values))
    assert given.tolist() == expected
    assert expected[:4] == [0, 0, 2, 2] and expected[7:9] == [191, 191] and expected[10:12] == [-64, -64]


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero_point"),
    [
        (-1.0, 1.5, 2.5 / 255, 102),
        (0.5, 2.0, 2 / 255, 0),  # the range is made to hold 0
        (-3.0, -1.0, 3 / 255, 255),
        (0.0, 0.0, 1.0, 0),
    ],
)
def test_grid_of_a_range(low, high, scale, zero_point):
    given = asymmetric_grid(torch.tensor(low), torch.tensor(high))
    assert given[0].item() == pytest.approx(scale) and given[1].item() == zero_point
    assert ranged(low, high)(torch.zeros(1)).item() == 0  # zero is on every grid


def test_activations_against_the_loop():
    values = torch.randn(500, generator=torch.Generator().manual_seed(0)) * 3
    quantizer = ranged(-4.0, 6.0)
    scale, zero_point = 10 / 255, 102
    _, expected = slow(values.double().tolist(), scale, zero_point, 0, 255)
    torch.testing.assert_close(quantizer(values), torch.tensor(expected).float())


def test_range_is_a_running_average():
    quantizer = ActivationQuantizer()
    for batch in ([-1.0, 2.0], [-3.0, 2.0], [1.0, 12.0]):
        quantizer.observe(torch.tensor(batch))
    # low: -1; -0.9 - 0.3 = -1.2; -1.08 + 0.1 = -0.98. high: 2; 2; 1.8 + 1.2 = 3.
    assert quantizer.low.item() == pytest.approx(-0.98)
    assert quantizer.high.item() == pytest.approx(3.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_range_of_what_is_not_finite(value):
    with pytest.raises(InputError, match="not finite"):
        ActivationQuantizer().observe(torch.tensor([0.0, value]))


def test_weights_are_symmetric():
    rounded, scale = quantize_weight(torch.tensor([-127.0, 0.5, 1.5, 2.5, 126.6]))
    assert scale.item() == 1 and rounded.tolist() == [-127, 0, 2, 2, 127]
    positive, scale = quantize_weight(torch.tensor([0.5, 2.0]))
    assert scale.item() == pytest.approx(2 / 127)
    assert positive.tolist() == pytest.approx([32 * 2 / 127, 2.0])  # 31.75 becomes 32
    assert quantize_weight(torch.zeros(3))[0].tolist() == [0, 0, 0]


def test_linear_layer_is_integer_arithmetic():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(7, 16, generator=generator)
    weight = torch.randn(5, 16, generator=generator)
    bias = torch.randn(5, generator=generator)
    quantizer = ranged(-2.0, 2.5)
    given = F.linear(quantizer(x), quantize_weight(weight)[0], bias)

    x_scale, zero_point = np.float32(4.5) / np.float32(255), round(2 * 255 / 4.5)
    w_scale = np.abs(weight.numpy()).max() / np.float32(127)
    x_int = np.clip(np.rint(x.numpy() / x_scale) + zero_point, 0, 255).astype(np.int32)
    w_int = np.clip(np.rint(weight.numpy() / w_scale), -128, 127).astype(np.int32)
    summed = (x_int - zero_point) @ w_int.T  # int32
    np.testing.assert_allclose(
        given.numpy(), summed * (x_scale * w_scale) + bias.numpy(), rtol=1e-4, atol=1e-5
    )
