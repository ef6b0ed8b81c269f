"""Takes a picture file apart: what decodes to pixels, and what only describes them.

Pillow gets the pixels' part alone. So a damaged or a huge description never decides
whether a picture can be read, and no description is lost because Pillow skips it.
"""

import bisect
import contextlib
import dataclasses
import io
import itertools
import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

# A few bytes can unpack to gigabytes. No description in use comes near this.
MOST = 64 * 2**20

XMP_HEADER = b"http://ns.adobe.com/xap/1.0/\0"
PHOTOSHOP_HEADER = b"Photoshop 3.0\0"
# They certify the picture as it was; here it becomes another one.
CREDENTIALS = "content credentials not kept"
XMP_KEYWORD = "XML:com.adobe.xmp"


class Text(NamedTuple):
    """A piece of text that a file carries, as in PNG."""

    keyword: str
    text: str
    language: str = ""
    translated: str = ""
    """The keyword in that language."""


@dataclasses.dataclass
class Parts:
    """The parts of one file."""

    file: BinaryIO
    """Header and pixels, as a file of the same format."""

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    """The records alone, without Photoshop's wrapping."""

    dpi: tuple[float, float] | None = None
    """Dots per inch, across and down."""

    text: list[Text] = dataclasses.field(default_factory=list)
    colour: dict[bytes, bytes] = dataclasses.field(default_factory=dict)
    """What else tells the meaning of colours: PNG chunks by name; under b"BM" the
    header of a BMP, under b"TIFF" a dict of tags."""

    transparency: bytes | None = None
    """A PNG's tRNS chunk."""

    frames: int = 1
    room: int = MOST
    """Bytes that may still be inflated."""

    notes: list[str] = dataclasses.field(default_factory=list)

    @contextlib.contextmanager
    def optional(self, name: str) -> Iterator[None]:
        """Notes that `name` is damaged if anything fails within."""
        try:
            yield
        except Exception:  # descriptions fail in as many ways as there are writers
            self.notes.append(f"{name} damaged: not kept")


class _Pieces(io.RawIOBase):
    """A file made of stretches of another, each (start, end)."""

    def __init__(self, file, stretches):
        super().__init__()
        self.file, self.stretches, self.at = file, stretches, 0
        lengths = (end - start for start, end in stretches)
        self.before = [0, *itertools.accumulate(lengths)]

    def readable(self):
        return True

    def seekable(self):
        return True

    def tell(self):
        return self.at

    def seek(self, offset, whence=os.SEEK_SET):
        self.at = offset + (0, self.at, self.before[-1])[whence]
        return self.at

    def readinto(self, buffer):
        k = bisect.bisect_right(self.before, self.at) - 1
        if k == len(self.stretches):
            return 0
        start, end = self.stretches[k]
        start += self.at - self.before[k]
        self.file.seek(start)
        data = self.file.read(min(len(buffer), end - start))
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)


def pieces(file: BinaryIO, stretches: list[tuple[int, int]]) -> BinaryIO:
    """Returns the stretches (start, end) of a file as a file of their own."""
    joined = []
    for start, end in stretches:
        if joined and joined[-1][1] == start:
            start = joined.pop()[0]
        joined.append((start, end))
    return io.BufferedReader(_Pieces(file, joined))


def checked_icc(icc: bytes | None, notes: list[str]) -> bytes | None:
    """Returns an ICC profile, or None where it is damaged, which `notes` then says."""
    if not icc:
        return None
    if len(icc) >= 128 and icc[36:40] == b"acsp" and u32(icc) <= len(icc):
        return icc
    notes.append("ICC profile damaged: not kept")
    return None


def u32(data: bytes, at: int = 0) -> int:
    """Returns the big-endian number of 32 bits that begins at byte `at`."""
    return struct.unpack_from(">I", data, at)[0]


def size_of(file: BinaryIO) -> int:
    """Returns a file's size in bytes, and leaves it at its end."""
    return file.seek(0, os.SEEK_END)


def iptc_of(resources: bytes) -> bytes | None:
    """Returns the IPTC records among Photoshop's resources, None without any.

    Raises:
      ValueError, struct.error: the resources are damaged.
    """
    at = len(PHOTOSHOP_HEADER) if resources.startswith(PHOTOSHOP_HEADER) else 0
    while resources[at : at + 4] == b"8BIM":
        (code, name) = struct.unpack_from(">HB", resources, at + 4)
        at += 6 + name + 1 + (name + 1) % 2
        length = u32(resources, at)
        if code == 0x0404:
            if len(resources) < at + 4 + length:
                raise ValueError("cut short")
            return resources[at + 4 : at + 4 + length] or None
        at += 4 + length + length % 2
    return None


def set_density(x: int, y: int, per_inch: float, parts: Parts) -> None:
    """Sets dots per inch from `x` and `y`, which are `per_inch` of these.

    With a `per_inch` of 0 they tell the shape of pixels only.
    """
    if x and y and per_inch:
        parts.dpi = x * per_inch, y * per_inch
    elif x != y and x and y:
        parts.notes.append(f"pixels of {y}:{x} become square")


# WebP and BMP


def split_webp(file: BinaryIO, parts: Parts) -> None:
    """Fills the parts of a WebP file."""
    file.seek(12)
    kept, head = [], file.read(8)
    while len(head) == 8:
        name, length = head[:4], int.from_bytes(head[4:], "little")
        data = file.read(length)
        if name in (b"ICCP", b"EXIF", b"XMP "):
            field = {b"ICCP": "icc", b"EXIF": "exif", b"XMP ": "xmp"}[name]
            if len(data) < length:
                parts.notes.append(f"{field.upper()} damaged: not kept")
            elif data:
                setattr(parts, field, data)
        elif name == b"C2PA":
            parts.notes.append(CREDENTIALS)
        elif name in (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"):
            if name == b"VP8X" and data:  # no bits for what is left out
                data = bytes([data[0] & ~0x2C]) + data[1:]
            parts.frames += name == b"ANMF"
            kept += [head, data, b"\0" * (len(data) % 2)]
        file.seek(length % 2, os.SEEK_CUR)
        head = file.read(8)
    parts.frames = max(1, parts.frames - 1)
    body = b"WEBP" + b"".join(kept)
    parts.file = io.BytesIO(b"RIFF" + struct.pack("<I", len(body)) + body)


def split_bmp(file: BinaryIO, parts: Parts) -> None:
    """Fills the parts of a BMP file."""
    file.seek(0)
    head = file.read(14 + 124)
    if len(head) < 54 or int.from_bytes(head[14:18], "little") < 40:
        return
    x, y = struct.unpack_from("<2i", head, 38)
    if x > 0 and y > 0:
        set_density(x, y, 0.0254, parts)
    size = int.from_bytes(head[14:18], "little")
    if size < 108:
        return
    parts.colour[b"BM"] = head
    space = head[70:74][::-1]
    if size >= 124 and space in (b"MBED", b"LINK"):
        start, length = struct.unpack_from("<2I", head, 126)
        file.seek(14 + start)
        if space == b"LINK":
            parts.notes.append("the colour profile in another file is not read")
        else:
            parts.icc = file.read(min(length, MOST))
            if len(parts.icc) < length:
                parts.icc = None
                parts.notes.append("ICC profile damaged: not kept")
