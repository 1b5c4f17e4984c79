"""Photometric operations on batches: each image gets its own parameter and torchvision's pixels.

Each function takes uint8 images (n, C, H, W), C 1 or 3, and one parameter an image (n,), best
as float64 on the CPU, and returns a new uint8 batch (or ``images`` itself where nothing changes).
Image by image it equals the function of the same name in ``torchvision.transforms.v2.functional``
called on that image alone, bit for bit: torchvision works in float32 and cuts the fraction off,
so the order of operations and the rounding of each factor to float32 are its own.

torchvision's own ``autocontrast``, ``equalize`` and ``invert`` have no parameter and already treat
each image of a batch by itself, so they are used as they are.
"""

import torch
from torch import Tensor


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply by ``factor`` (0 black, 1 unchanged)."""
    return _to_uint8(images * _column(factor, images))


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with each pixel's own grey level (0 grey, 1 unchanged); grey images stay as they are."""
    if images.shape[1] == 1:
        return images
    return _blend(images, _grayscale(images), factor)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with each image's mean grey level (0 that level, 1 unchanged).

    The sum of grey levels is a whole number, so up to 256x256 pixels it is exact in float32 in any
    order; beyond, torchvision's own mean depends on the order that its threads sum in.
    """
    mean = _grayscale(images).mean(dim=(1, 2, 3), keepdim=True)
    return _blend(images, mean, factor)


def adjust_sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image smoothed over 3x3 (0 smooth, 1 unchanged, 2 sharp); the border pixels stay."""
    if min(images.shape[-2:]) <= 2:
        return images
    width = images.shape[-1]
    # Rows laid end to end make long, fast loops; what is wrong at their ends is put right below.
    values = images.flatten(2).float()
    inner = values[..., width + 1 : -width - 1]
    rows = values[..., :-2] + values[..., 1:-1] + values[..., 2:]
    nine = rows[..., : -2 * width] + rows[..., width:-width] + rows[..., 2 * width :]
    # Centre weighs 5, the eight around it 1. A whole number over 13 is never near half a level, so
    # this rounds as torchvision's convolution does, whatever arithmetic the latter runs in.
    smooth = nine.add_(inner, alpha=4).div_(13).round_()
    inner.addcmul_(smooth.sub_(inner), _column(1 - factor.double(), images).flatten(2))
    sharpened = _to_uint8(values).view(images.shape)
    sharpened[..., 0], sharpened[..., -1] = images[..., 0], images[..., -1]
    return sharpened


def adjust_hue(images: Tensor, factor: Tensor) -> Tensor:
    """Turn the hue by ``factor`` of a full circle (-0.5 to 0.5); grey images stay as they are."""
    if images.shape[1] == 1:
        return images
    red, green = images[:, 0], images[:, 1]
    largest, smallest = images.amax(dim=1), images.amin(dim=1)
    value = largest * (1 / 255)
    chroma = value - smallest * (1 / 255)
    grey = _number(largest == smallest)  # hue and saturation 0; added to a divisor where any but 0 will do
    # How far each channel is below the largest, in units of the chroma.
    below = (value.unsqueeze(1) - images * (1 / 255)).div_((chroma + grey).unsqueeze(1))
    below_red, below_green, below_blue = below.unbind(1)
    sixths = _choose(largest == green, below_red + 2 - below_blue, below_green + 4 - below_red)
    sixths = _choose(largest == red, below_blue - below_green, sixths)
    hue = sixths.mul_(1 / 6).add_(1).frac_().add_(_column(factor, images).squeeze(1))
    sixths = hue.sub_(hue.floor()).mul_(6)
    sector = sixths.floor()
    saturation = chroma.div_(value + grey)
    rising = saturation * sixths.sub_(sector)
    pale = 1 - saturation
    least = pale * value
    # In even sectors the middle channel rises towards the largest, in odd ones it falls from it.
    falling = (1 - rising).mul_(value)
    odd = (sector / 2).frac_().mul_(2)
    middle = torch.lerp(rising.add_(pale).mul_(value), falling, odd)
    # Red is the least channel in sectors 2 and 3 and the middle one in the two beside them, green is the
    # largest in 1 and 2, blue in 3 and 4. What is added is 0 for the middle, else 1 or more.
    away = (sector.unsqueeze(1) - _constants(images, 2.5, 1.5, 3.5)).abs_().sub_(1.5)
    turned = away.mul_(_constants(images, 1, -1, -1)).add_(middle.unsqueeze(1))
    turned.clamp_(least.unsqueeze(1), value.unsqueeze(1))
    # Just under 256, so that each level is equally wide and 1.0 gives 255.
    return turned.mul_(255 + 1 - 1e-3).to(torch.uint8)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest ``bits`` bits (0 to 8) of each value."""
    mask = 256 - torch.bitwise_left_shift(1, 8 - bits.long())
    return images & mask.to(torch.uint8).view(-1, 1, 1, 1).to(images.device, non_blocking=True)


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert the values at or above ``threshold`` (0 to 255)."""
    level = threshold.float().ceil().to(torch.uint8).view(-1, 1, 1, 1).to(images.device, non_blocking=True)
    return images ^ (images >= level).view(torch.uint8).mul_(255)


def _column(parameter: Tensor, images: Tensor) -> Tensor:
    """One float32 value an image, shaped to broadcast over it, on its device."""
    return parameter.float().view(-1, 1, 1, 1).to(images.device, non_blocking=True)


def _constants(images: Tensor, *channels: float) -> Tensor:
    """One float32 value a channel, shaped to broadcast over images, on their device."""
    return torch.tensor(channels, dtype=torch.float32).view(-1, 1, 1).to(images.device, non_blocking=True)


def _choose(condition: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """``torch.where`` for finite numbers: exact at weights 0 and 1, and many times as fast on a CPU."""
    return torch.lerp(no, yes, _number(condition))


def _number(condition: Tensor) -> Tensor:
    """float32 1 or 0; by way of uint8, which is several times as fast on a CPU."""
    return condition.view(torch.uint8).float()


def _grayscale(images: Tensor) -> Tensor:
    """Whole grey levels, float32 (n, 1, H, W)."""
    if images.shape[1] == 1:
        return images.float()
    red, green, blue = images.split(1, dim=1)
    return red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114).floor_()


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """``factor * images + (1 - factor) * other``; the second product is added in one fused step."""
    factor = factor.double()
    scaled = images * _column(factor, images)
    return _to_uint8(torch.addcmul(scaled, other, _column(1 - factor, images)))


def _to_uint8(values: Tensor) -> Tensor:
    return values.clamp_(0, 255).to(torch.uint8)
