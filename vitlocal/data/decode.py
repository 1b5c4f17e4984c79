"""Image files as people see them: upright, over white, in 8 bits a channel; brought to one size."""

import io
import re
import warnings
from typing import Literal

import numpy as np
from PIL import ExifTags, Image
from torchvision.transforms.v2 import functional as TF

from vitlocal.errors import InputError

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
"""What Pillow may decode, whatever a file is called: some of its other readers start programs."""

Resize = Literal["crop", "pad", "squash"]
"""How an image comes to another shape: cut, with black bars, or stretched."""

BACKGROUND = "white"  # what most pages show a transparent image on

TURNS: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by the orientation in its EXIF data."""

BITS_PER_SAMPLE, PHOTOMETRIC_INTERPRETATION, WHITE_IS_ZERO = 258, 262, 0  # of TIFF files


def decode(content: bytes, size: tuple[int, int], resize: Resize, name: str) -> np.ndarray:
    """Read an image file as an RGB image of one size.

    It is turned upright as its EXIF data say. Transparency is composited over white; grey values of more
    than 8 bits are scaled to 8; of an animation or of several pages the first is read. The image is then
    resized (bilinear, antialiased), as :func:`fit` says.

    Args:
        content: the file.
        size: height and width of the result.
        resize: how it comes to that shape.
        name: the file's name, for messages.

    Returns:
        uint8 (3, H, W).

    Raises:
        InputError: the file can't be decoded, has pixels whose range is unknown or far too many of them.
    """
    try:
        # Pillow only warns of an image with more pixels than its limit, and refuses at twice as many.
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", ".*EXIF")  # damaged EXIF data leave the picture whole
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                return np.asarray(fit(_rgb(image, name), size, resize, name)).transpose(2, 0, 1)
    except InputError:
        raise
    # Pillow's readers raise many kinds of errors on damaged files.
    except Exception as error:
        said = re.sub(r" *<_io\.BytesIO[^>]*>", "", str(error))  # what Pillow calls the file
        raise InputError(f"{name} can't be decoded ({said}): replace or remove it") from error


def fit(image: Image.Image, size: tuple[int, int], resize: Resize, name: str) -> Image.Image:
    """Bring an image to a size.

    Args:
        image: of any size.
        size: height and width wanted.
        resize: ``crop`` covers the size and cuts the centre out; ``pad`` fits the whole image in, between
            black bars; ``squash`` stretches it.
        name: of the image, for messages.

    Raises:
        InputError: the image is so long that it would be huge once it covers ``size``.
    """
    height, width = size
    if resize == "squash":
        return TF.resize(image, [height, width], TF.InterpolationMode.BILINEAR)
    fills_width = height * image.width < width * image.height  # when it is resized to cover the size
    if fills_width == (resize == "crop"):
        scaled = (max(1, width * image.height // image.width), width)
    else:
        scaled = (height, max(1, height * image.width // image.height))
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and scaled[0] * scaled[1] > limit:
        raise InputError(
            f"{name} is {image.width}x{image.height}, too long to cover {width}x{height}: "
            "crop it, remove it, or give resize pad or squash"
        )
    # Cropping pads what is too small.
    return TF.center_crop(TF.resize(image, list(scaled), TF.InterpolationMode.BILINEAR), [height, width])


def _rgb(image: Image.Image, name: str) -> Image.Image:
    """An opened image decoded, upright and in 8 bits."""
    image.load()
    turn = TURNS.get(_orientation(image))
    if image.mode.startswith(("I", "F")):
        image = _deep_grey(image, name)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, BACKGROUND), image)
    image = image.convert("RGB")
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> object:
    # ImageOps.exif_transpose would do, but for its writing the EXIF data anew, which fails on odd ones.
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # of many kinds, where the data are damaged: the picture isn't
        return None


def _deep_grey(image: Image.Image, name: str) -> Image.Image:
    """Grey of 16 bits in 8, with the alpha that a transparent value gives it."""
    tags = getattr(image, "tag_v2", {})  # of a TIFF file
    # Pillow 10 has what a PNG or PGM file holds in 32 bits, of which it uses 16.
    if not image.mode.startswith("I;16") and image.format not in ("PNG", "PPM"):
        raise InputError(
            f"{name} has pixels of 32 or signed ones of 16 bits, whose range is unknown: "
            "convert it to 8 or to unsigned 16 bits"
        )
    values = np.asarray(image).astype(np.float64)
    greatest = 2 ** tags.get(BITS_PER_SAMPLE, (16,))[0] - 1
    grey = np.rint(values * (255 / greatest))
    if tags.get(PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO:  # which Pillow minds in 8 bits only
        grey = 255 - grey
    scaled = Image.fromarray(grey.astype(np.uint8))
    if (transparent := image.info.get("transparency")) is not None:
        scaled.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return scaled
