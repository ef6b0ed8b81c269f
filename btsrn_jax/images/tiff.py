"""TIFF: Pillow's reader, told of layouts that it does not know or misreads."""

import math
import os
import struct
from typing import BinaryIO

from PIL import TiffImagePlugin
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from btsrn_jax.images.parts import CREDENTIALS, MOST, Parts, iptc_of

BITS, COMPRESSION, PHOTOMETRIC, SAMPLES = 258, 259, 262, 277
PLANAR, EXTRA, FORMAT = 284, 338, 339
XMP, IPTC, PHOTOSHOP, ICC = 700, 33723, 34377, 34675
_CREDENTIALS, _PLACE = 52545, {33550, 33922, 34264, 34735}
_COLOUR = {301, 318, 319}  # transfer function, white point, primaries
# What tells how the pixels lie in the file.
_LAYOUT = {256, 257, BITS, COMPRESSION, PHOTOMETRIC, 266, 273, SAMPLES, 278, 279}
_LAYOUT |= {PLANAR, 292, 293, 317, 320, 322, 323, 324, 325, EXTRA, FORMAT, 347}
_LAYOUT |= {512, 513, 514, 529, 530, 531, 532, 0xBC01}
_TYPES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_TYPES |= {13: 4, 16: 8, 17: 8, 18: 8}  # bytes of a value

_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}  # channels without extra ones
_NAMES = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK"}
_NAMES |= {6: "YCbCr", 8: "CIE Lab", 9: "ICC Lab", 10: "ITU Lab", 32803: "raw sensor"}
_NAMES |= {32844: "LogL", 32845: "LogLuv", 34892: "raw sensor"}
_FORMATS = {2: "signed integer ", 3: "floating point ", 5: "complex ", 6: "complex "}


def directory(file: BinaryIO) -> tuple[int, int, dict[int, tuple[int, bytes]]]:
    """Returns (offset, pages, {tag: (type, bytes)}) of a TIFF's first page.

    Tags whose values lie outside of the file are left out.
    """
    file.seek(0)
    head = file.read(16)
    order, big = "<>"[head[:2] == b"MM"], 43 in head[2:4]
    count, entry, word = ("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")
    size, end = struct.calcsize(order + entry), file.seek(0, os.SEEK_END)
    (first,) = struct.unpack_from(order + word, head, 8 if big else 4)
    tags, seen, offset = {}, set(), first
    while offset and offset not in seen and offset < end:
        file.seek(offset)
        raw = file.read(struct.calcsize(count))
        if len(raw) < struct.calcsize(count):
            break
        table = file.read(min(struct.unpack(order + count, raw)[0] * size, end))
        following = file.read(struct.calcsize(word))
        if not seen:
            for tag, kind, n, value in struct.iter_unpack(
                order + entry, table[: len(table) // size * size]
            ):
                length = n * _TYPES.get(kind, 0)
                if length > len(value):
                    (at,) = struct.unpack_from(order + word, value)
                    file.seek(min(at, end))
                    value = file.read(min(length, end))
                if 0 < length <= len(value):
                    tags.setdefault(tag, (kind, value[:length]))
        seen.add(offset)
        full = len(following) == struct.calcsize(word)
        offset = struct.unpack(order + word, following)[0] if full else 0
    return first, len(seen), tags


class TiffImage(TiffImagePlugin.TiffImageFile):
    """The first page of a TIFF, not turned by its orientation.

    Pillow's own class gives up at the first tag that is damaged, at a later page that
    it cannot read, and where it has no name for the layout of the pixels.
    """

    parts: Parts
    """What describes the picture."""

    grey_alpha_16 = False
    """The pixels are 16-bit grey with alpha, in the guise of 8-bit RGBA."""

    premultiplied = False
    """The colours are multiplied by alpha, and Pillow does not know it."""

    white_is_zero = False
    """Grey runs from white to black, and Pillow does not know it."""

    def _seek(self, frame):
        self.fp, self.is_animated = self._fp, False
        self.parts = Parts(self.fp)
        offset, self.parts.frames, found = directory(self.fp)
        layout, optional = self.tag_v2, ImageFileDirectory_v2(self.tag_v2._get_ifh())
        for tag, (kind, data) in found.items():
            into = layout if tag in _LAYOUT else optional
            into._tagdata[tag], into.tagtype[tag] = data, kind
        layout._offset = offset  # libtiff looks there, too
        _describe(self.parts, optional)
        self._name_channels()
        self._setup()

    def load_end(self):
        """Turns nothing."""

    def _name_channels(self):
        """Says it Pillow's way if there is alpha; refuses what cannot be read."""
        tags = self.tag_v2
        compression = tags.get(COMPRESSION, 1)
        if compression not in TiffImagePlugin.COMPRESSION_INFO:
            raise ValueError(f"TIFF compression {compression} is not read")
        if tags.get(SAMPLES, 1) > TiffImagePlugin.MAX_SAMPLESPERPIXEL:
            raise ValueError(_unread(tags))
        colours = tags.get(PHOTOMETRIC, 0)
        bits, extra = tags.get(BITS, (1,)), tags.get(EXTRA, ())
        more = tags.get(SAMPLES, len(bits)) - _COLOURS.get(colours, 99)
        if more > 0 and colours == 5:
            if any(extra):
                raise ValueError(_unread(tags))
            tags[EXTRA] = (0,) * more
            self.parts.notes.append("channels beyond CMYK not kept")
        elif more > 0:
            first, *others = extra or (2,)
            if 1 in others or 2 in others:
                raise ValueError(_unread(tags))
            self.premultiplied = first == 1 and colours in (0, 1)
            first = 1 if first == 1 and not self.premultiplied else 2
            tags[EXTRA] = (first, *[0] * (more - 1))
            if more > 1:
                channels = "channel" if more == 2 else f"{more - 1} channels"
                self.parts.notes.append(f"{channels} beyond alpha not kept")
        if max(bits) > 8 and tags.get(PLANAR) == 2:  # Pillow makes wrong pixels of it
            raise ValueError("16-bit colours in separate planes are not read")
        if more == 1 and colours in (0, 1) and tags.get(FORMAT, (1,))[0] == 1:
            self.white_is_zero = colours == 0
            tags[PHOTOMETRIC] = 1
            if set(bits) == {16}:
                self.grey_alpha_16 = True
                tags[PHOTOMETRIC], tags[BITS], tags[SAMPLES] = 2, (8,) * 4, 4

    def _setup(self):
        try:
            super()._setup()
        except SyntaxError:
            raise ValueError(_unread(self.tag_v2)) from None
        if not self.use_load_libtiff and self.tile[-1][1][3] < self._tile_size[1]:
            raise ValueError("strips of pixels are missing")  # Pillow leaves black


def _unread(tags):
    """Says what kind of pixels a TIFF holds, and what to do."""
    bits, extra = tags.get(BITS, (1,)), tags.get(EXTRA, ())
    colours, form = tags.get(PHOTOMETRIC, 0), tags.get(FORMAT, (1,))
    name = _FORMATS.get(form[0], "") + _NAMES.get(colours, f"photometric {colours}")
    more = tags.get(SAMPLES, len(bits)) - _COLOURS.get(colours, 99)
    if more > 1:
        name += f" with {more} more channels"
    elif more == 1:
        name += " with alpha" if {1, 2} & set(extra) else " with one more channel"
    return (
        f"it is {name} of {max(bits)} bits; grey and RGB of 8 or 16 bits are read: "
        "convert it first"
    )


def _describe(parts, tags):
    """Fills the parts of a TIFF from its tags."""
    names = {"icc": ("ICC profile", ICC), "xmp": ("XMP", XMP), "iptc": ("IPTC", IPTC)}
    for field, (name, tag) in names.items():
        with parts.optional(name):
            data = tags._tagdata.get(tag, b"")
            if len(data) > MOST:
                raise ValueError("too large")
            data = data.rstrip(b"\0") if field == "xmp" else data
            setattr(parts, field, data or None)
    with parts.optional("IPTC"):
        parts.iptc = parts.iptc or iptc_of(tags._tagdata.get(PHOTOSHOP, b""))
    with parts.optional("resolution"):
        unit = {1: 0, 2: 1, 3: 2.54}[tags.get(296, 2)]
        x, y = (float(tags.get(tag, 0)) for tag in (282, 283))
        if unit and 0 < x < math.inf and 0 < y < math.inf:
            parts.dpi = x * unit, y * unit
    if _CREDENTIALS in tags:
        parts.notes.append(CREDENTIALS)
    if _PLACE & set(tags):
        parts.notes.append("place on a map (GeoTIFF) not kept")
    for tag in _COLOUR & set(tags):
        with parts.optional("colour tags"):
            parts.colour[tag] = tuple(float(value) for value in tags[tag])
