"""Claims about what colours mean: said by more than ICC profiles, and kept.

The values come from the formulas of the standards, and are compared with what LittleCMS
makes of the profiles.
"""

import io
import struct
import zlib

import numpy as np
import pytest
from helpers.containers import (
    SRGB,
    bmp,
    chunk,
    jpeg,
    png,
    png_chunks,
    segment,
    smooth,
    tiff,
)
from PIL import Image, ImageCms

from btsrn_jax.images import decode, encode, profiles

PIXELS = smooth()
D65, ADOBE = (31270, 32900), (64000, 33000, 21000, 71000, 15000, 6000)
LINEAR = chunk(b"gAMA", struct.pack(">I", 100000))
GAMMA = chunk(b"gAMA", struct.pack(">I", 45455))
ADOBE_CHRM = chunk(b"cHRM", struct.pack(">8I", *D65, *ADOBE))
SRGB_CHRM = chunk(
    b"cHRM", struct.pack(">8I", *D65, 64000, 33000, 30000, 60000, 15000, 6000)
)
IS_SRGB = chunk(b"sRGB", b"\0")
ICCP = chunk(b"iCCP", b"a\0\0" + zlib.compress(SRGB))
P3 = chunk(b"cICP", bytes([12, 13, 0, 1]))
PQ = chunk(b"cICP", bytes([9, 16, 0, 1]))
ADOBE_2_2 = (0.3127, 0.3290), ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), 100000 / 45455


def read(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    return decode.read_picture(tmp_path / name)


def shown(picture):
    """Returns the pixels as LittleCMS shows them on an sRGB screen."""
    pixels = picture.pixels
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    profile = ImageCms.ImageCmsProfile(io.BytesIO(picture.icc))
    screen = ImageCms.createProfile("sRGB")
    out = ImageCms.profileToProfile(image, profile, screen, 1, outputMode="RGB")
    return np.asarray(out).astype(int)


def xyz(white, primaries):
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    x, y = white
    return columns * np.linalg.solve(columns, [x / y, 1, (1 - x - y) / y])


def expected(pixels, white, primaries, gamma):
    """Returns what an sRGB screen shows of pixels with these primaries and gamma."""
    light = (pixels / 255.0) ** gamma
    srgb = xyz((0.3127, 0.3290), [(0.64, 0.33), (0.30, 0.60), (0.15, 0.06)])
    light = light @ (np.linalg.inv(srgb) @ xyz(white, primaries)).T
    light = np.clip(light, 0, 1)
    low, high = 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055
    return np.rint(255 * np.where(light <= 0.0031308, low, high)).astype(int)


def test_the_profile_of_srgb_is_srgb():
    white, primaries = profiles.D65, profiles.SRGB
    icc = profiles.make(white, primaries, [profiles.SRGB_CURVE] * 3, "sRGB")
    picture = decode.Picture(
        np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), icc=icc
    )
    assert np.abs(shown(picture) - picture.pixels).max() <= 1


@pytest.mark.parametrize(
    ("chunks", "kept", "name", "meaning"),
    [
        (LINEAR, LINEAR, "gAMA", (profiles.D65, profiles.SRGB, 1.0)),
        (GAMMA, GAMMA, "gAMA", (profiles.D65, profiles.SRGB, 100000 / 45455)),
        (GAMMA + ADOBE_CHRM, GAMMA + ADOBE_CHRM, "gAMA and cHRM", ADOBE_2_2),
        (
            LINEAR + SRGB_CHRM,
            LINEAR + SRGB_CHRM,
            "gAMA and cHRM",
            (profiles.D65, profiles.SRGB, 1.0),
        ),
        (
            ICCP[:-4] + b"oops" + LINEAR,
            LINEAR,
            "gAMA",
            (profiles.D65, profiles.SRGB, 1.0),
        ),
    ],
)
def test_gamma_and_primaries_of_a_png_stay_or_become_a_profile(
    tmp_path, chunks, kept, name, meaning
):
    picture = read(tmp_path, "a.png", png(PIXELS, chunks))
    assert picture.colours == name
    assert np.abs(shown(picture) - expected(PIXELS, *meaning)).max() <= 2
    assert encode.write_picture(tmp_path / "b.png", picture) == []
    before = [c for c in png_chunks(png(PIXELS, kept)) if c[0] in (b"gAMA", b"cHRM")]
    after = png_chunks((tmp_path / "b.png").read_bytes())
    assert [c for c in after if c[0] in (b"gAMA", b"cHRM", b"iCCP")] == before
    assert decode.read_picture(tmp_path / "b.png").icc == picture.icc
    for suffix in (".jpg", ".webp", ".tif"):
        assert encode.write_picture(tmp_path / f"b{suffix}", picture) == []
        back = decode.read_picture(tmp_path / f"b{suffix}")
        assert back.icc == picture.icc
        again = encode.write_picture(tmp_path / f"c{suffix}", back)
        assert again == []
    lost = encode.write_picture(tmp_path / "b.bmp", picture)
    assert lost == [f"colours by {name} dropped (BMP has no room for it)"]


def test_the_order_of_precedence_is_the_specifications(tmp_path):
    for chunks, colours, real in (
        (ICCP + LINEAR + ADOBE_CHRM, "", True),
        (IS_SRGB + LINEAR + ADOBE_CHRM, "", False),
        (GAMMA + SRGB_CHRM, "", False),  # these are sRGB's own
        (ICCP + P3, "cICP", False),
        (IS_SRGB + P3 + LINEAR, "cICP", False),
        (chunk(b"cICP", bytes([1, 13, 0, 1])) + LINEAR, "", False),
        (ICCP + PQ, "", True),
    ):
        picture = read(tmp_path, "a.png", png(PIXELS, chunks))
        assert picture.colours == colours
        assert (picture.icc == SRGB) == real
        assert (picture.icc is not None) == (real or colours != "")
        encode.write_picture(tmp_path / "b.png", picture)
        back = decode.read_picture(tmp_path / "b.png")
        assert (back.icc, back.colours, back.chunks) == (
            picture.icc,
            picture.colours,
            picture.chunks,
        )
        written = dict(png_chunks((tmp_path / "b.png").read_bytes()))
        assert (b"iCCP" in written) == (ICCP in chunks)
        assert not {b"iCCP", b"sRGB"} <= set(written)
        for name in (b"cICP", b"sRGB"):
            if name in chunks and not (name == b"sRGB" and ICCP in chunks):
                assert name in written


def test_what_no_profile_can_say_stays_in_png_and_is_said_elsewhere(tmp_path):
    light = chunk(b"cLLI", bytes(8)) + chunk(b"mDCV", bytes(24))
    for pixels in (PIXELS, smooth(top=65535)):
        picture = read(tmp_path, "a.png", png(pixels, PQ + light))
        assert (picture.icc, picture.colours) == (None, "cICP")
        assert encode.write_picture(tmp_path / "b.png", picture) == []
        chunks = png_chunks((tmp_path / "b.png").read_bytes())
        assert {b"cICP", b"cLLI", b"mDCV"} <= {name for name, _ in chunks}
    for suffix in (".jpg", ".webp", ".tif", ".bmp"):
        lost = " ".join(encode.write_picture(tmp_path / f"b{suffix}", picture))
        assert "colours by cICP dropped" in lost


def test_gamma_of_grey_is_kept_for_grey(tmp_path):
    grey = PIXELS[..., :1]
    picture = read(tmp_path, "a.png", png(grey, LINEAR + ADOBE_CHRM))
    want = expected(grey.repeat(3, axis=2), profiles.D65, profiles.SRGB, 1.0)
    # LittleCMS counts coarsely in the darkest greys.
    assert np.abs(shown(picture) - want)[want > 52].max() <= 2
    for suffix in (".jpg", ".tif", ".png"):
        assert encode.write_picture(tmp_path / f"b{suffix}", picture) == []
        assert decode.read_picture(tmp_path / f"b{suffix}").icc == picture.icc
    assert "colours by gAMA dropped" in str(
        encode.write_picture(tmp_path / "b.webp", picture)
    )


def exif_segment(space, index=b"", primaries=False):
    def entry(tag, kind, count, field):
        return struct.pack("<HHI", tag, kind, count) + field.ljust(4, b"\0")

    rationals = b"".join(
        struct.pack("<2I", value, 100) for value in (31, 33, 64, 33, 21, 71, 15, 6)
    )
    at = 8 + 2 + 3 * 12 + 4
    sub = at + len(rationals)
    interop = sub + 2 + 2 * 12 + 4
    block = b"II*\0" + struct.pack("<IH", 8, 3)
    white, ends = (0x13E, 0x13F) if primaries else (0x9C9E, 0x9C9F)
    block += entry(white, 5, 2, struct.pack("<I", at))
    block += entry(ends, 5, 6, struct.pack("<I", at + 16))
    block += entry(0x8769, 4, 1, struct.pack("<I", sub)) + bytes(4) + rationals
    block += struct.pack("<H", 2) + entry(0xA001, 3, 1, struct.pack("<H", space))
    block += entry(0xA005, 4, 1, struct.pack("<I", interop)) + bytes(4)
    block += struct.pack("<H", 1) + entry(1, 2, 4, index) + bytes(4)
    return segment(0xE1, b"Exif\0\0" + block)


@pytest.mark.parametrize(
    ("space", "index", "primaries", "adobe"),
    [
        (2, b"", False, True),
        (65535, b"R03\0", False, True),
        (65535, b"R03\0", True, True),
        (65535, b"R98\0", False, False),
        (1, b"R98\0", True, False),
        (1, b"R03\0", False, False),
    ],
)
def test_adobe_rgb_that_only_exif_tells_becomes_a_profile(
    tmp_path, space, index, primaries, adobe
):
    marks = exif_segment(space, index, primaries)
    picture = read(tmp_path, "a.jpg", jpeg(PIXELS, marks))
    assert (picture.icc is not None) == adobe
    assert picture.colours == ("EXIF" if adobe else "")
    if adobe:
        want = expected(picture.pixels, profiles.D65, profiles.ADOBE, 563 / 256)
        assert np.abs(shown(picture) - want).max() <= 2
        for suffix in (".jpg", ".png", ".tif", ".webp"):
            assert encode.write_picture(tmp_path / f"b{suffix}", picture) == []
            assert decode.read_picture(tmp_path / f"b{suffix}").icc == picture.icc
    # A real profile comes first.
    real = segment(0xE2, b"ICC_PROFILE\0\1\1" + SRGB)
    picture = read(tmp_path, "a.jpg", jpeg(PIXELS, marks, real))
    assert (picture.icc, picture.colours) == (SRGB, "")


def test_primaries_that_only_exif_tells_become_a_profile(tmp_path):
    picture = read(tmp_path, "a.jpg", jpeg(PIXELS, exif_segment(65535, b"", True)))
    assert picture.colours == "EXIF"
    want = expected(picture.pixels, (0.31, 0.33), profiles.ADOBE, 2.2)
    assert np.abs(shown(picture) - want).max() <= 4  # LittleCMS adapts the white


def test_a_bmp_with_primaries_and_gamma_gets_a_profile(tmp_path):
    unit = 2**30
    chromaticities = [(0.64, 0.33, 0.03), (0.21, 0.71, 0.08), (0.15, 0.06, 0.79)]
    as_xyz = xyz(profiles.D65, [row[:2] for row in chromaticities]).T
    for ends in (chromaticities, as_xyz):
        fixed = [round(value * unit) for row in ends for value in row]
        for header in (108, 124):
            data = bmp(PIXELS, header, ends=fixed, gammas=[round(1.8 * 65536)] * 3)
            picture = read(tmp_path, "a.bmp", data)
            assert picture.colours == "BMP header"
            want = expected(PIXELS, profiles.D65, profiles.ADOBE, 1.8)
            assert np.abs(shown(picture) - want).max() <= 3
    for space in (b"BGRs", b" niW"):
        picture = read(tmp_path, "a.bmp", bmp(PIXELS, 124, space, fixed, [65536] * 3))
        assert (picture.icc, picture.colours) == (None, "")
    picture = read(tmp_path, "a.bmp", bmp(PIXELS, 108))
    assert (picture.icc, picture.notes) == (None, ())
    picture = read(tmp_path, "a.bmp", bmp(PIXELS, 124, b"KNIL", icc=b"c:\\a.icc\0"))
    assert picture.notes == ("the colour profile in another file is not read",)


def test_colour_tags_of_a_tiff_become_a_profile(tmp_path):
    def rationals(*values):
        data = b"".join(struct.pack("<2I", round(1e4 * v), 10000) for v in values)
        return 5, len(values), data

    gamma = 1.8
    table = np.rint((np.arange(256) / 255) ** gamma * 65535).astype("<u2").tobytes()
    tags = {318: rationals(*profiles.D65), 319: rationals(*sum(profiles.ADOBE, ()))}
    for more, want in (
        (tags, (profiles.ADOBE, 2.2)),
        (tags | {301: (3, 256, table)}, (profiles.ADOBE, gamma)),
        (tags | {301: (3, 768, 3 * table)}, (profiles.ADOBE, gamma)),
        ({301: (3, 256, table)}, (profiles.SRGB, gamma)),
    ):
        picture = read(tmp_path, "a.tif", tiff(PIXELS, more))
        assert picture.colours == "TIFF tags"
        want = expected(PIXELS, profiles.D65, *want)
        assert np.abs(shown(picture) - want).max() <= 2
        encode.write_picture(tmp_path / "b.tif", picture)
        assert decode.read_picture(tmp_path / "b.tif").icc == picture.icc
    picture = read(
        tmp_path, "a.tif", tiff(PIXELS, tags | {34675: (7, len(SRGB), SRGB)})
    )
    assert (picture.icc, picture.colours) == (SRGB, "")
