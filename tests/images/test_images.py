"""Claims about image files of every kind: read right, written whole, or named."""

import concurrent.futures
import io
import os
import pathlib
import struct
import threading
import time
import warnings
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from helpers.photos import exif_block, noise
from PIL import Image, ImageCms, TiffImagePlugin

from btsrn_jax.errors import InputError
from btsrn_jax.images import decode, encode, views
from btsrn_jax.images import files as images

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SUFFIXES = (".png", ".jpg", ".webp", ".tif", ".bmp")


def parsed(block):
    exif = Image.Exif()
    exif.load(block or b"")
    return exif


def chunk(kind, payload):
    crc = struct.pack(">I", zlib.crc32(kind + payload))
    return struct.pack(">I", len(payload)) + kind + payload + crc


def png(pixels, colour, depth=16, before=b"", after=b"", filters=(0,)):
    """Writes a PNG by the book, with any of the five filters: another writer."""
    h, w = pixels.shape[:2]
    rows = pixels.reshape(h, w, -1).astype(f">u{depth // 8}").view(np.uint8)
    rows = rows.reshape(h, -1).astype(int)
    step = rows.shape[1] // w
    data = b""
    for y, row in enumerate(rows):
        up = rows[y - 1] if y else np.zeros_like(row)
        left = np.concatenate([np.zeros(step, int), row[:-step]])
        corner = np.concatenate([np.zeros(step, int), up[:-step]])
        guess = left + up - corner
        off = [abs(guess - x) for x in (left, up, corner)]
        paeth = np.where(off[1] <= off[2], up, corner)
        paeth = np.where((off[0] <= off[1]) & (off[0] <= off[2]), left, paeth)
        kind = filters[y % len(filters)]
        less = (0, left, up, (left + up) // 2, paeth)[kind]
        data += bytes([kind]) + ((row - less) % 256).astype(np.uint8).tobytes()
    head = struct.pack(">2I5B", w, h, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + before + chunk(b"IDAT", zlib.compress(data))
    return b"\x89PNG\r\n\x1a\n" + body + after + chunk(b"IEND", b"")


def cmyk_profile():
    """Returns the smallest ICC profile of CMYK: each ink makes white paper greyer."""
    ink = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), -1).reshape(16, 4)
    lab = np.stack([255 - 60 * ink.sum(1), *np.full((2, 16), 128)], axis=1)
    ramp = bytes(range(256))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0])
    table += (65536 * np.eye(3)).astype(">i4").tobytes()
    table += 4 * ramp + lab.astype(np.uint8).tobytes() + 3 * ramp
    head = struct.pack(
        ">I4sI4s4s4s12s4s",
        0,
        b"",
        0x02400000,
        b"prtr",
        b"CMYK",
        b"Lab ",
        struct.pack(">6H", 2020, 1, 1, 0, 0, 0),
        b"acsp",
    )
    head += bytes(28) + struct.pack(">3i", 63190, 65536, 54061)  # D50
    body = head.ljust(128, b"\0") + struct.pack(">I4sII", 1, b"A2B0", 144, len(table))
    return struct.pack(">I", len(body) + len(table)) + body[4:] + table


def saved(path, image, kind=None, **options):
    image.save(path, kind, **options)
    return path


def error_of(path):
    with pytest.raises(InputError) as caught:
        decode.read_picture(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    with pytest.raises(InputError):
        images.read_image(path)
    return message


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_written_is_read_again_or_its_loss_is_said(
    tmp_path, suffix, dtype, channels, alpha
):
    pixels = noise(5, 7, channels, dtype=dtype)
    cover = noise(5, 7, dtype=dtype, seed=1) if alpha else None
    icc = SRGB if channels == 3 else None
    path = tmp_path / f"x{suffix}"
    lost = " ".join(
        encode.write_picture(path, decode.Picture(pixels, cover, icc, exif_block(6)))
    )
    back = decode.read_picture(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert decode.image_size(path) == (5, 7) == back.pixels.shape[:2]
    assert back.notes == ()
    if "16-bit" not in lost:
        assert back.pixels.dtype == dtype
    if "grey" not in lost:
        assert back.pixels.shape == pixels.shape
    assert (back.alpha is not None) == (alpha and "alpha" not in lost)
    assert back.icc == (None if "ICC" in lost else icc)
    if "EXIF" not in lost:
        exif = parsed(back.exif)
        assert (exif[0x010F], exif[0x0112]) == ("Maker", 1)
        assert exif.get_ifd(0x8769)[0x9003] == "2020:01:01 00:00:00"
        assert exif.get_ifd(0x8825)[2] == (1.0, 2.0, 3.0)
    if suffix == ".jpg":
        return
    if not lost or lost.startswith(("EXIF", "ICC")):
        np.testing.assert_array_equal(back.pixels, pixels)
        if alpha:
            np.testing.assert_array_equal(back.alpha, cover)
    # PNG and TIFF hold everything, but for one kind of TIFF that few programs read.
    if suffix == ".png" or (suffix == ".tif" and (dtype, channels) != (np.uint16, 1)):
        assert lost == ""


@pytest.mark.parametrize(
    ("colour", "channels"), [(0, 1), (4, 2), (2, 3), (6, 4)], ids=["L", "LA", "", "A"]
)
def test_16_bit_png_of_another_writer_keeps_all_bits(tmp_path, colour, channels):
    pixels = noise(11, 6, channels, dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(png(pixels, colour, filters=range(5)))
    picture = decode.read_picture(tmp_path / "a.png")
    got = picture.pixels
    if picture.alpha is not None:
        got = np.concatenate([got, picture.alpha[..., None]], axis=2)
    np.testing.assert_array_equal(got, pixels)
    notes = []
    eight = images.read_image(tmp_path / "a.png", notes)
    assert "16-bit reduced to 8-bit" in notes
    assert ("alpha dropped" in notes) == (channels in (2, 4))
    want = np.rint(picture.pixels / 257).astype(np.uint8)
    np.testing.assert_array_equal(images.as_rgb(eight), images.as_rgb(want.squeeze()))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "zlib", "predictor": True}, {"tile": (16, 16)}],
    ids=["raw", "deflate", "tiled"],
)
def test_16_bit_tiff_of_another_writer_keeps_all_bits(tmp_path, order, options):
    path = tmp_path / "a.tif"
    for channels in (1, 3, 4):
        pixels = noise(33, 47, channels, dtype=np.uint16)
        extra = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
        kind = "rgb" if channels > 1 else "minisblack"
        data = pixels if channels > 1 else pixels[..., 0]
        tifffile.imwrite(
            path, data, photometric=kind, byteorder=order, **extra, **options
        )
        picture = decode.read_picture(path)
        np.testing.assert_array_equal(picture.pixels, pixels[..., : min(channels, 3)])
        if channels == 4:
            np.testing.assert_array_equal(picture.alpha, pixels[..., 3])


@pytest.mark.parametrize("order", [b"II", b"MM"])
def test_16_bit_tiff_with_lzw_keeps_all_bits(tmp_path, order):
    """Photoshop's usual compression: tifffile reads it only with imagecodecs."""
    pixels = noise(20, 30, 3, dtype=np.uint16)
    data = pixels.astype("<u2" if order == b"II" else ">u2").tobytes()
    codes = []  # of 9 bits, and a new table before they would need more
    for start in range(0, len(data), 200):
        codes += [256, *data[start : start + 200]]
    bits = np.array([*codes, 257])[:, None] >> np.arange(9)[::-1] & 1
    strip = np.packbits(bits.astype(np.uint8)).tobytes()
    tags = TiffImagePlugin.ImageFileDirectory_v2(prefix=order)
    tags.update({256: 30, 257: 20, 258: (16, 16, 16), 259: 5, 262: 2, 277: 3})
    tags.update({278: 20, 273: (0,), 279: (len(strip),)})
    tags.tagtype[273] = 4
    with (tmp_path / "a.tif").open("wb") as file:
        tags.save(file)
        file.write(strip)
    np.testing.assert_array_equal(
        decode.read_picture(tmp_path / "a.tif").pixels, pixels
    )


def test_our_16_bit_tiff_is_read_by_another_reader(tmp_path):
    pixels = noise(700, 501, 3, dtype=np.uint16)  # several strips
    images.write_image(tmp_path / "a.tif", pixels)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), pixels)


def test_premultiplied_16_bit_tiff_is_divided_by_its_alpha(tmp_path):
    colour, alpha = noise(9, 9, 3, dtype=np.uint16), noise(9, 9, 1, dtype=np.uint16)
    alpha = np.maximum(alpha, 20000)
    data = np.concatenate([np.rint(colour * (alpha / 65535)), alpha], axis=2)
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, data.astype(np.uint16), photometric="rgb", extrasamples=["assocalpha"]
    )
    got = decode.read_picture(path).pixels
    assert np.abs(got.astype(int) - colour).max() <= 2


def test_white_is_zero_tiffs_are_inverted(tmp_path):
    for dtype in (np.uint8, np.uint16):
        grey = noise(5, 6, dtype=dtype)
        tifffile.imwrite(tmp_path / "a.tif", grey, photometric="miniswhite")
        got = decode.read_picture(tmp_path / "a.tif").pixels[..., 0]
        np.testing.assert_array_equal(got, np.iinfo(dtype).max - grey)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_exif_orientation_is_applied_and_reset(tmp_path, suffix, orientation):
    # Four flat quarters survive JPEG; what they become is EXIF's own table: the names
    # of the row and column of the stored image that are at the top and at the left.
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :24], upright[:16, 24:], upright[16:, :24] = 250, 170, 90
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: upright.swapaxes(0, 1)[::-1],
        7: upright.swapaxes(0, 1)[::-1, ::-1],
        8: upright.swapaxes(0, 1)[:, ::-1],
    }[orientation]
    block = exif_block(orientation)
    path = tmp_path / f"a{suffix}"
    saved(path, Image.fromarray(np.ascontiguousarray(stored)), exif=block)
    picture = decode.read_picture(path)
    assert decode.image_size(path) == (32, 48) == picture.pixels.shape[:2]
    np.testing.assert_allclose(picture.pixels.astype(int), upright, atol=8)
    assert parsed(picture.exif)[0x0112] == 1
    assert bool(picture.notes) == (orientation != 1)


def test_exif_after_the_pixels_of_a_png_counts(tmp_path):
    block = exif_block(6).removeprefix(b"Exif\0\0")
    pixels = noise(4, 9, 3, dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(png(pixels, 2, after=chunk(b"eXIf", block)))
    assert decode.image_size(tmp_path / "a.png") == (9, 4)
    picture = decode.read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.pixels, np.rot90(pixels, -1))


def test_record_of_the_size_in_exif_is_made_true(tmp_path):
    picture = decode.Picture(noise(10, 14, 3), exif=exif_block(width=7, height=5))
    encode.write_picture(tmp_path / "a.jpg", picture)
    ifd = parsed(decode.read_picture(tmp_path / "a.jpg").exif).get_ifd(0x8769)
    assert (ifd[0xA002], ifd[0xA003]) == (14, 10)


def test_palettes_are_expanded_with_their_transparency(tmp_path):
    colours = noise(4, 3)
    index = noise(6, 8) % 4
    image = Image.fromarray(index).convert("P")
    image.putpalette(colours.tobytes())
    path = saved(tmp_path / "a.png", image)
    picture = decode.read_picture(path)
    np.testing.assert_array_equal(picture.pixels, colours[index])
    assert picture.alpha is None
    assert picture.notes == ("palette expanded to RGB",)
    saved(path, image, transparency=bytes([0, 80, 255, 255]))
    picture = decode.read_picture(path)
    np.testing.assert_array_equal(picture.alpha, np.array([0, 80, 255, 255])[index])
    np.testing.assert_array_equal(picture.pixels, colours[index])


def test_1_bit_and_grey_with_alpha_stay_grey(tmp_path):
    bits = noise(6, 8) > 127
    path = saved(tmp_path / "a.png", Image.fromarray(bits))
    picture = decode.read_picture(path)
    np.testing.assert_array_equal(picture.pixels[..., 0], bits * 255)
    assert images.read_image(path).shape == (6, 8)
    both = noise(6, 8, 2)
    picture = decode.read_picture(saved(tmp_path / "b.png", Image.fromarray(both)))
    np.testing.assert_array_equal(picture.pixels[..., 0], both[..., 0])
    np.testing.assert_array_equal(picture.alpha, both[..., 1])


def test_a_transparent_colour_becomes_alpha_at_any_depth(tmp_path):
    path = tmp_path / "a.png"
    for dtype, depth in ((np.uint8, 8), (np.uint16, 16)):
        for colour, channels in ((0, 1), (2, 3)):
            pixels = noise(6, 8, channels, dtype=dtype)
            key = chunk(b"tRNS", pixels[2, 3].astype(">u2").tobytes())
            path.write_bytes(png(pixels, colour, depth, before=key))
            picture = decode.read_picture(path)
            np.testing.assert_array_equal(picture.pixels, pixels)
            want = np.all(pixels == pixels[2, 3], axis=2)
            np.testing.assert_array_equal(picture.alpha == 0, want)
    two_bits = np.array([[0b00011011]], np.uint8)  # four pixels 0 1 2 3 of 2 bits
    head = struct.pack(">2I5B", 4, 1, 2, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"tRNS", b"\0\1")]
    parts += [chunk(b"IDAT", zlib.compress(b"\0" + two_bits.tobytes()))]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b""))
    picture = decode.read_picture(path)
    assert picture.pixels[0, :, 0].tolist() == [0, 85, 170, 255]
    assert picture.alpha[0].tolist() == [255, 0, 255, 255]


def test_cmyk_and_profiles_of_other_channels_are_converted_or_dropped_and_said(
    tmp_path,
):
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # red
    for suffix in (".jpg", ".tif"):
        picture = decode.read_picture(saved(tmp_path / f"a{suffix}", cmyk))
        red = picture.pixels[4, 4].tolist()
        assert red[0] > 200
        assert max(red[1:]) < 60
        assert "CMYK converted to RGB" in picture.notes[0]
    profiled = saved(tmp_path / "d.jpg", cmyk, icc_profile=cmyk_profile())
    picture = decode.read_picture(profiled)
    assert picture.notes == ("CMYK converted to sRGB by its ICC profile",)
    assert picture.icc is None
    assert np.ptp(picture.pixels) <= 3  # two inks: grey here, and no red
    assert abs(int(picture.pixels.mean()) - 126) < 8  # L* = 100 * 135 / 255
    odd = SRGB[:16] + b"GRAY" + SRGB[20:]
    rgb = saved(tmp_path / "c.png", Image.new("RGB", (8, 8)), icc_profile=odd)
    assert decode.read_picture(rgb).icc is None
    assert "ICC profile dropped" in decode.read_picture(rgb).notes[0]
    # A profile that is not for CMYK cannot be used, and is not kept.
    picture = decode.read_picture(saved(tmp_path / "b.jpg", cmyk, icc_profile=SRGB))
    assert "approximate" in picture.notes[0]


def test_of_animations_and_pages_the_first_is_read_and_said(tmp_path):
    frames = [Image.fromarray(noise(6, 8, 3, seed=k)) for k in range(3)]
    more = {"save_all": True, "append_images": frames[1:]}
    for name in ("a.png", "a.webp", "a.tif"):
        options = more | ({"lossless": True} if name == "a.webp" else {})
        path = saved(tmp_path / name, frames[0], **options)
        picture = decode.read_picture(path)
        np.testing.assert_array_equal(picture.pixels, np.asarray(frames[0]))
        assert picture.notes == ("the first of 3 frames or pages only",)
    path = saved(tmp_path / "a.gif", frames[0], **more)
    assert "none of PNG, JPEG, WebP, BMP, TIFF" in error_of(path)


def test_pixels_that_are_neither_8_nor_16_bits_are_named(tmp_path):
    for image in (
        Image.new("F", (4, 4)),
        Image.new("I", (4, 4)),
        Image.new("LAB", (4, 4)),
    ):
        message = error_of(saved(tmp_path / "a.tif", image))
        assert "8 or 16 bits are read" in message
    path = tmp_path / "b.tif"
    for options in ({}, {"compression": "zlib"}):
        planes = noise(3, 9, 9, dtype=np.uint16)
        tifffile.imwrite(
            path, planes, photometric="rgb", planarconfig="separate", **options
        )
        assert "separate planes" in error_of(path)


def test_the_file_counts_and_not_its_name(tmp_path):
    path = saved(tmp_path / "Ein Bild äöü.png", Image.new("RGB", (8, 8)), "JPEG")
    picture = decode.read_picture(path)
    assert picture.notes == ("read as JPEG, which it is in spite of its name",)


def test_files_that_are_no_images_are_named(tmp_path):
    empty = tmp_path / "empty.png"
    empty.touch()
    assert "is empty" in error_of(empty)
    text = tmp_path / "text.jpg"
    text.write_text("hello, world")
    assert "none of" in error_of(text)
    assert "no such file or folder" in error_of(tmp_path / "nothing.png")
    assert "folder" in error_of(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")  # opened, it would wait for ever
    assert "regular" in error_of(tmp_path / "pipe.png")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_half_a_file_is_named(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    images.write_image(path, noise(64, 64, 3))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "cannot read" in error_of(path)


def test_what_may_not_be_read_is_named(permissions_count):
    folder = pathlib.Path("in")
    images.write_image(folder / "a.png", noise(4, 4, 3))
    images.write_image(folder / "closed" / "b.png", noise(4, 4, 3))
    (folder / "a.png").chmod(0)
    assert "permission" in error_of(folder / "a.png")
    (folder / "closed").chmod(0)
    for path in (folder, folder / "closed"):
        with pytest.raises(InputError, match="closed"):
            images.find_images(path)
    (folder / "closed").chmod(0o700)


def test_unreadable_folders_are_named_or_handed_over(tmp_path, monkeypatch):
    images.write_image(tmp_path / "a.png", noise(4, 4, 3))

    def walk(folder, onerror):
        onerror(PermissionError(13, "Permission denied", f"{folder}/closed"))
        yield str(folder), [], ["a.png", ".hidden.png", "notes.txt"]

    monkeypatch.setattr(images.os, "walk", walk)
    with pytest.raises(InputError, match="closed: Permission denied"):
        images.find_images(tmp_path)
    failed = []
    assert images.find_images(tmp_path, failed) == [tmp_path / "a.png"]
    assert len(failed) == 1


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(
        png(noise(1, 1), 0, 8).replace(  # 60,000 x 60,000
            chunk(b"IHDR", struct.pack(">2I5B", 1, 1, 8, 0, 0, 0, 0)),
            chunk(b"IHDR", struct.pack(">2I5B", 60000, 60000, 8, 0, 0, 0, 0)),
        )
    )
    begin = time.monotonic()
    assert "3600 megapixels, more than 200" in error_of(path)
    with pytest.raises(InputError):
        decode.image_size(path)
    big = io.BytesIO()
    Image.new("L", (160, 120)).save(big, "BMP")
    damaged = bytearray(big.getvalue()[:2000])
    damaged[18:26] = struct.pack("<2i", 40000, 40000)
    (tmp_path / "a.bmp").write_bytes(damaged)
    assert "1600 megapixels" in error_of(tmp_path / "a.bmp")
    assert time.monotonic() - begin < 5


def test_reading_in_threads_leaves_the_warning_filters_alone(tmp_path):
    # Every reader changes them for a moment, for the whole process.
    for k in range(12):
        images.write_image(tmp_path / f"{k}{SUFFIXES[k % 5]}", noise(40, 40, 3))
    before = list(warnings.filters)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        got = list(pool.map(images.read_image, images.find_images(tmp_path) * 5))
    assert len(got) == 60
    assert warnings.filters == before


def test_what_other_threads_write_while_a_tiff_is_decoded_arrives(
    tmp_path, capfd, monkeypatch
):
    """What they write to the descriptor of standard error, and their warnings."""
    path = tmp_path / "a.tif"
    saved(path, Image.fromarray(noise(8, 8, 3)), compression="tiff_lzw")
    load = TiffImagePlugin.TiffImageFile.load

    def other():
        os.write(2, b"from another thread")
        warnings.warn("of another thread", UserWarning, stacklevel=1)

    def load_meanwhile(image):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        warnings.warn("of this file", UserWarning, stacklevel=1)
        return load(image)

    monkeypatch.setattr(TiffImagePlugin.TiffImageFile, "load", load_meanwhile)
    with pytest.warns(UserWarning, match="of another thread"):
        picture = decode.read_picture(path)
    assert picture.notes == ("of this file",)
    assert "from another thread" in capfd.readouterr().err


def test_libtiff_prints_nothing_about_a_damaged_file(tmp_path, capfd):
    path = tmp_path / "a.tif"
    saved(path, Image.fromarray(noise(64, 64, 3)), compression="tiff_adobe_deflate")
    data = bytearray(path.read_bytes())
    data[200:260] = bytes(60)
    path.write_bytes(data)
    assert "decoder error" in error_of(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
def test_very_long_and_flat_images_work(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    images.write_image(path, noise(1, 60000, 3))
    assert images.read_image(path).shape == (1, 60000, 3)


@pytest.mark.parametrize(
    ("name", "h", "w", "limit"),
    [
        ("a.webp", 16384, 1, "16383"),
        ("a.jpg", 1, 65501, "65500"),
        ("a.bmp", 30000, 30000, "2 GB"),
        ("a.tif", 40000, 40000, "4 GB"),
        ("a.gif", 1, 1, ".png"),
        ("a", 1, 1, ".png"),
    ],
)
def test_what_a_format_cannot_hold_is_named_before(tmp_path, name, h, w, limit):
    with pytest.raises(InputError, match=limit):
        encode.check_writable(tmp_path / name, h, w)
    encode.check_writable(tmp_path / "a.png", h, w)


def test_the_longest_sides_are_what_the_writers_can(tmp_path):
    for name, longest in (("a.webp", 16383), ("a.jpg", 65500)):
        encode.check_writable(tmp_path / name, 1, longest)
        images.write_image(tmp_path / name, noise(1, longest, 3))
        assert decode.image_size(tmp_path / name) == (1, longest)


def test_alpha_is_composed_on_white_where_there_is_none(tmp_path):
    pixels = np.full((8, 8, 3), 100, np.uint8)
    for cover, want in ((0, 255), (255, 100), (128, 177)):
        picture = decode.Picture(pixels, np.full((8, 8), cover, np.uint8))
        lost = encode.write_picture(tmp_path / "a.bmp", picture)
        assert "alpha composed on white" in lost[0]
        assert abs(int(images.read_image(tmp_path / "a.bmp")[0, 0, 0]) - want) <= 1


def test_a_failure_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    images.write_image(path, noise(8, 8, 3))
    before = path.read_bytes()

    def fails(self, file, *args, **options):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fails)
    with pytest.raises(OSError, match="No space"):
        images.write_image(path, noise(8, 8, 3, seed=1))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_find_gives_images_of_the_whole_tree_and_no_hidden_ones(tmp_path):
    names = ["b.PNG", "a.jpeg", "sub/ü c.webp", ".part.png", "notes.txt"]
    for name in names:
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.touch()
    found = [str(p.relative_to(tmp_path)) for p in images.find_images(tmp_path)]
    assert found == ["a.jpeg", "b.PNG", "sub/ü c.webp"]
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no images"):
        images.find_images(tmp_path / "none")
    with pytest.raises(InputError, match="no such file or folder"):
        images.find_images(pathlib.Path(tmp_path / "missing"))


def test_the_eight_views_are_distinct_invertible_and_equal_in_jax():
    x = noise(2, 4, 4, 3)
    all_views = [views.turn(x, k) for k in range(8)]
    assert len({view.tobytes() for view in all_views}) == 8
    np.testing.assert_array_equal(all_views[0], x)
    rotations = [np.rot90(y, k) for y in (x[0], x[0, :, ::-1]) for k in range(4)]
    assert {v[0].tobytes() for v in all_views} == {r.tobytes() for r in rotations}
    oblong = noise(5, 7, 3)
    for k in range(8):
        np.testing.assert_array_equal(views.turn_back(all_views[k], k), x)
        turned = views.turn(oblong, k)
        np.testing.assert_array_equal(views.turn_back(turned, k), oblong)
        np.testing.assert_array_equal(views.turn(jnp.asarray(oblong), k), turned)
        back = views.turn_back(jnp.asarray(turned), k)
        np.testing.assert_array_equal(back, oblong)


@jax.jit
def all_eight(x):
    """Returns the views of x, made by vmap over their numbers, and each turned back."""
    k = jnp.arange(8)
    turned = jax.vmap(lambda k: views.turn(x, k))(k)
    return turned, jax.vmap(views.turn_back)(turned, k)


def test_under_vmap_the_views_are_the_same_and_nothing_is_gathered():
    x = noise(2, 4, 4, 3)
    turned, back = all_eight(x)
    np.testing.assert_array_equal(turned, [views.turn(x, k) for k in range(8)])
    np.testing.assert_array_equal(back, [x] * 8)
    assert "gather" not in all_eight.lower(x).as_text()
