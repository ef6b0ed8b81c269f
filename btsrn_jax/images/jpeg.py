"""JPEG segments, in and out: those that describe the picture."""

import contextlib
import io
import struct
from typing import BinaryIO

from PIL.TiffImagePlugin import ImageFileDirectory_v2

from btsrn_jax.images.parts import (
    CREDENTIALS,
    PHOTOSHOP_HEADER,
    XMP_HEADER,
    Parts,
    Text,
    iptc_of,
    pieces,
    set_density,
    size_of,
)
from btsrn_jax.images.picture import Picture

# The most bytes of EXIF, XMP, IPTC, a comment, and a profile, which has 255 segments.
_SEGMENT = 65533
ROOM = {"exif": _SEGMENT, "text": _SEGMENT, "icc": 255 * (_SEGMENT - 14)}
ROOM |= {"xmp": _SEGMENT - len(XMP_HEADER)}
ROOM |= {"iptc": _SEGMENT - len(PHOTOSHOP_HEADER) - 13}

_NAMES = {0xE0: "JFIF", 0xE1: "EXIF or XMP", 0xE2: "ICC profile", 0xED: "IPTC"}


def split(file: BinaryIO, parts: Parts) -> None:
    """Fills the parts of a JPEG file."""
    stretches, at, end = [(0, 2)], 2, size_of(file)
    icc, resources = {}, []  # may go on in further segments
    while at < end:
        file.seek(at)
        head = file.read(4)
        if head[:1] != b"\xff" or head[1:2] in (b"\xff", b"\0"):
            at += 1  # filling, or what a wrong length has left
            continue
        marker = head[1]
        if marker == 0xDA:  # from here on it is pixels
            stretches.append((at, end))
            break
        if marker == 1 or 0xD0 <= marker <= 0xD9:  # without a length
            at += 2
            continue
        length = max(int.from_bytes(head[2:]), 2)
        if 0xE0 <= marker <= 0xEF or marker == 0xFE:
            with parts.optional(_NAMES.get(marker, "text")):
                _take(marker, file.read(length - 2), parts, icc, resources)
        # Tables and frames; two that also say how the colours are stored, if whole.
        if 0xC0 <= marker <= 0xDF or length >= {0xE0: 16, 0xEE: 14}.get(marker, 2**16):
            stretches.append((at, at + 2 + length))
        at += 2 + length
    if icc:
        parts.icc = b"".join(icc[key] for key in sorted(icc))
    with parts.optional("IPTC"):
        parts.iptc = iptc_of(b"".join(resources))
    parts.file = pieces(file, stretches)


def _take(marker, data, parts, icc, resources):
    if marker == 0xFE:
        if data.strip(b"\0 "):
            parts.text.append(Text("Comment", _decoded(data)))
    elif marker == 0xE0 and data.startswith(b"JFIF\0"):
        unit, x, y = struct.unpack_from(">B2H", data, 7)
        set_density(x, y, {1: 1, 2: 2.54}.get(unit, 0), parts)
    elif marker == 0xE1 and data.startswith(b"Exif\0"):
        parts.exif = data if parts.exif is None else parts.exif + data[6:]
    elif marker == 0xE1 and data.startswith(XMP_HEADER):
        parts.xmp = parts.xmp or data[len(XMP_HEADER) :]
    elif marker == 0xE1 and data.startswith(b"http://ns.adobe.com/xmp/extension/\0"):
        parts.notes.append("extended XMP not kept")
    elif marker == 0xE2 and data.startswith(b"ICC_PROFILE\0"):
        icc[data[12]] = data[14:]
    elif marker == 0xE2 and data.startswith(b"MPF\0"):
        parts.frames = _mpf_count(data[4:])
    elif marker == 0xE2 and data.startswith(b"urn:iso:std:iso:ts:21496:"):
        parts.notes.append("gain map not kept")
    elif marker == 0xEB and data.startswith(b"JP") and b"c2pa" in data:
        parts.notes.append(CREDENTIALS)
    elif marker == 0xED and data.startswith(PHOTOSHOP_HEADER):
        resources.append(data[len(PHOTOSHOP_HEADER) :])


def _mpf_count(data):
    with contextlib.suppress(Exception):
        directory = ImageFileDirectory_v2(data[:8])
        file = io.BytesIO(data)
        file.seek(directory.next)
        directory.load(file)
        return int(directory[0xB001])
    return 2


def _decoded(data):
    try:
        return data.rstrip(b"\0").decode()
    except UnicodeDecodeError:
        return data.rstrip(b"\0").decode("latin-1")


def described(picture: Picture) -> dict[str, object]:
    """Returns what describes a picture, as Pillow's `save` takes it."""
    more = {"icc_profile": picture.icc, "exif": picture.exif, "xmp": picture.xmp}
    if picture.dpi:
        more["dpi"] = picture.dpi
    if picture.text:
        more["comment"] = picture.text[0].text.encode()
    if picture.iptc:
        data = PHOTOSHOP_HEADER + b"8BIM\x04\x04\0\0"
        data += struct.pack(">I", len(picture.iptc)) + picture.iptc
        data += bytes(len(picture.iptc) % 2)
        more["extra"] = b"\xff\xed" + struct.pack(">H", len(data) + 2) + data
    return {name: value for name, value in more.items() if value}
