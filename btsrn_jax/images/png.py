"""PNG chunks, in and out, but for those that Pillow takes: header, palette, pixels."""

import struct
import zlib
from typing import BinaryIO

import numpy as np

from btsrn_jax.images.parts import (
    CREDENTIALS,
    MOST,
    PHOTOSHOP_HEADER,
    XMP_HEADER,
    XMP_KEYWORD,
    Parts,
    Text,
    iptc_of,
    pieces,
    set_density,
    size_of,
    u32,
)
from btsrn_jax.images.picture import Picture

LEVEL = 4  # of zlib: two to three times as fast as the usual 6, files 3 to 7 % larger

# The chunks that say what a PNG's colours mean, in their order of precedence but for
# iCCP, which comes second; and their lengths.
COLOUR_CHUNKS = {b"cICP": 4, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32}
COLOUR_CHUNKS |= {b"mDCV": 24, b"cLLI": 8}
_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_OPTIONAL = {b"iCCP", b"eXIf", b"pHYs", b"tRNS", b"acTL", *_TEXT, *COLOUR_CHUNKS}


def split(file: BinaryIO, parts: Parts) -> None:
    """Fills the parts of a PNG file."""
    stretches, at, end, pixels = [(0, 8)], 8, size_of(file), False
    palette, last = True, 8
    while True:
        file.seek(at)
        head = file.read(8)
        name = head[4:]
        if len(head) < 8 or not name.isalpha():
            at = None if pixels else _next_pixels(file, last + 8)
            where = "the end of the file" if at is None else "a chunk's length"
            parts.notes.append(f"{where} is missing or damaged")
            if at is None:
                break
            continue
        last, length = at, u32(head)
        if name == b"IHDR":
            palette = file.read(10)[9:] == b"\3"  # elsewhere a PLTE is mere advice
        if name in (b"IHDR", b"IDAT", b"IEND") or (name == b"PLTE" and palette):
            stretches.append((at, at + 12 + length))
            pixels |= name == b"IDAT"
        elif name == b"caBX":
            parts.notes.append(CREDENTIALS)
        elif name in _OPTIONAL and not (pixels and name == b"tRNS"):
            with parts.optional("text" if name in _TEXT else name.decode()):
                if at + 12 + length > end or length > MOST:
                    raise ValueError("cut short, or too large")
                data = file.read(length)
                if file.read(4) != struct.pack(">I", zlib.crc32(name + data)):
                    raise ValueError("checksum")
                _take(name, data, parts)
        if name == b"IEND":
            break
        at += 12 + length
    parts.file = pieces(file, stretches)


def _next_pixels(file, start):
    """Returns where the palette or the pixels begin, for want of a right length."""
    file.seek(start)
    data = file.read(MOST)
    found = [data.find(name, 4) for name in (b"PLTE", b"IDAT")]
    return min((start + at - 4 for at in found if at >= 0), default=None)


def _take(name, data, parts):
    if name in COLOUR_CHUNKS:
        if len(data) != COLOUR_CHUNKS[name]:
            raise ValueError("length")
        parts.colour.setdefault(name, data)
    elif name == b"iCCP":
        packed = data.split(b"\0", 1)[1]
        parts.icc = parts.icc or _unpacked(packed[1:], parts)
    elif name == b"eXIf":
        parts.exif = data
    elif name == b"tRNS":
        parts.transparency = data
    elif name == b"acTL":
        parts.frames = u32(data)
    elif name == b"pHYs":
        x, y, unit = struct.unpack(">2IB", data)
        set_density(x, y, 0.0254 if unit == 1 else 0, parts)
    else:
        _take_text(name, data, parts)


def _take_text(name, data, parts):
    keyword, data = data.split(b"\0", 1)
    keyword, more = keyword.decode("latin-1"), ()
    if name == b"iTXt":
        packed, data = data[0], data[2:]
        language, translated, data = data.split(b"\0", 2)
        more = language.decode(), translated.decode()
    if name == b"zTXt" or (name == b"iTXt" and packed):
        data = _unpacked(data[name == b"zTXt" :], parts)
    if keyword == XMP_KEYWORD:
        parts.xmp = data
    elif keyword.startswith("Raw profile type "):
        _raw_profile(bytes.fromhex("".join(data.decode().split()[2:])), parts)
    else:
        text = data.decode("utf-8" if name == b"iTXt" else "latin-1")
        parts.text.append(Text(keyword, text, *more))


def _raw_profile(data, parts):
    """Takes what ImageMagick keeps as hexadecimal text."""
    if data.startswith((b"Exif\0\0", b"II*\0", b"MM\0*")):
        parts.exif = parts.exif or data
    elif data.startswith(XMP_HEADER):
        parts.xmp = parts.xmp or data[len(XMP_HEADER) :]
    elif data.startswith((b"8BIM", PHOTOSHOP_HEADER)):
        parts.iptc = parts.iptc or iptc_of(data)
    elif data.lstrip()[:1] == b"<":
        parts.xmp = parts.xmp or data
    elif data[36:40] == b"acsp":
        parts.icc = parts.icc or data


def _unpacked(data, parts):
    """Inflates no more than MOST bytes of a file, all of its chunks together."""
    packer = zlib.decompressobj()
    out = packer.decompress(data, max(parts.room, 1))  # 0 would be no bound
    parts.room -= len(out)
    if not packer.eof:
        raise ValueError("cut short, or too large")
    return out


class Inserting:
    """A file that gets `chunks` behind a PNG's signature and header."""

    def __init__(self, file, chunks):
        self.file, self.chunks, self.written = file, chunks, 0

    def write(self, data):
        self.file.write(data)
        self.written += len(data)
        if self.written == 33 and self.chunks:
            self.file.write(self.chunks)
        return len(data)

    def flush(self):
        self.file.flush()


def bands(data: np.ndarray) -> list[np.ndarray]:
    """Returns the rows in bands of about 4 MB: compressing them takes little memory."""
    step = max(1, 2**22 // data[0].nbytes)
    return [data[i : i + step] for i in range(0, len(data), step)]


def _chunk(kind, payload):
    crc = struct.pack(">I", zlib.crc32(payload, zlib.crc32(kind)))
    return struct.pack(">I", len(payload)) + kind + payload + crc


def described(picture: Picture) -> bytes:
    """Returns the chunks of a PNG that describe a picture."""
    chunks = dict(picture.chunks)
    icc = chunks.pop(b"iCCP", None if picture.colours and chunks else picture.icc)
    out = [_chunk(kind, data) for kind, data in chunks.items()]
    if icc:
        out.append(_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc)))
    if picture.dpi:
        per_metre = [min(round(dots / 0.0254), 2**31 - 1) for dots in picture.dpi]
        out.append(_chunk(b"pHYs", struct.pack(">2IB", *per_metre, 1)))
    if picture.exif:
        out.append(_chunk(b"eXIf", picture.exif.removeprefix(b"Exif\0\0")))
    texts = list(picture.text)
    if picture.xmp:
        texts.append(Text(XMP_KEYWORD, picture.xmp.decode(errors="replace")))
    for keyword, text, *more in texts:
        head = keyword.encode("latin-1", "replace")[:79] + b"\0"
        if any(more) or not text.isascii() or keyword == XMP_KEYWORD:
            language, translated = (part.encode() + b"\0" for part in more)
            data = head + b"\0\0" + language + translated + text.encode()
            out.append(_chunk(b"iTXt", data))
        else:
            out.append(_chunk(b"tEXt", head + text.encode()))
    return b"".join(out)


def write_16(file: BinaryIO, data: np.ndarray, chunks: bytes) -> None:
    """Writes a PNG of 16 bits. Pillow writes 16 bits of grey only.

    Args:
      file: to write to.
      data: (h, w, 1..4) uint16.
      chunks: what stands between the header and the pixels.
    """
    h, w, channels = data.shape
    file.write(b"\x89PNG\r\n\x1a\n")
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    file.write(_chunk(b"IHDR", struct.pack(">2I5B", w, h, 16, colour, 0, 0, 0)))
    file.write(chunks)
    packer = zlib.compressobj(LEVEL)
    above = np.zeros((1, w * channels * 2), np.uint8)
    for band in bands(data):
        raw = band.astype(">u2").view(np.uint8).reshape(len(band), -1)
        # Filter 2: each row minus the one above.
        filtered = raw - np.concatenate([above, raw[:-1]])
        above = raw[-1:]
        rows = np.concatenate([np.full((len(raw), 1), 2, np.uint8), filtered], axis=1)
        file.write(_chunk(b"IDAT", packer.compress(rows.tobytes())))
    file.write(_chunk(b"IDAT", packer.flush()))
    file.write(_chunk(b"IEND", b""))
