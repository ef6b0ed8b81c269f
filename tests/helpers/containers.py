"""Picture files written and taken apart byte by byte, without Pillow."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageCms

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def smooth(h=24, w=32, channels=3, top=255):
    """Returns (h, w, channels) that JPEG changes little."""
    y, x = np.mgrid[:h, :w]
    parts = [(x * (3 + k) + y * (5 - k)) / (8 * (w + h)) for k in range(channels)]
    return np.rint(np.stack(parts, -1) * top).astype(np.uint8 if top < 256 else "u2")


def chunk(kind, payload, crc=0):
    crc ^= zlib.crc32(kind + payload)
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", crc)


def png(pixels, before=b"", after=b"", colour=None, depth=None, rows=None, size=None):
    """Returns a PNG. Without `rows`, packed rows of pixels, `pixels` are stored."""
    if rows is None:
        h, w, channels = pixels.shape
        colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels] if colour is None else colour
        depth = depth or 8 * pixels.itemsize
        rows = [row.tobytes() for row in pixels.astype(f">u{pixels.itemsize}")]
    h, w = size or (h, w)
    head = struct.pack(">2I5B", w, h, depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    body = chunk(b"IHDR", head) + before + chunk(b"IDAT", data) + after
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def png_chunks(data):
    """Returns the chunks of a PNG as (name, payload), their checksums compared."""
    at, found = 8, []
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        payload = data[at + 8 : at + 8 + length]
        assert data[at : at + 12 + length] == chunk(kind, payload)
        found.append((kind, payload))
        at += 12 + length
    return found


def segment(marker, payload):
    return bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload


def jpeg(pixels, *segments):
    """Returns a JPEG with segments behind its start."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=98, subsampling=0)
    data = file.getvalue()
    return data[:2] + b"".join(segments) + data[2:]


def jpeg_segments(data):
    """Returns the segments of a JPEG before its pixels as (marker, payload)."""
    at, found = 2, []
    while data[at + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", data, at + 2)
        found.append((data[at + 1], data[at + 4 : at + 2 + length]))
        at += 2 + length
    return found


def webp(pixels, **chunks):
    """Returns a lossless WebP with the chunks ICCP, EXIF and XMP given."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WebP", lossless=True, exif=b"Exif\0\0x")
    data, at, body = file.getvalue(), 12, b""
    while at < len(data):
        name, length = data[at : at + 4], struct.unpack_from("<I", data, at + 4)[0]
        if name != b"EXIF":
            body += data[at : at + 8 + length + length % 2]
        at += 8 + length + length % 2
    for name, payload in chunks.items():
        head = name.ljust(4).encode() + struct.pack("<I", len(payload))
        body += head + payload + bytes(len(payload) % 2)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def webp_chunks(data):
    """Returns the chunks of a WebP file by name."""
    at, found = 12, {}
    while at < len(data):
        name, length = data[at : at + 4], struct.unpack_from("<I", data, at + 4)[0]
        found[name] = data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
    return found


_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 11: 4}


def tiff(pixels, tags=(), order="<", data=None, after=b""):
    """Returns an uncompressed TIFF of one strip.

    Args:
      tags: {tag: (type, count, bytes)} beside or instead of the layout's own; bytes of
        an int instead are the field itself, an offset mostly. None removes a tag.
      data: the strip, if not `pixels`.
      after: bytes behind all else.
    """
    h, w, c = pixels.shape
    if data is None:
        data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()

    def pack(kind, *values):
        code = {3: "H", 4: "I"}[kind]
        return kind, len(values), struct.pack(f"{order}{len(values)}{code}", *values)

    base = {256: pack(4, w), 257: pack(4, h), 258: pack(3, *[8 * pixels.itemsize] * c)}
    base |= {259: pack(3, 1), 262: pack(3, 2 if c >= 3 else 1), 273: pack(4, 0)}
    base |= {277: pack(3, c), 278: pack(4, h), 279: pack(4, len(data))} | dict(tags)
    base = {tag: value for tag, value in base.items() if value is not None}
    start = 8 + 2 + 12 * len(base) + 4
    base[273] = pack(4, start)
    more, entries = data + bytes(len(data) % 2), b""
    for tag, (kind, count, value) in sorted(base.items()):
        if isinstance(value, int):
            field = struct.pack(order + "I", value)
        elif len(value) > 4:
            field = struct.pack(order + "I", start + len(more))
            more += value + bytes(len(value) % 2)
        else:
            field = value.ljust(4, b"\0")
        entries += struct.pack(order + "HHI", tag, kind, count) + field
    mark = b"II*\0" if order == "<" else b"MM\0*"
    head = mark + struct.pack(order + "IH", 8, len(base))
    following = start + len(more) if after else 0
    return head + entries + struct.pack(order + "I", following) + more + after


def tiff_tags(data):
    """Returns {tag: bytes} of the first page of a little-endian TIFF."""
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    found = {}
    for k in range(count):
        tag, kind, n, field = struct.unpack_from("<HHI4s", data, at + 2 + 12 * k)
        length = n * _SIZES[kind]
        start = struct.unpack("<I", field)[0]
        found[tag] = field[:length] if length <= 4 else data[start : start + length]
    return found


def bmp(pixels, header=40, space=b"\0\0\0\0", ends=(0,) * 9, gammas=(0,) * 3, icc=b""):
    """Returns a BMP of 24 bits, or 32 with alpha, with a header of 40, 108 or 124."""
    h, w, channels = pixels.shape
    order = [2, 1, 0, 3][:channels]
    body = pixels[::-1][..., order].tobytes()
    bits, compression = 8 * channels, 3 if channels == 4 else 0
    info = struct.pack(
        "<I2i2H2I2i2I", header, w, h, 1, bits, compression, 0, 2835, 2835, 0, 0
    )
    if header > 40:
        info += struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000 * (channels == 4))
        info += space + struct.pack("<9i", *ends) + struct.pack("<3I", *gammas)
    if header == 124:
        info += struct.pack("<4I", 4, header + len(body), len(icc), 0)
    offset = 14 + header
    assert len(info) == header
    size = offset + len(body) + len(icc)
    return b"BM" + struct.pack("<I2HI", size, 0, 0, offset) + info + body + icc
