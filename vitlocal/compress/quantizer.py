"""Uniform 8-bit quantization of whole tensors, simulated in floating point.

As in "Quantizable Transformers" (Bondarenko et al. 2023, arXiv 2306.12929, appendix C.4): a value x becomes
scale * (clamp(round(x / scale) + zero_point) - zero_point), halves rounded to even.
"""

import torch
from torch import Tensor

from vitlocal.errors import InputError

MOMENTUM = 0.9


def quantize_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight on the symmetric int8 grid whose largest magnitude is 127.

    Returns:
        The rounded weight, of the same shape, and the grid's scale, float32 ().
    """
    largest = weight.detach().abs().amax().float()
    scale = torch.where(largest > 0, largest / 127, 1)
    zero_point = torch.zeros((), dtype=torch.int32, device=weight.device)
    return torch.fake_quantize_per_tensor_affine(weight.detach(), scale, zero_point, -128, 127), scale


def asymmetric_grid(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The uint8 grid over a range, widened to hold 0.

    Args:
        low: smallest value, ().
        high: largest value, ().

    Returns:
        scale, float32 (), and zero_point, int32 (), from 0 to 255.
    """
    low, high = low.clamp(max=0).float(), high.clamp(min=0).float()
    scale = torch.where(high > low, (high - low) / 255, 1)
    return scale, (-low / scale).round().clamp(0, 255).to(torch.int32)


class ActivationQuantizer:
    """One activation tensor's static uint8 grid, from a running range of calibration batches.

    Attributes:
        low: running minimum, (); None before the first batch.
        high: running maximum, ().
    """

    low: Tensor | None = None
    high: Tensor

    def observe(self, x: Tensor) -> None:
        """Take a batch in: the first sets the range, each later one moves it by a tenth of the way.

        Raises:
            InputError: a value is infinite or not a number.
        """
        low, high = torch.aminmax(x.detach())
        if not torch.isfinite(high - low):
            raise InputError("an activation is not finite: give a model whose weights are, or other images")
        if self.low is None:
            self.low, self.high = low, high
        else:
            self.low = MOMENTUM * self.low + (1 - MOMENTUM) * low
            self.high = MOMENTUM * self.high + (1 - MOMENTUM) * high

    def __call__(self, x: Tensor) -> Tensor:
        """``x`` rounded to the grid; what is beyond it becomes its nearest end."""
        assert self.low is not None, "there was no calibration"
        return torch.fake_quantize_per_tensor_affine(x, *asymmetric_grid(self.low, self.high), 0, 255)
