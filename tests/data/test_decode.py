"""Every kind of image file against an independent reference: another decoder, or a closed form."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import functional as TF

from vitlocal.data.decode import decode
from vitlocal.errors import InputError


def encode(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width, height, seed=0, mode="RGB"):
    shape = (height, width, len(mode)) if len(mode) > 1 else (height, width)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8), mode)


def png(width, height, depth, kind, rows, *chunks):
    """A PNG file by the letter of its specification, for what Pillow doesn't write."""

    def chunk(name, content):
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + b"".join(chunk(*each) for each in chunks)
        + pixels
        + chunk(b"IEND", b"")
    )


def square(content, size=8):
    return decode(content, (size, size), "crop", "x")


def pixels(image):
    return np.asarray(image).transpose(2, 0, 1)


@pytest.mark.parametrize(("width", "height"), [(31, 20), (20, 31), (64, 64), (7, 9), (90, 17), (17, 90)])
def test_crop_is_torchvisions(width, height):
    image = noise(width, height)
    expected = TF.center_crop(TF.resize(image, [16]), [16])
    assert (square(encode(image), 16) == pixels(expected)).all()


@pytest.mark.parametrize("size", [(12, 20), (20, 12), (30, 8)])
@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (33, 33), (5, 6)])
def test_crop_covers_and_cuts_the_centre(size, shape):
    image = noise(shape[1], shape[0])
    scale = max(size[0] / shape[0], size[1] / shape[1])
    whole = image.resize(
        [max(side, int(scale * own + 1e-9)) for side, own in zip(size[::-1], shape[::-1], strict=True)],
        Image.Resampling.BILINEAR,
    )
    left, top = round((whole.width - size[1]) / 2), round((whole.height - size[0]) / 2)
    expected = whole.crop((left, top, left + size[1], top + size[0]))
    assert (decode(encode(image), size, "crop", "x") == pixels(expected)).all()


@pytest.mark.parametrize(
    ("shape", "bars"), [((10, 20), (slice(0, 4), slice(12, 16))), ((20, 10), (slice(0, 4), slice(12, 16)))]
)
def test_pad_shows_the_whole_image_between_black_bars(shape, bars):
    image = Image.new("RGB", shape[::-1], "white")
    padded = decode(encode(image), (16, 16), "pad", "x")
    expected = np.full((16, 16), 255)
    for bar in bars:
        expected[bar if shape[0] < shape[1] else slice(None), slice(None) if shape[0] < shape[1] else bar] = 0
    assert (padded == expected).all()


def test_pad_keeps_the_pixels_of_an_image_that_fits():
    image = noise(16, 8)
    assert (decode(encode(image), (12, 16), "pad", "x")[:, 2:10] == pixels(image)).all()


def test_squash_stretches():
    image = noise(30, 10)
    expected = image.resize((12, 20), Image.Resampling.BILINEAR)
    assert (decode(encode(image), (20, 12), "squash", "x") == pixels(expected)).all()


def test_an_image_that_fits_keeps_its_pixels():
    image = noise(16, 12)
    for resize in ("crop", "pad", "squash"):
        assert (decode(encode(image), (12, 16), resize, "x") == pixels(image)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_photos_are_upright(orientation, kind):
    image = Image.new("RGB", (32, 16), "black")
    ImageDraw.Draw(image).rectangle((0, 0, 15, 7), "red")
    ImageDraw.Draw(image).rectangle((16, 0, 31, 7), "lime")
    exif = Image.Exif()
    exif[274] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})
    # Where row 0 and column 0 of the file are in the picture, by the EXIF specification.
    turned = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: x.transpose(1, 0, 2)[:, ::-1],
        7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
        8: lambda x: x.transpose(1, 0, 2)[::-1],
    }[orientation](np.asarray(image))
    content = encode(image, kind, exif=exif, **options)
    got = decode(content, turned.shape[:2], "crop", "x").transpose(1, 2, 0)
    assert np.abs(got.astype(int) - turned).mean() < 4
    if kind == "JPEG":
        read = decode_image(
            torch.frombuffer(bytearray(content), dtype=torch.uint8), apply_exif_orientation=True
        )
        assert np.abs(got.astype(int) - read.permute(1, 2, 0).numpy()).mean() < 1


def test_damaged_exif_data_leave_the_picture():
    image = noise(8, 8)
    for exif in (b"Exif\0\0nothing", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0II*\0\xff\xff\xff\xff"):
        assert square(encode(image, "PNG", exif=exif)).tolist() == pixels(image).tolist()


def over_white(color, alpha):
    alpha = alpha.astype(np.float64) / 255
    return (color * alpha[..., None] + 255 * (1 - alpha[..., None])).transpose(2, 0, 1)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_transparency_is_composited_over_white(kind):
    image = noise(8, 8, mode="RGBA")
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    array = np.asarray(image)
    expected = over_white(array[..., :3], array[..., 3])
    assert np.abs(square(encode(image, kind, **options)) - expected).max() <= 1
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert (square(encode(clear, kind, **options)) == 255).all()


def test_grey_with_alpha_is_composited_over_white():
    array = np.random.default_rng(0).integers(0, 256, (8, 8, 2), dtype=np.uint8)
    expected = over_white(array[..., :1].repeat(3, axis=2), array[..., 1])
    for kind in ("PNG", "TIFF"):
        assert np.abs(square(encode(Image.fromarray(array, "LA"), kind)) - expected).max() <= 1


def test_transparent_colors_of_a_palette_are_white():
    color = noise(8, 8).quantize(4)
    opaque = np.asarray(color.convert("RGB"))
    index = np.asarray(color)
    for transparency, alphas in ((2, [255, 255, 0, 255]), (b"\x00\x80\xff\x10", [0, 128, 255, 16])):
        content = encode(color, "PNG", transparency=transparency)
        assert np.abs(square(content) - over_white(opaque, np.array(alphas)[index])).max() <= 1


def test_a_transparent_value_is_white():
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    content = png(8, 8, 8, 0, [row.tobytes() for row in grey], (b"tRNS", struct.pack(">H", 9)))
    expected = np.where(grey == 9, 255, grey)
    assert (square(content) == expected).all()
    color = np.stack([grey, grey, grey], axis=2)
    content = png(8, 8, 8, 2, [row.tobytes() for row in color], (b"tRNS", struct.pack(">HHH", 9, 9, 9)))
    assert (square(content) == expected).all()
    deep = grey.astype(">u2") * 257
    content = png(8, 8, 16, 0, [row.tobytes() for row in deep], (b"tRNS", struct.pack(">H", 9 * 257)))
    assert (square(content) == expected).all()
    color = np.stack([deep, deep, deep], axis=2)
    content = png(
        8, 8, 16, 2, [row.tobytes() for row in color], (b"tRNS", struct.pack(">HHH", *[9 * 257] * 3))
    )
    assert (square(content) == expected).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_grey_of_16_bits_is_scaled_to_8(kind):
    deep = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
    written = b"P5 8 8 65535\n" + deep.astype(">u2").tobytes()  # older Pillows write no such PPM
    got = square(written if kind == "PPM" else encode(Image.fromarray(deep), kind))
    assert (got == np.rint(deep / 257)).all()
    assert (got.min(), got.max()) == (0, 255)


def test_grey_with_the_other_order_of_bytes_and_of_values():
    deep = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
    assert (square(encode(Image.fromarray(deep.astype(">u2")), "TIFF")) == np.rint(deep / 257)).all()
    inverted = encode(Image.fromarray(deep), "TIFF", tiffinfo={262: 0})
    if Image.open(io.BytesIO(inverted)).tag_v2[262] == 0:
        assert (square(inverted) == 255 - np.rint(deep / 257)).all()


def test_color_of_16_bits_is_scaled_to_8():
    deep = np.random.default_rng(0).integers(0, 65536, (8, 8, 3), dtype=np.uint16)
    content = png(8, 8, 16, 2, [row.astype(">u2").tobytes() for row in deep])
    assert np.abs(square(content) - deep.transpose(2, 0, 1) / 257).max() <= 1


def test_pixels_of_an_unknown_range_are_refused():
    for deep in (np.full((8, 8), 0.5, dtype=np.float32), np.full((8, 8), 70000, dtype=np.int32)):
        with pytest.raises(InputError, match=r"deep\.tif has pixels of 32 .*: convert it to 8 or"):
            decode(encode(Image.fromarray(deep), "TIFF"), (8, 8), "crop", "deep.tif")


def test_grey_bilevel_palette_and_print_colors_become_rgb():
    grey = noise(8, 8, mode="L")
    assert (square(encode(grey)) == np.asarray(grey)[None]).all()
    bilevel = grey.convert("1")
    assert (square(encode(bilevel)) == np.asarray(bilevel)[None] * 255).all()
    palette = noise(8, 8).quantize(4)
    assert (square(encode(palette)) == pixels(palette.convert("RGB"))).all()
    smooth = Image.linear_gradient("L").resize((16, 16))
    inks = Image.merge("CMYK", [smooth, smooth.rotate(90), smooth.rotate(180), Image.new("L", (16, 16), 40)])
    content = encode(inks, "JPEG", quality=100)
    read = decode_image(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.RGB)
    assert np.abs(square(content, 16).astype(int) - read.numpy()).max() <= 3


def test_the_first_of_several_frames_is_read():
    frames = [noise(8, 8, seed).quantize(8) for seed in range(2)]
    content = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (square(content) == pixels(frames[0].convert("RGB"))).all()
    pages = [noise(8, 8, seed) for seed in range(2)]
    for kind in ("TIFF", "PNG"):
        content = encode(pages[0], kind, save_all=True, append_images=pages[1:])
        assert (square(content) == pixels(pages[0])).all()


def test_undecodable_images_are_named():
    jpeg = encode(noise(64, 64), "JPEG")
    for content in (jpeg[: len(jpeg) // 2], b"", b"no image"):
        with pytest.raises(InputError, match=r"^bad\.jpg can't be decoded \([^<>]*\): replace or remove it$"):
            decode(content, (8, 8), "crop", "bad.jpg")


def test_huge_images_are_refused_before_they_are_decoded():
    bomb = png(30000, 30000, 8, 2, [])
    with pytest.raises(InputError, match=r"bomb\.png can't be decoded .*exceeds limit"):
        decode(bomb, (8, 8), "crop", "bomb.png")
    long = encode(Image.new("L", (30000, 1)))
    with pytest.raises(InputError, match=r"long\.png is 30000x1, too long to cover 64x64"):
        decode(long, (64, 64), "crop", "long.png")
    assert decode(long, (64, 64), "pad", "long.png").shape == (3, 64, 64)
    assert decode(long, (64, 64), "squash", "long.png").shape == (3, 64, 64)
