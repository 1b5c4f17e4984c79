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
    values = images.float()
    inner = values[..., 1:-1, 1:-1]
    rows = values[..., :-2] + values[..., 1:-1] + values[..., 2:]
    # Centre weighs 5, the eight around it 1. A whole number over 13 is never near half a level, so
    # this rounds as torchvision's convolution does, whatever arithmetic the latter runs in.
    smooth = ((rows[..., :-2, :] + rows[..., 1:-1, :] + rows[..., 2:, :] + 4 * inner) / 13).round_()
    sharpened = torch.addcmul(inner, smooth.sub_(inner), _column(1 - factor.double(), images))
    values[..., 1:-1, 1:-1] = sharpened
    return _to_uint8(values)


def adjust_hue(images: Tensor, factor: Tensor) -> Tensor:
    """Turn the hue by ``factor`` of a full circle (-0.5 to 0.5); grey images stay as they are."""
    if images.shape[1] == 1:
        return images
    rgb = images.float().mul_(1 / 255)
    red, green, blue = rgb.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    grey = chroma == 0  # hue and saturation 0; added to a divisor where any but 0 will do
    # How far each channel is below the largest, in units of the chroma.
    below = (value.unsqueeze(1) - rgb).div_((chroma + grey).unsqueeze(1))
    below_red, below_green, below_blue = below.unbind(1)
    sixths = torch.where(
        value == red,
        below_blue - below_green,
        torch.where(value == green, below_red + 2 - below_blue, below_green + 4 - below_red),
    )
    hue = sixths.mul_(1 / 6).add_(1).fmod_(1)
    saturation = chroma.div_(value + grey)
    sixths = hue.add_(_column(factor, images).squeeze(1)).remainder_(1).mul_(6)
    sector = sixths.floor()
    rising = saturation * sixths.sub_(sector)
    pale = 1 - saturation
    least = pale * value
    # In even sectors the middle channel rises towards the largest, in odd ones it falls from it.
    falling = (1 - rising).mul_(value)
    middle = torch.where(sector.remainder(2) == 1, falling, rising.add_(pale).mul_(value))
    # Each channel is the largest in the two sectors about its own hue, the least in the two opposite.
    turns = torch.tensor([0.0, 4.0, 2.0], device=images.device).view(1, 3, 1, 1)
    nearness = (sector.unsqueeze(1) + turns).remainder_(6).sub_(2.5).abs_()
    value, middle, least = value.unsqueeze(1), middle.clamp_(0, 1).unsqueeze(1), least.unsqueeze(1)
    turned = torch.where(nearness > 2, value, torch.where(nearness > 1, middle, least))
    # Just under 256, so that each level is equally wide and 1.0 gives 255.
    return turned.mul_(255 + 1 - 1e-3).to(torch.uint8)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest ``bits`` bits (0 to 8) of each value."""
    mask = 256 - torch.bitwise_left_shift(1, 8 - bits.long())
    return images & mask.to(torch.uint8).view(-1, 1, 1, 1).to(images.device, non_blocking=True)


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert the values at or above ``threshold`` (0 to 255)."""
    return torch.where(images >= _column(threshold, images), 255 - images, images)


def _column(parameter: Tensor, images: Tensor) -> Tensor:
    """One float32 value an image, shaped to broadcast over it, on its device."""
    return parameter.float().view(-1, 1, 1, 1).to(images.device, non_blocking=True)


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
