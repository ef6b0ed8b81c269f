"""Writes a Picture as a PNG, JPEG, WebP, TIFF or BMP file, whole or not at all."""

import dataclasses
import math
import pathlib
import zlib

import numpy as np
from PIL import Image, TiffImagePlugin

from btsrn_jax import storage
from btsrn_jax.errors import InputError
from btsrn_jax.images import exif, jpeg, png, xmp
from btsrn_jax.images.decode import SUFFIXES
from btsrn_jax.images.picture import Picture

# The most pixels along a side. JPEG's own limit is 65,535, but libjpeg's is 65,500.
_LONGEST = {"JPEG": 65500, "WebP": 16383, "PNG": 2**31 - 1}
_BYTES = {"TIFF": 2**32, "BMP": 2**31}  # of a file: offsets have 32 or 31 bits

# JPEG at 95 without chroma subsampling is as good as that format gets. WebP is written
# lossless: its lossy form always halves the resolution of colours, and throws away what
# was just computed. `exact` keeps the colours of transparent pixels.
_OPTIONS = {
    "PNG": {"compress_level": png.LEVEL},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WebP": {"lossless": True, "method": 1, "quality": 50, "exact": True},
    "BMP": {},
}
_LOSSY = {"JPEG": {}, "WebP": {"lossless": False, "method": 4}}  # at a given quality


# What may describe a picture, as messages call it, and how many bytes of it a format
# can hold; where nothing is said, no file has more.
NAMES = {"icc": "ICC profile", "exif": "EXIF", "xmp": "XMP", "iptc": "IPTC"}
NAMES |= {"text": "text"}
_ROOM = {"JPEG": jpeg.ROOM, "PNG": {"iptc": 0}, "WebP": {"iptc": 0, "text": 0}}
_ROOM |= {"TIFF": {"text": 0}, "BMP": dict.fromkeys(NAMES, 0)}


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
    described = 0 if picture is None else _described(picture)
    if h * w * depth + described + 2**16 > _BYTES.get(kind, 2**63):
        limit = f"{_BYTES[kind] >> 30} GB"
        raise InputError(f"cannot write {path}: {w} x {h}, but {kind} ends at {limit}")


def write_picture(
    path: pathlib.Path, picture: Picture, quality: int | None = None
) -> list[str]:
    """Writes a picture in the format of the suffix, whole or not at all.

    PNG and TIFF hold all pixels. JPEG (quality 95, 4:4:4) and BMP have 8 bits and no
    alpha, WebP (lossless) has 8 bits and no grey. All but BMP hold a profile, EXIF and
    XMP; JPEG and TIFF hold IPTC, PNG text, JPEG a comment.

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
            png.write_16(file, data, png.described(picture))
        else:
            data = data[..., 0] if data.shape[2] == 1 else data
            more, into = _OPTIONS[kind], file
            if kind == "PNG":
                into = png.Inserting(file, png.described(picture))
            elif kind == "BMP":
                more = {"dpi": picture.dpi or (0, 0)}  # Pillow's own default is 96
            else:
                more = more | jpeg.described(picture)  # WebP's words are the same
            if quality and kind in _LOSSY:
                more = more | {"quality": quality} | _LOSSY[kind]
            Image.fromarray(data).save(into, kind, **more)
    return lost


def _described(picture):
    """Returns how many bytes describe a picture."""
    blocks = (picture.icc, picture.exif, picture.xmp, picture.iptc)
    return sum(len(block) for block in blocks if block)


def _kind(path):
    suffix = pathlib.Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        known = " ".join(SUFFIXES)
        raise InputError(f"cannot write {path}: the suffix is none of {known}")
    return SUFFIXES[suffix]


def _fitted(picture, kind):
    """Returns the picture as the format can hold it, and a phrase for each loss."""
    lost, pixels, alpha = [], picture.pixels, picture.alpha
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
    pixels = np.ascontiguousarray(pixels)
    fitted = dataclasses.replace(picture, pixels=pixels, alpha=alpha)
    return _fitted_descriptions(fitted, kind, lost), lost


def _fitted_descriptions(picture, kind, lost):
    """Returns the picture with the descriptions that the format can hold."""
    size, names = picture.pixels.shape[:2], NAMES | {"icc": picture.colours_name}
    kept = {
        "icc": picture.icc,
        "exif": exif.with_size(picture.exif, *size),
        "xmp": xmp.with_size(picture.xmp, *size),
        "iptc": picture.iptc,
        "text": picture.text,
    }
    if picture.dpi and kind == "WebP":  # its only place for it
        kept["exif"] = exif.with_resolution(kept["exif"], picture.dpi)
    if kind == "JPEG":
        kept["text"] = tuple(t for t in picture.text if t.keyword == "Comment")[:1]
    room = _ROOM.get(kind, {})
    for field, value in kept.items():
        why = f"{kind} has no room for it"
        size = len(value or b"")
        if field == "text":
            size = sum(len(text.text.encode()) for text in value)
        if field == "icc" and value and kind != "BMP":
            space = b"GRAY" if picture.pixels.shape[2] == 1 else b"RGB "
            if value[16:20] != space:
                why, size = "not for these channels", math.inf
        if size > room.get(field, 2**31 - 2**10):
            kept[field] = value = () if field == "text" else None
        unsaid = field == "icc" and picture.colours and kind != "PNG"
        if (getattr(picture, field) or unsaid) and not value:
            lost.append(f"{names[field]} dropped ({why})")
        elif field == "text" and len(value) < len(picture.text):
            lost.append(f"text dropped but for the comment ({why})")
    return dataclasses.replace(picture, **kept)


def to_8_bits(x: np.ndarray) -> np.ndarray:
    """Returns uint8 for uint16 of any shape: x / 257, rounded."""
    return ((x.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _save_tiff(file, data, picture):
    """Writes a TIFF of (h, w, 1..4) uint8 or uint16: deflated horizontal differences.

    Pillow writes neither 16-bit colour nor differences, but it does write the
    directory, EXIF included.
    """
    h, w, channels = data.shape
    strips, bands = [], png.bands(data)
    for band in bands:
        change = band.astype(band.dtype.newbyteorder("<"))
        change[:, 1:] -= band[:, :-1]
        strips.append(zlib.compress(change.tobytes(), png.LEVEL))
    lengths = [len(strip) for strip in strips]
    tags = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    told, directories = exif.load(picture.exif), (exif.EXIF_IFD, exif.GPS_IFD)
    for tag in told:
        tags[tag] = told.get_ifd(tag) if tag in directories else told[tag]
    layout = {256: w, 257: h, 258: (8 * data.itemsize,) * channels, 259: 8}
    layout |= {262: 2 if channels >= 3 else 1, 277: channels, 278: len(bands[0])}
    layout |= {273: tuple(np.cumsum([0, *lengths[:-1]]).tolist()), 279: tuple(lengths)}
    layout |= {317: 2}  # predictor: differences
    if channels in (2, 4):
        layout[338] = 2  # alpha, not premultiplied
    for tag, block in ((34675, picture.icc), (700, picture.xmp), (33723, picture.iptc)):
        if block:
            layout[tag], tags.tagtype[tag] = block, 1 if tag == 700 else 7
    if picture.dpi:
        layout |= {282: picture.dpi[0], 283: picture.dpi[1], 296: 2}
    tags.update(layout)
    tags.tagtype[273] = tags.tagtype[279] = 4  # LONG, whatever the first values are
    tags.save(file)  # strip offsets are moved behind the directory
    file.writelines(strips)
