"""Writes a Picture as a PNG, JPEG, WebP, TIFF or BMP file, whole or not at all."""

import dataclasses
import pathlib
import struct
import zlib

import numpy as np
from PIL import Image, TiffImagePlugin

from btsrn_jax import storage
from btsrn_jax.errors import InputError
from btsrn_jax.images.decode import SUFFIXES, Picture
from btsrn_jax.images.exif import EXIF_IFD, GPS_IFD, with_size

# The most pixels along a side. JPEG's own limit is 65,535, but libjpeg's is 65,500.
_LONGEST = {"JPEG": 65500, "WebP": 16383, "PNG": 2**31 - 1}
_BYTES = {"TIFF": 2**32, "BMP": 2**31}  # of a file: offsets have 32 or 31 bits

_LEVEL = 4  # of zlib: two to three times as fast as the usual 6, files 3 to 7 % larger

# JPEG at 95 without chroma subsampling is as good as that format gets. WebP is written
# lossless: its lossy form always halves the resolution of colours, and throws away what
# was just computed. `exact` keeps the colours of transparent pixels.
_OPTIONS = {
    "PNG": {"compress_level": _LEVEL},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WebP": {"lossless": True, "method": 1, "quality": 50, "exact": True},
    "BMP": {},
}
_LOSSY = {"JPEG": {}, "WebP": {"lossless": False, "method": 4}}  # at a given quality


def check_writable(
    path: pathlib.Path, h: int, w: int, picture: Picture | None = None
) -> None:
    """Raises InputError if the format of `path` is unknown or cannot hold h x w pixels.

    It is meant to be called before anything is computed.

    Args:
      path: the file to be written; its suffix tells the format.
      h, w: its size in pixels.
      picture: its depth and channels count, its size does not; None stands for RGB of
        8 bits.
    """
    kind = _kind(path)
    if max(h, w) > _LONGEST.get(kind, 2**31 - 1):
        limit = f"{_LONGEST[kind]} pixels along a side"
        raise InputError(f"cannot write {path}: {w} x {h}, but {kind} ends at {limit}")
    depth = 3 if picture is None else picture.pixels.shape[2] * picture.pixels.itemsize
    if picture is not None and picture.alpha is not None:
        depth += picture.pixels.itemsize
    # The compressed file may be smaller, but that is known too late.
    if h * w * depth + 2**16 > _BYTES.get(kind, 2**63):
        limit = f"{_BYTES[kind] >> 30} GB"
        raise InputError(f"cannot write {path}: {w} x {h}, but {kind} ends at {limit}")


def write_picture(
    path: pathlib.Path, picture: Picture, quality: int | None = None
) -> list[str]:
    """Writes a picture in the format of the suffix, whole or not at all.

    PNG and TIFF hold all of a Picture. JPEG (quality 95, 4:4:4) and BMP have 8 bits and
    no alpha, WebP (lossless) has 8 bits and no grey, BMP neither profile nor EXIF.

    Args:
      path: the file; its folder is made if it is missing.
      picture: what to write.
      quality: 1 to 100, of JPEG and WebP, which is then lossy; None for 95 in JPEG and
        for WebP without loss. Other formats have none.

    Returns:
      One phrase for each thing that the format could not hold.

    Raises:
      InputError: the suffix is unknown, or the format cannot hold the size.
      OSError: the file system refuses.
    """
    path = pathlib.Path(path)
    check_writable(path, *picture.pixels.shape[:2], picture)
    kind = _kind(path)
    picture, lost = _fitted(picture, kind)
    data = picture.pixels
    if picture.alpha is not None:
        data = np.concatenate([data, picture.alpha[..., None]], axis=2)
    with storage.replacing(path) as file:
        if kind == "TIFF":
            _save_tiff(file, data, picture)
        elif data.dtype == np.uint16:
            _save_png_16(file, data, picture)
        else:
            more = {"icc_profile": picture.icc, "exif": picture.exif}
            more = {k: v for k, v in more.items() if v} | _OPTIONS[kind]
            if quality and kind in _LOSSY:
                more |= {"quality": quality} | _LOSSY[kind]
            data = data[..., 0] if data.shape[2] == 1 else data
            Image.fromarray(data).save(file, kind, **more)
    return lost


def _kind(path):
    suffix = pathlib.Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        known = " ".join(SUFFIXES)
        raise InputError(f"cannot write {path}: the suffix is none of {known}")
    return SUFFIXES[suffix]


def _fitted(picture, kind):
    """Returns the picture as the format can hold it, and a phrase for each loss."""
    lost, pixels, alpha = [], picture.pixels, picture.alpha
    icc, exif = picture.icc, with_size(picture.exif, *pixels.shape[:2])
    if alpha is not None and kind in ("JPEG", "BMP"):
        top = np.iinfo(alpha.dtype).max
        cover = (alpha / np.float32(top))[..., None]
        pixels = np.rint(pixels * cover + top * (1 - cover)).astype(pixels.dtype)
        alpha = None
        lost.append(f"alpha composed on white ({kind} has none)")
    if pixels.dtype == np.uint16 and kind not in ("PNG", "TIFF"):
        pixels = to_8_bits(pixels)
        alpha = None if alpha is None else to_8_bits(alpha)
        lost.append(f"16-bit reduced to 8-bit ({kind} has no more)")
    # Few programs, and not Pillow, read a TIFF of 16-bit grey with alpha.
    rare = kind == "TIFF" and alpha is not None and pixels.dtype == np.uint16
    if pixels.shape[2] == 1 and (kind == "WebP" or rare):
        pixels = np.repeat(pixels, 3, axis=2)
        lost.append(f"grey written as RGB ({kind} has no grey of this kind)")
    if icc and kind == "BMP":
        icc = None
        lost.append("ICC profile dropped (BMP has none)")
    if icc and icc[16:20] != (b"GRAY" if pixels.shape[2] == 1 else b"RGB "):
        icc = None
        lost.append("ICC profile dropped (not for these channels)")
    if exif and (kind == "BMP" or (kind == "JPEG" and len(exif) > 65533)):
        exif = None
        lost.append(f"EXIF dropped ({kind} has no room for it)")
    fitted = dataclasses.replace(
        picture, pixels=np.ascontiguousarray(pixels), alpha=alpha, icc=icc, exif=exif
    )
    return fitted, lost


def to_8_bits(x: np.ndarray) -> np.ndarray:
    """Returns uint8 for uint16 of any shape: x / 257, rounded."""
    return ((x.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _bands(data):
    """Returns the rows in bands of about 4 MB: compressing them takes little memory."""
    step = max(1, 2**22 // data[0].nbytes)
    return [data[i : i + step] for i in range(0, len(data), step)]


def _save_png_16(file, data, picture):
    """Writes a PNG of (h, w, 1..4) uint16. Pillow writes 16 bits of grey only."""

    def chunk(kind, payload):
        crc = struct.pack(">I", zlib.crc32(payload, zlib.crc32(kind)))
        file.write(struct.pack(">I", len(payload)) + kind + payload + crc)

    h, w, channels = data.shape
    file.write(b"\x89PNG\r\n\x1a\n")
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    chunk(b"IHDR", struct.pack(">2I5B", w, h, 16, colour, 0, 0, 0))
    if picture.icc:
        chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(picture.icc))
    if picture.exif:
        chunk(b"eXIf", picture.exif.removeprefix(b"Exif\0\0"))
    packer = zlib.compressobj(_LEVEL)
    above = np.zeros((1, w * channels * 2), np.uint8)
    for band in _bands(data):
        raw = band.astype(">u2").view(np.uint8).reshape(len(band), -1)
        # Filter 2: each row minus the one above.
        filtered = raw - np.concatenate([above, raw[:-1]])
        above = raw[-1:]
        rows = np.concatenate([np.full((len(raw), 1), 2, np.uint8), filtered], axis=1)
        chunk(b"IDAT", packer.compress(rows.tobytes()))
    chunk(b"IDAT", packer.flush())
    chunk(b"IEND", b"")


def _save_tiff(file, data, picture):
    """Writes a TIFF of (h, w, 1..4) uint8 or uint16: deflated horizontal differences.

    Pillow writes neither 16-bit colour nor differences, but it does write the
    directory, EXIF included.
    """
    h, w, channels = data.shape
    strips, bands = [], _bands(data)
    for band in bands:
        change = band.astype(band.dtype.newbyteorder("<"))
        change[:, 1:] -= band[:, :-1]
        strips.append(zlib.compress(change.tobytes(), _LEVEL))
    lengths = [len(strip) for strip in strips]
    tags = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    exif = Image.Exif()
    if picture.exif:
        exif.load(picture.exif)
    for tag in exif:
        tags[tag] = exif.get_ifd(tag) if tag in (EXIF_IFD, GPS_IFD) else exif[tag]
    layout = {256: w, 257: h, 258: (8 * data.itemsize,) * channels, 259: 8}
    layout |= {262: 2 if channels >= 3 else 1, 277: channels, 278: len(bands[0])}
    layout |= {273: tuple(np.cumsum([0, *lengths[:-1]]).tolist()), 279: tuple(lengths)}
    layout |= {317: 2}  # predictor: differences
    if channels in (2, 4):
        layout[338] = 2  # alpha, not premultiplied
    if picture.icc:
        layout[34675] = picture.icc
    tags.update(layout)
    tags.tagtype[273] = tags.tagtype[279] = 4  # LONG, whatever the first values are
    tags.save(file)  # strip offsets are moved behind the directory
    file.writelines(strips)
