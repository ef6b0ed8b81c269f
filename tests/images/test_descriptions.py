"""Claims about what describes a picture: it never decides whether pixels are read, and
it is kept where the output's format can hold it, or its loss is said."""

import io
import struct
import time
import zlib

import numpy as np
import pytest
from helpers.containers import (
    SRGB,
    bmp,
    chunk,
    jpeg,
    jpeg_segments,
    png,
    png_chunks,
    segment,
    smooth,
    tiff,
    tiff_tags,
    webp,
    webp_chunks,
)
from helpers.photos import exif_block
from PIL import Image

from btsrn_jax.errors import InputError
from btsrn_jax.images import decode, encode
from btsrn_jax.images.parts import Text
from btsrn_jax.images.picture import Picture

PIXELS = smooth()
XMP_HEADER = b"http://ns.adobe.com/xap/1.0/\0"
NOISE = np.random.default_rng(0).bytes(1_200_000)
BIG_ICC = struct.pack(">I", len(SRGB) + len(NOISE)) + SRGB[4:] + NOISE
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"


def xmp(attributes="", elements=""):
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}">'
        '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" '
        'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
        'xmlns:exif="http://ns.adobe.com/exif/1.0/" '
        f'dc:title="a &amp; b" {attributes}>{elements}</rdf:Description>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


def read(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    return decode.read_picture(tmp_path / name)


def pillow_dpi(path):
    with Image.open(path) as image:
        return image.info["dpi"]


def icc_segments(icc, count=None):
    parts = [icc[i : i + 60000] for i in range(0, len(icc), 60000)]
    n = count or len(parts)
    return [
        segment(0xE2, b"ICC_PROFILE\0" + bytes([k + 1, n]) + part)
        for k, part in enumerate(parts)
    ]


TRUNCATED_ITXT = struct.pack(">I", 999) + b"iTXtComment\0\0\0\0\0cut"
DAMAGED = {
    "crc.png": png(PIXELS, chunk(b"gAMA", struct.pack(">I", 45455), crc=1)),
    "crc_icc.png": png(PIXELS, chunk(b"iCCP", b"a\0\0" + zlib.compress(SRGB), crc=1)),
    "crc_trns.png": png(PIXELS, chunk(b"tRNS", bytes(6), crc=1)),
    "crc_text.png": png(PIXELS, chunk(b"tEXt", b"a\0b", crc=1)),
    "crc_exif.png": png(PIXELS, chunk(b"eXIf", exif_block()[6:], crc=1)),
    "crc_late.png": png(PIXELS, after=chunk(b"tEXt", b"a\0b", crc=1)),
    "zlib_icc.png": png(PIXELS, chunk(b"iCCP", b"a\0\0no zlib at all")),
    "cut_icc.png": png(PIXELS, chunk(b"iCCP", b"a\0\0" + zlib.compress(SRGB)[:99])),
    "method_icc.png": png(PIXELS, chunk(b"iCCP", b"a\0")),
    "no_icc.png": png(PIXELS, chunk(b"iCCP", b"a\0\0" + zlib.compress(b"x" * 999))),
    "short_icc.png": png(PIXELS, chunk(b"iCCP", b"a\0\0" + zlib.compress(SRGB[:300]))),
    "gama.png": png(PIXELS, chunk(b"gAMA", b"\0")),
    "gama0.png": png(PIXELS, chunk(b"gAMA", bytes(4))),
    "chrm.png": png(PIXELS, chunk(b"cHRM", b"12345")),
    "chrm0.png": png(PIXELS, chunk(b"cHRM", bytes(32))),
    "srgb.png": png(PIXELS, chunk(b"sRGB", b"")),
    "cicp.png": png(PIXELS, chunk(b"cICP", b"\1")),
    "phys.png": png(PIXELS, chunk(b"pHYs", b"\0")),
    "trns.png": png(PIXELS, chunk(b"tRNS", b"\0\1")),
    "actl.png": png(PIXELS, chunk(b"acTL", b"\0")),
    "exif.png": png(PIXELS, chunk(b"eXIf", b"II*\0\xff\xff\xff\xff")),
    "text.png": png(PIXELS, chunk(b"tEXt", b"no end of the keyword")),
    "ztxt.png": png(PIXELS, chunk(b"zTXt", b"a\0\0no zlib")),
    "itxt.png": png(PIXELS, chunk(b"iTXt", b"a\0\0")),
    "itxt8.png": png(PIXELS, chunk(b"iTXt", b"a\0\0\0\0\0\xff\xfe\xff")),
    "raw.png": png(PIXELS, chunk(b"tEXt", b"Raw profile type exif\0\nexif\n  4\nzz")),
    "cut.png": png(PIXELS, after=TRUNCATED_ITXT)[:-12],
    "no_end.png": png(PIXELS)[:-12],
    "half_end.png": png(PIXELS)[:-9],
    "junk.png": png(PIXELS)[:-12] + b"\0\0\0\4\xff\xff\xff\xff1234",
    "long.png": png(PIXELS, b"\0\1" + chunk(b"tEXt", b"a\0b")[2:]),
    "longest.png": png(PIXELS, b"\x7f" + chunk(b"tEXt", b"a\0b")[1:]),
    "length.png": png(PIXELS, chunk(b"tEXt", b"a\0b")[:-6]),
    "xmp.png": png(PIXELS, chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x:xmp")),
    "jfif.jpg": jpeg(PIXELS, segment(0xE0, b"JFIF\0")),
    "adobe.jpg": jpeg(PIXELS, segment(0xEE, b"Adobe\0d")),
    "exif.jpg": jpeg(PIXELS, segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff")),
    "exif0.jpg": jpeg(PIXELS, segment(0xE1, b"Exif\0\0")),
    "xmp.jpg": jpeg(PIXELS, segment(0xE1, XMP_HEADER + b"<x:xmpmeta")),
    "doctype.jpg": jpeg(PIXELS, segment(0xE1, XMP_HEADER + b"<!DOCTYPE a><a/>")),
    "icc.jpg": jpeg(PIXELS, segment(0xE2, b"ICC_PROFILE\0")),
    "icc_part.jpg": jpeg(PIXELS, icc_segments(BIG_ICC)[0]),
    "mpf.jpg": jpeg(PIXELS, segment(0xE2, b"MPF\0II")),
    "8bim.jpg": jpeg(PIXELS, segment(0xED, b"Photoshop 3.0\x008BIM\4\4\xff")),
    "length.jpg": jpeg(PIXELS, b"\xff\xe5\0\x04abcdefg"),
    "length0.jpg": jpeg(PIXELS, b"\xff\xe5\0\0"),
    "reserved.jpg": jpeg(PIXELS, segment(0x65, b"abc"), segment(0xF3, b"abc")),
    "fill.jpg": jpeg(PIXELS, b"\xff\xff\xff"),
    "exif.webp": webp(PIXELS, EXIF=b"II*\0\xff\xff\xff\xff"),
    "cut.webp": webp(PIXELS, EXIF=exif_block()[6:])[:-20],
    "xmp.webp": webp(PIXELS, XMP=b"<x:xmp"),
    "icc.webp": webp(PIXELS, ICCP=b"no profile"),
    "offset.tif": tiff(PIXELS, {270: (2, 99, 2**31)}),
    "private.tif": tiff(PIXELS, {65000: (7, 2**31 - 1, 8), 266: (99, 1, b"a")}),
    "icc.tif": tiff(PIXELS, {34675: (3, 2, b"abcd")}),
    "icc_offset.tif": tiff(PIXELS, {34675: (7, 500, 2**31)}),
    "xmp.tif": tiff(PIXELS, {700: (1, 9, b"<x:xmpmet")}),
    "dpi.tif": tiff(PIXELS, {282: (5, 1, bytes(8)), 283: (5, 1, bytes(8))}),
    "dpi2.tif": tiff(PIXELS, {282: (5, 2, b"\1\0\0\0" * 4), 296: (2, 3, b"abc")}),
    "exif.tif": tiff(PIXELS, {34665: (4, 1, 2**31), 34853: (2, 3, b"abc")}),
    "iptc.tif": tiff(PIXELS, {34377: (7, 7, b"8BIM\4\4\xff")}),
    "primaries.tif": tiff(PIXELS, {319: (5, 1, b"\1\0\0\0" * 2)}),
    "page.tif": tiff(PIXELS, after=b"\1\0\0\1"),
    "page2.tif": tiff(PIXELS, after=b"\0\0\0\0\0\0"),
    "loop.tif": tiff(PIXELS, after=b"\0\0\x08\0\0\0"),
    "icc.bmp": bmp(PIXELS, 124, b"DEBM", icc=SRGB)[:-100],
    "ends.bmp": bmp(PIXELS, 108, ends=[-1] * 9, gammas=[1] * 3),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_description_does_not_decide_over_the_picture(tmp_path, name):
    picture = read(tmp_path, name, DAMAGED[name])
    loss = 4 if name.endswith(".jpg") else 0
    assert np.abs(picture.pixels.astype(int) - PIXELS).max() <= loss
    assert picture.alpha is None
    assert picture.icc is None
    # What is left can be written in any format.
    for suffix in (".png", ".jpg", ".webp", ".tif", ".bmp"):
        encode.write_picture(tmp_path / f"out{suffix}", picture)
    harmless = (
        "fill",
        "length.jpg",
        "length0",
        "private",
        "page",
        "loop",
        "mpf",
        "jfif",
        "dpi",
    )
    harmless += (
        "reserved",
        "adobe",
        "exif",
        "offset",
        "icc_offset",
        "crc_late",
        "8bim",
        "iptc",
    )
    if not name.startswith(harmless):
        assert any("damaged" in note for note in picture.notes), picture.notes


def test_large_profiles_and_texts_are_read_and_kept(tmp_path):
    text = b"y" * 2_000_000
    packed = zlib.compress(text)
    for data in (
        png(PIXELS, chunk(b"zTXt", b"workflow\0\0" + packed)),
        png(PIXELS, chunk(b"iTXt", b"workflow\0\1\0en\0\0" + packed)),
        png(PIXELS, after=chunk(b"tEXt", b"workflow\0" + text)),
    ):
        picture = read(tmp_path, "a.png", data)
        assert [(t.keyword, len(t.text)) for t in picture.text] == [
            ("workflow", len(text))
        ]
    profile = chunk(b"iCCP", b"a\0\0" + zlib.compress(BIG_ICC))
    for name, data in (
        ("a.png", png(PIXELS, profile)),
        ("a.jpg", jpeg(PIXELS, *icc_segments(BIG_ICC))),
        ("a.webp", webp(PIXELS, ICCP=BIG_ICC)),
        ("a.tif", tiff(PIXELS, {34675: (7, len(BIG_ICC), BIG_ICC)})),
        ("a.bmp", bmp(PIXELS, 124, b"DEBM", icc=BIG_ICC)),
    ):
        picture = read(tmp_path, name, data)
        assert picture.icc == BIG_ICC
        assert picture.notes == ()
        for suffix in (".png", ".jpg", ".webp", ".tif"):
            assert encode.write_picture(tmp_path / f"b{suffix}", picture) == []
            assert decode.read_picture(tmp_path / f"b{suffix}").icc == BIG_ICC


def test_a_bomb_of_text_is_dropped_and_said(tmp_path):
    bomb = zlib.compress(bytes(70 * 2**20), 9)
    chunks = b"".join(chunk(b"zTXt", b"%d\0\0" % k + bomb) for k in range(40))
    begin = time.monotonic()
    picture = read(tmp_path, "a.png", png(PIXELS, chunks))
    assert time.monotonic() - begin < 5
    np.testing.assert_array_equal(picture.pixels, PIXELS)
    assert picture.text == ()
    assert picture.notes == ("text damaged: not kept",)


def test_what_a_segment_cannot_hold_does_not_stop_a_jpeg(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "x" * 70000
    comment = (Text("Comment", "x" * 70000), Text("Author", "b"))
    large = xmp(elements=f"<dc:a>{'x' * 70000}</dc:a>")
    icc = struct.pack(">I", 17_000_000) + SRGB[4:].ljust(17_000_000 - 4, b"\0")
    picture = Picture(PIXELS, None, icc, exif.tobytes(), large, b"x" * 70000, comment)
    lost = encode.write_picture(tmp_path / "a.jpg", picture)
    names = ["ICC profile", "EXIF", "XMP", "IPTC", "text"]
    assert lost == [f"{name} dropped (JPEG has no room for it)" for name in names]
    back = decode.read_picture(tmp_path / "a.jpg")
    assert np.abs(back.pixels.astype(int) - PIXELS).max() < 5
    lost = encode.write_picture(tmp_path / "a.tif", picture)
    assert lost == ["text dropped (TIFF has no room for it)"]
    back = decode.read_picture(tmp_path / "a.tif")
    assert (back.icc, back.xmp, back.iptc) == (icc, large, picture.iptc)


IPTC = b"\x1c\x02\x19\0\x06sunset"
RESOURCES = b"8BIM\x03\xed\0\0\0\0\0\x02ab" + b"8BIM\4\4\0\0\0\0\0\x0b" + IPTC + b"\0"
PACKET = xmp('tiff:Orientation="1"', "<dc:creator>me</dc:creator>")
FULL = {
    "a.png": png(
        PIXELS,
        chunk(b"pHYs", struct.pack(">2IB", 11811, 5906, 1))
        + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + PACKET)
        + chunk(
            b"zTXt",
            b"Raw profile type iptc\0\0"
            + zlib.compress(
                f"\niptc\n{len(RESOURCES):8}\n{RESOURCES.hex()}\n".encode()
            ),
        ),
        chunk(b"tEXt", b"Comment\0\xe9l\xe9phant")
        + chunk(b"iTXt", b"Title\0\0\0fr\0Titre\0" + "\u732b".encode()),
    ),
    "a.jpg": jpeg(
        PIXELS,
        segment(0xE0, b"JFIF\0\1\2\2" + struct.pack(">2H", 118, 59) + b"\0\0"),
        segment(0xE1, XMP_HEADER + PACKET),
        segment(0xED, b"Photoshop 3.0\0" + RESOURCES),
        segment(0xFE, "\u00e9l\u00e9phant".encode()),
    ),
    "a.tif": tiff(
        PIXELS,
        {
            282: (5, 1, struct.pack("<2I", 300, 1)),
            283: (5, 1, struct.pack("<2I", 150, 1)),
            296: (3, 1, b"\2\0"),
            700: (1, len(PACKET), PACKET),
            34377: (7, len(RESOURCES), RESOURCES),
        },
    ),
    "a.webp": webp(PIXELS, XMP=PACKET),
}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
@pytest.mark.parametrize("name", FULL)
def test_xmp_iptc_text_and_resolution_are_kept_or_their_loss_is_said(
    tmp_path, name, suffix
):
    picture = read(tmp_path, name, FULL[name])
    path = tmp_path / f"out{suffix}"
    lost = " ".join(encode.write_picture(path, picture))
    data, back = path.read_bytes(), decode.read_picture(path)
    assert picture.xmp == PACKET
    if name != "a.webp":
        assert picture.iptc == IPTC
        assert picture.dpi == pytest.approx((300, 150), rel=0.002)
        assert back.dpi == pytest.approx((300, 150), rel=0.002)
    assert ("IPTC dropped" in lost) == (
        bool(picture.iptc) and suffix in (".png", ".webp", ".bmp")
    )
    assert ("XMP dropped" in lost) == (suffix == ".bmp")
    assert (back.xmp, back.iptc) == (
        None if "XMP" in lost else picture.xmp,
        None if "IPTC" in lost else picture.iptc,
    )
    # As other programs find it.
    if suffix == ".png":
        assert (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + PACKET) in png_chunks(data)
        assert back.text == picture.text
    elif suffix == ".jpg":
        segments = jpeg_segments(data)
        assert (0xE1, XMP_HEADER + PACKET) in segments
        if picture.iptc:
            wrapped = b"Photoshop 3.0\x008BIM\4\4\0\0\0\0\0\x0b" + IPTC + b"\0"
            assert (0xED, wrapped) in segments
            assert pillow_dpi(path) == (300, 150)
        if name != "a.tif" and picture.text:
            assert (0xFE, "\u00e9l\u00e9phant".encode()) in segments
        assert ("text dropped" in lost) == (name == "a.png")
    elif suffix == ".webp":
        assert webp_chunks(data)[b"XMP "] == PACKET
    elif suffix == ".tif":
        assert tiff_tags(data)[700] == PACKET
        assert tiff_tags(data).get(33723) == picture.iptc
        if picture.dpi:
            assert pillow_dpi(path) == pytest.approx((300, 150), rel=2e-3)
    # A second time nothing changes any more.
    again = tmp_path / f"again{suffix}"
    encode.write_picture(again, back)
    twice = decode.read_picture(again)
    for field in ("icc", "exif", "xmp", "iptc", "text", "dpi", "colours", "chunks"):
        assert getattr(twice, field) == getattr(back, field)


def test_iptc_that_goes_on_in_another_segment_is_joined(tmp_path):
    head, records = b"Photoshop 3.0\0", IPTC * 3000
    whole = b"8BIM\4\4\0\0" + struct.pack(">I", len(records)) + records
    halves = [segment(0xED, head + part) for part in (whole[:30000], whole[30000:])]
    assert read(tmp_path, "a.jpg", jpeg(PIXELS, *halves)).iptc == records
    picture = read(tmp_path, "a.jpg", jpeg(PIXELS, halves[0]))
    assert picture.iptc is None
    assert "IPTC damaged: not kept" in picture.notes


def test_xmp_tells_the_new_size_and_that_the_picture_is_upright(tmp_path):
    packet = xmp(
        'tiff:Orientation="6" exif:PixelXDimension="32"',
        "<tiff:ImageWidth>32</tiff:ImageWidth><tiff:ImageLength>24</tiff:ImageLength>"
        "<exif:PixelYDimension>24</exif:PixelYDimension>",
    )
    # UTF-16 is as good as UTF-8, and another prefix as good as "tiff".
    for data in (
        packet,
        packet.decode().encode("utf-16"),
        packet.replace(b"tiff:", b"t:").replace(b":tiff=", b":t="),
    ):
        exif = exif_block(6, 32, 24)
        name = "a.webp"
        picture = read(tmp_path, name, webp(PIXELS, EXIF=exif[6:], XMP=data))
        np.testing.assert_array_equal(picture.pixels, np.rot90(PIXELS, -1))
        encode.write_picture(tmp_path / "b.png", picture)
        back = decode.read_picture(tmp_path / "b.png")
        assert back.notes == ()
        text = back.xmp.decode()
        for want in ('Orientation="1"', 'PixelXDimension="24"', "ImageWidth>24<"):
            assert want in text
        assert "ImageLength>32<" in text
        assert "PixelYDimension>32<" in text
        assert 'dc:title="a &amp; b"' in text
        assert text.startswith("<?xpacket begin=")
        assert text.endswith('<?xpacket end="w"?>')


def test_orientation_of_xmp_alone_turns_the_picture_once(tmp_path):
    packet = xmp('tiff:Orientation="6"')
    for name, data in (
        ("a.png", png(PIXELS, chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet))),
        ("a.tif", tiff(PIXELS, {700: (1, len(packet), packet)})),
    ):
        picture = read(tmp_path, name, data)
        np.testing.assert_array_equal(picture.pixels, np.rot90(PIXELS, -1))
        assert decode.image_size(tmp_path / name) == picture.pixels.shape[:2]
        encode.write_picture(tmp_path / f"b{name}", picture)
        back = decode.read_picture(tmp_path / f"b{name}")
        np.testing.assert_array_equal(back.pixels, picture.pixels)


def test_a_panorama_stays_one(tmp_path):
    attributes = " ".join(
        f'GPano:{key}="{value}"'
        for key, value in {
            "FullPanoWidthPixels": 64,
            "CroppedAreaImageWidthPixels": 32,
            "CroppedAreaLeftPixels": 16,
            "ProjectionType": "equirectangular",
        }.items()
    )
    space = 'xmlns:GPano="http://ns.google.com/photos/1.0/panorama/"'
    packet = xmp(f"{space} {attributes}")
    picture = read(tmp_path, "a.jpg", jpeg(PIXELS, segment(0xE1, XMP_HEADER + packet)))
    large = Picture(PIXELS.repeat(2, 0).repeat(2, 1), xmp=picture.xmp)
    encode.write_picture(tmp_path / "b.jpg", large)
    text = decode.read_picture(tmp_path / "b.jpg").xmp.decode()
    for want in ('FullPanoWidthPixels="128"', 'AreaLeftPixels="32"', "equirectangular"):
        assert want in text


def test_of_several_pictures_in_a_jpeg_the_first_is_read_and_no_trace_of_others_kept(
    tmp_path,
):
    first, second = io.BytesIO(), Image.fromarray(PIXELS[:, ::-1])
    gain_map = xmp(
        'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0" '
        'xmlns:Container="http://ns.google.com/photos/1.0/container/"',
        '<Container:Directory><rdf:Seq><rdf:li rdf:parseType="Resource"/></rdf:Seq>'
        "</Container:Directory><dc:creator>me</dc:creator>",
    )
    Image.fromarray(PIXELS).save(
        first, "MPO", save_all=True, append_images=[second], quality=98, subsampling=0
    )
    data = first.getvalue()
    data = data[:2] + segment(0xE1, XMP_HEADER + gain_map) + data[2:]
    picture = read(tmp_path, "a.jpg", data)
    assert np.abs(picture.pixels.astype(int) - PIXELS).max() < 5
    assert picture.notes == (
        "the first of 2 pictures only",
        "what XMP embeds (gain map, depth, video) not kept",
    )
    for name in ("b.jpg", "b.png", "b.webp", "b.tif"):
        encode.write_picture(tmp_path / name, picture)
        out = (tmp_path / name).read_bytes()
        for trace in (b"MPF\0", b"hdrgm", b"Container", b"hdr-gain-map"):
            assert trace not in out
        assert b"<dc:creator>me" in out
        assert decode.read_picture(tmp_path / name).notes == ()


@pytest.mark.parametrize(
    ("name", "data", "note"),
    [
        ("a.png", png(PIXELS, chunk(b"caBX", b"jumb")), "content credentials"),
        (
            "a.jpg",
            jpeg(PIXELS, segment(0xEB, b"JP\0\1\0\0\0\1jumbc2pa")),
            "content credentials",
        ),
        ("a.webp", webp(PIXELS, C2PA=b"jumb"), "content credentials"),
        ("a.tif", tiff(PIXELS, {52545: (7, 4, b"jumb")}), "content credentials"),
        (
            "geo.tif",
            tiff(PIXELS, {33550: (12, 3, bytes(24))}),
            "place on a map (GeoTIFF)",
        ),
    ],
)
def test_what_is_of_the_picture_as_it_was_is_said_to_be_gone(
    tmp_path, name, data, note
):
    assert read(tmp_path, name, data).notes == (f"{note} not kept",)


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("a.webp", webp(PIXELS, EXIF=b"garbage"), "EXIF"),
        ("a.jpg", jpeg(PIXELS, segment(0xE1, b"Exif\0\0garbage")), "EXIF"),
        ("a.png", png(PIXELS, chunk(b"eXIf", b"garbage")), "EXIF"),
        ("a.bmp", bmp(PIXELS, 124, b"DEBM", icc=SRGB)[: -len(SRGB)], "ICC profile"),
    ],
)
def test_garbage_is_no_lack_of_a_description(tmp_path, name, data, what):
    assert read(tmp_path, name, data).notes == (f"{what} damaged: not kept",)


def test_missing_strips_of_a_tiff_are_no_black_pixels(tmp_path):
    data = tiff(PIXELS, {257: (4, 1, struct.pack("<I", 48))})
    with pytest.raises(InputError, match="strips of pixels are missing"):
        read(tmp_path, "a.tif", data)


def test_pages_that_cannot_be_read_are_counted_and_do_no_harm(tmp_path):
    page = tiff(PIXELS, {339: (3, 1, b"\3\0")})  # floating point: it is not read
    data = tiff(PIXELS, after=page[8:])  # its offsets are wrong, too
    picture = read(tmp_path, "a.tif", data)
    np.testing.assert_array_equal(picture.pixels, PIXELS)
    assert picture.notes == ("the first of 2 frames or pages only",)
