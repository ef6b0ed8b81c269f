"""Claims about transparency: it is found wherever a file keeps it, at any depth."""

import io
import itertools
import struct

import numpy as np
import pytest
import tifffile
from helpers.containers import bmp, chunk, png, smooth, tiff
from helpers.photos import noise
from PIL import Image

from btsrn_jax.errors import InputError
from btsrn_jax.images import decode


def read(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    return decode.read_picture(tmp_path / name)


def short(order, *values):
    return 3, len(values), struct.pack(f"{order}{len(values)}H", *values)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("top", [255, 65535])
@pytest.mark.parametrize("extra", [None, 0, 1, 2, 999])
@pytest.mark.parametrize("channels", [2, 4])
def test_the_last_channel_of_a_tiff_is_alpha_whatever_it_is_called(
    tmp_path, channels, extra, top, order
):
    pixels = smooth(channels=channels, top=top)
    pixels[0, 0] = 0
    tags = {} if extra is None else {338: short(order, extra)}
    colour, alpha = pixels[..., :-1], pixels[..., -1:]
    stored = pixels
    if extra == 1:  # multiplied by alpha
        colour = np.rint(colour * (alpha / top)).astype(pixels.dtype)
        stored = np.concatenate([colour, alpha], axis=2)
        divided = np.minimum(colour * (top / np.maximum(alpha, 1)), top)
        colour = np.rint(divided).astype(pixels.dtype)
    picture = read(tmp_path, "a.tif", tiff(stored, tags, order))
    assert picture.pixels.dtype == pixels.dtype
    np.testing.assert_array_equal(picture.alpha, alpha[..., 0])
    difference = np.abs(picture.pixels.astype(int) - colour)
    assert difference.max() <= (extra == 1)
    assert picture.notes == ()


@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_grey_with_alpha_is_read_compressed_and_tiled(
    tmp_path, order, predictor
):
    pixels = noise(40, 50, 2, dtype=np.uint16)
    for tile in (None, (16, 16)):
        tifffile.imwrite(
            tmp_path / "a.tif",
            pixels,
            photometric="minisblack",
            planarconfig="contig",
            extrasamples=["unassalpha"],
            compression="zlib",
            predictor=predictor,
            byteorder=order,
            tile=tile,
        )
        picture = decode.read_picture(tmp_path / "a.tif")
        np.testing.assert_array_equal(picture.pixels, pixels[..., :1])
        np.testing.assert_array_equal(picture.alpha, pixels[..., 1])


@pytest.mark.parametrize("top", [255, 65535])
def test_grey_from_white_to_black_is_inverted_and_its_alpha_is_not(tmp_path, top):
    pixels = smooth(channels=2, top=top)
    data = tiff(pixels, {262: short("<", 0), 338: short("<", 2)})
    picture = read(tmp_path, "a.tif", data)
    np.testing.assert_array_equal(picture.pixels[..., 0], top - pixels[..., 0])
    np.testing.assert_array_equal(picture.alpha, pixels[..., 1])


def test_planes_with_an_unnamed_fourth_keep_it(tmp_path):
    pixels = noise(9, 12, 4)
    for extra in (["unspecified"], ["unassalpha"]):
        tifffile.imwrite(
            tmp_path / "a.tif",
            np.moveaxis(pixels, 2, 0),
            photometric="rgb",
            planarconfig="separate",
            extrasamples=extra,
        )
        picture = decode.read_picture(tmp_path / "a.tif")
        np.testing.assert_array_equal(picture.pixels, pixels[..., :3])
        np.testing.assert_array_equal(picture.alpha, pixels[..., 3])


def test_channels_beyond_alpha_are_said(tmp_path):
    for extra, want in (
        ((2, 0), "channel beyond alpha not kept"),
        ((0, 0), "channel beyond alpha not kept"),
        ((1, 0, 0), "2 channels beyond alpha not kept"),
    ):
        pixels = noise(9, 12, 3 + len(extra))
        pixels[..., 3] = 255
        picture = read(tmp_path, "a.tif", tiff(pixels, {338: short("<", *extra)}))
        np.testing.assert_array_equal(picture.pixels, pixels[..., :3])
        assert picture.alpha.min() == 255
        assert picture.notes == (want,)
    for extra in ({}, {338: short("<", 0)}):
        cmyk = {262: short("<", 5)} | extra
        picture = read(tmp_path, "a.tif", tiff(noise(9, 12, 5), cmyk))
        assert "channels beyond CMYK not kept" in picture.notes


@pytest.mark.parametrize(
    ("channels", "dtype", "tags", "words"),
    [
        (5, np.uint8, {262: 5, 338: 2}, "CMYK with alpha of 8 bits"),
        (3, np.float32, {339: 3}, "floating point RGB of 32 bits"),
        (1, np.float32, {339: 3}, "floating point"),
        (2, np.float32, {339: 3, 338: 2}, "floating point grey with alpha of 32 bits"),
        (4, np.float32, {339: 3, 338: 2}, "floating point RGB with alpha of 32 bits"),
        (3, np.int16, {339: 2}, "signed integer RGB of 16 bits"),
        (3, np.uint32, {}, "RGB of 32 bits"),
        (1, np.uint32, {}, "32-bit"),
        (3, np.uint8, {262: 8}, "CIE Lab"),
        (3, np.uint16, {262: 8}, "CIE Lab of 16 bits"),
        (1, np.uint16, {262: 32803}, "raw sensor"),
        (6, np.uint16, {338: (2, 0, 0)}, "RGB with 3 more channels of 16 bits"),
        (4, np.uint8, {277: 300}, "RGB with 297 more channels of 8 bits"),
        (3, np.uint8, {259: 50002}, "compression 50002"),
    ],
)
def test_pixels_that_are_not_read_are_called_by_their_names(
    tmp_path, channels, dtype, tags, words
):
    tags = dict(tags)
    for tag, value in tags.items():
        values = value if isinstance(value, tuple) else (value,)
        tags[tag] = short("<", *values * (channels if tag == 339 else 1))
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(np.zeros((4, 6, channels), dtype), tags))
    with pytest.raises(InputError) as caught:
        decode.read_picture(path)
    message = str(caught.value)
    assert words in message
    assert "mode" not in message
    assert "\n" not in message


def packed(values, bits):
    """Returns rows of values below 2^bits as PNG stores them."""
    shifts = np.arange(bits)[::-1]
    rows = (values[..., None] >> shifts & 1).reshape(len(values), -1)
    return [np.packbits(row.astype(np.uint8)).tobytes() for row in rows]


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_transparent_grey_of_a_png_counts_at_every_depth(tmp_path, bits):
    top = 2**bits - 1
    values = noise(8, 16, dtype=np.uint16) & top
    for key in {0, top, int(values[2, 3])}:
        trns = chunk(b"tRNS", struct.pack(">H", key))
        data = png(None, trns, b"", 0, bits, packed(values, bits), (8, 16))
        picture = read(tmp_path, "a.png", data)
        np.testing.assert_array_equal(
            picture.pixels[..., 0], values * ((65535 if bits == 16 else 255) // top)
        )
        np.testing.assert_array_equal(picture.alpha == 0, values == key)
        np.testing.assert_array_equal(
            picture.alpha == (65535 if bits == 16 else 255), values != key
        )


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_the_transparency_of_a_palette_counts_at_every_depth(tmp_path, bits):
    count = min(2**bits, 5)
    index, colours = noise(8, 16) % count, noise(count, 3)
    alphas = {(0,), (255, 0)[:count], (7, 200)[:count], tuple(range(count))}
    for alpha in alphas | {(255,) * count + (9,) * 300}:
        chunks = chunk(b"PLTE", colours.tobytes()) + chunk(
            b"tRNS", bytes(value % 256 for value in alpha)
        )
        data = png(None, chunks, b"", 3, bits, packed(index, bits), (8, 16))
        picture = read(tmp_path, "a.png", data)
        np.testing.assert_array_equal(picture.pixels, colours[index])
        table = np.array([*alpha, *[255] * count])
        np.testing.assert_array_equal(picture.alpha, table[index])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_transparent_colour_of_a_png_is_alpha_once(tmp_path, dtype):
    pixels = noise(8, 16, 3, dtype=dtype)
    key = chunk(b"tRNS", pixels[2, 3].astype(">u2").tobytes())
    picture = read(tmp_path, "a.png", png(pixels, key))
    want = np.all(pixels == pixels[2, 3], axis=2)
    np.testing.assert_array_equal(picture.alpha == 0, want)
    # Where each pixel has alpha, and after the pixels, the chunk means nothing.
    both = np.concatenate([pixels, pixels[..., :1]], axis=2)
    picture = read(tmp_path, "a.png", png(both, key))
    np.testing.assert_array_equal(picture.alpha, pixels[..., 0])
    assert read(tmp_path, "a.png", png(pixels, after=key)).alpha is None


def test_a_bmp_without_visible_pixels_is_opaque_and_other_formats_are_not(tmp_path):
    clear = noise(8, 16, 4)
    clear[..., 3] = 0
    for header in (108, 124):
        picture = read(tmp_path, "a.bmp", bmp(clear, header))
        np.testing.assert_array_equal(picture.pixels, clear[..., :3])
        assert picture.alpha is None
        assert picture.notes == ("alpha is 0 everywhere: taken as opaque",)
        half = clear.copy()
        half[3, 4, 3] = 1
        picture = read(tmp_path, "a.bmp", bmp(half, header))
        np.testing.assert_array_equal(picture.alpha, half[..., 3])
    file = io.BytesIO()
    Image.fromarray(clear).save(file, "WebP", lossless=True, exact=True)
    for name, data in itertools.chain(
        [("a.png", png(clear)), ("a.webp", file.getvalue())],
        [("a.tif", tiff(clear, {338: short("<", 2)}))],
    ):
        assert read(tmp_path, name, data).alpha.max() == 0
