"""Reads an image file as it is: pixels of 8 or 16 bits, alpha, colour profile, EXIF.

Pillow decodes, but nothing is left to its guesses. The first bytes tell the format,
the size is checked before a pixel is decoded, 16-bit colour keeps all its bits, and
`Picture.notes` says what had to be converted.
"""

import contextlib
import ctypes
import dataclasses
import functools
import os
import pathlib
import stat
import struct
import threading
import warnings
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL import (
    BmpImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
    _imaging,
)

from btsrn_jax import storage
from btsrn_jax.errors import InputError, first_line
from btsrn_jax.images import exif, heif, jpeg, parts, png, profiles, xmp
from btsrn_jax.images.picture import Picture
from btsrn_jax.images.pixels import pixels_of
from btsrn_jax.images.quantisation import JpegQuality, quality_of
from btsrn_jax.images.tiff import TiffImage

# Larger files are refused by their header, since a few bytes can claim 2^62 pixels.
# 200 megapixels are more than any camera takes in one shot, and 0.6 GB decoded.
MEGAPIXELS = 200

# The plug-ins themselves instead of `Image.open`: no other format is ever tried on a
# user's file, and Pillow's own limit, a warning at 89 megapixels, does not apply.
_FORMATS = {
    b"\x89PNG\r\n\x1a\n": ("PNG", PngImagePlugin.PngImageFile),
    b"\xff\xd8\xff": ("JPEG", JpegImagePlugin.JpegImageFile),
    b"RIFF": ("WebP", WebPImagePlugin.WebPImageFile),
    b"II*\0": ("TIFF", TiffImage),
    b"MM\0*": ("TIFF", TiffImage),
    b"II+\0": ("TIFF", TiffImage),
    b"MM\0+": ("TIFF", TiffImage),
    b"BM": ("BMP", BmpImagePlugin.BmpImageFile),
}
_SPLIT = {"PNG": png.split, "JPEG": jpeg.split}
_SPLIT |= {"WebP": parts.split_webp, "BMP": parts.split_bmp}
SUFFIXES = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".jif": "JPEG",
    ".jfi": "JPEG",
    ".pjpeg": "JPEG",
    ".pjp": "JPEG",
    ".webp": "WebP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}

# `warnings.catch_warnings` changes the whole process, and training decodes in threads.
_WARNINGS = threading.RLock()


def read_picture(path: pathlib.Path) -> Picture:
    """Reads a PNG, JPEG, WebP, TIFF or BMP file, whatever its name says; HEIC and AVIF
    where they can be decoded (`heif`).

    Raises:
      InputError: in one line, for a file that cannot be read whole and right.
    """
    notes = []
    with _opened(path) as file:
        kind, image, found = _open(file, notes)
        named = SUFFIXES.get(pathlib.Path(path).suffix.lower(), kind)
        if named != kind:
            notes.append(f"read as {kind}, which it is in spite of its name")
        told, turned = _exif_of(image, found, notes), _orientation(image, found)
        with _warnings_to([]):
            block = exif.descriptive(told, found.notes)
        if found.frames > 1:
            what = "pictures" if kind == "JPEG" else "frames or pages"
            notes.append(f"the first of {found.frames} {what} only")
        # Only TIFF warns while decoding; the other formats are decoded in parallel.
        with _warnings_to(notes) if kind == "TIFF" else contextlib.nullcontext():
            key = found.transparency
            pixels = pixels_of(image, lambda: _open(file, [])[1], key, notes)
        if turned != 1:
            notes.append(f"orientation {turned} applied")
            flip, quarters = exif.UPRIGHT[turned]
            pixels = np.rot90(pixels[:, ::-1] if flip else pixels, quarters)
        channels = 3 if pixels.shape[2] >= 3 else 1
        alpha = pixels[..., channels] if pixels.shape[2] in (2, 4) else None
        if kind == "BMP" and alpha is not None and not alpha.any():
            alpha = None  # many programs leave these bytes unset
            notes.append("alpha is 0 everywhere: taken as opaque")
        icc, colours, chunks = _colours_of(image, found, told, channels == 1)
        picture = Picture(
            pixels=np.ascontiguousarray(pixels[..., :channels]),
            alpha=alpha,
            icc=icc,
            exif=block,
            xmp=_xmp_of(found),
            iptc=found.iptc,
            text=tuple(found.text),
            dpi=_dpi_of(found, told),
            colours=colours,
            chunks=chunks,
        )
        notes = tuple(dict.fromkeys(notes + found.notes))
        return dataclasses.replace(picture, notes=notes)


def image_size(path: pathlib.Path) -> tuple[int, int]:
    """Returns (h, w) of an image file, upright, from its header alone.

    Raises:
      InputError: as `read_picture`, as far as the header shows it.
    """
    with _opened(path) as file:
        _, image, found = _open(file, [])
        return image.size if _orientation(image, found) >= 5 else image.size[::-1]


def jpeg_quality(path: pathlib.Path) -> JpegQuality | None:
    """Returns the quality of a JPEG file, from its header alone; None for any other.

    Raises:
      InputError: as `image_size`.
    """
    with _opened(path) as file:
        kind, image, _ = _open(file, [])
        return quality_of(image.quantization) if kind == "JPEG" else None


def _exif_of(image, found, notes):
    """Returns Pillow's view of the EXIF of a file."""
    with _warnings_to(damage := []):
        # In a TIFF it is the file itself.
        told = exif.load(found.exif)
        with contextlib.suppress(Exception):  # Pillow raises many types
            told = Image.Image.getexif(image) if image.format == "TIFF" else told
            told.get_ifd(exif.EXIF_IFD)
    head = (found.exif or b"").removeprefix(b"Exif\0\0")[:4]
    if head and head not in exif.MAGIC:
        notes.append("EXIF damaged: not kept")
    elif damage:
        notes.append("EXIF damaged: kept in part")
    return told


def _orientation(image, found):
    """Returns the orientation, 1..8: EXIF's, else that of XMP."""
    with _warnings_to([]):
        turned = exif.orientation(_exif_of(image, found, []))
        if turned is None and found.xmp:
            with contextlib.suppress(Exception):  # damaged XMP is named elsewhere
                turned = xmp.orientation(found.xmp)
    return turned or 1


def _xmp_of(found):
    if not found.xmp:
        return None
    with found.optional("XMP"):
        packet, changed = xmp.descriptive(found.xmp)
        xmp.with_size(packet, 1, 1)  # what could fail on writing fails here
        if changed:
            found.notes.append("what XMP embeds (gain map, depth, video) not kept")
        return packet
    return None


def _dpi_of(found, told):
    with _warnings_to([]):
        dpi = found.dpi or exif.dots_per_inch(told)
    if dpi and not all(1 <= value < 65535 for value in dpi):  # JPEG has no others
        found.notes.append("resolution damaged: not kept")
        return None
    return dpi


def _colours_of(image, found, told, grey):
    """Returns (profile, what it was made from, PNG chunks) of an image."""
    icc, chunks, made = found.icc, dict(found.colour), None
    if image.mode in ("CMYK", "LAB"):  # converted to sRGB, and that was said
        return None, "", ()
    if icc and icc[16:20] not in (b"GRAY" if grey else b"RGB ", b"RGB "):
        icc = None
        found.notes.append("ICC profile dropped (not for these channels)")
    chunks = {name: data for name, data in chunks.items() if name in png.COLOUR_CHUNKS}
    if icc:  # it comes before the others, but for cICP
        chunks = {k: v for k, v in chunks.items() if k in (b"cICP", b"mDCV", b"cLLI")}
    with found.optional("the meaning of colours"), _warnings_to([]):
        if image.format == "BMP" and not icc and found.colour:
            made = profiles.of_bmp(found.colour[b"BM"], grey)
        elif image.format == "TIFF" and not icc:
            made = profiles.of_tags(found.colour, grey, "TIFF tags")
        elif chunks and (not icc or b"cICP" in chunks):
            made = profiles.of_png(chunks, grey)
        if made is None and not icc:
            made = profiles.of_exif(told, grey)
    if made and image.format not in ("PNG", "BMP", "TIFF") and b"cICP" in chunks:
        made = made[0], made[1] and "nclx"  # what these formats call it
    if icc and made and not made[0]:  # HDR, and a profile for who does not know it
        made = None
    elif icc and made:
        chunks[b"iCCP"] = icc
    icc, colours = made or (icc, "")
    return icc, colours, tuple(chunks.items())


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[BinaryIO]:
    """Opens a file; any failure within becomes an InputError that names it."""
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
            raise ValueError("not a regular file")  # opening it might block
        with open(path, "rb") as file:
            yield file
    except FileNotFoundError:
        raise InputError(storage.missing(path)) from None
    except IsADirectoryError:
        raise InputError(f"cannot read {path}: it is a folder") from None
    except PermissionError:
        raise InputError(f"cannot read {path}: permission denied") from None
    except MemoryError:
        raise InputError(f"cannot read {path}: out of memory") from None
    except Image.DecompressionBombError:  # WebP's, before there is an image to ask
        more = f"more than {MEGAPIXELS} megapixels"
        raise InputError(f"cannot read {path}: {more}") from None
    except (struct.error, LookupError):  # Pillow's, without words
        raise InputError(f"cannot read {path}: it is damaged") from None
    except Exception as error:  # Pillow raises many types for damaged files
        raise InputError(f"cannot read {path}: {first_line(error)}") from None


@contextlib.contextmanager
def _warnings_to(notes: list[str]) -> Iterator[None]:
    """Appends the warnings of this thread to `notes`; those of others go their way."""
    thread = threading.get_ident()
    with _WARNINGS, warnings.catch_warnings():
        show = warnings.showwarning

        def note(message, category, *place):
            if threading.get_ident() != thread:
                show(message, category, *place)
            elif not issubclass(category, Image.DecompressionBombWarning):
                notes.append(" ".join(str(message).split()))

        warnings.showwarning = note
        warnings.simplefilter("always")
        yield


@functools.cache
def _silence_libtiff():
    """Keeps libtiff, in this process, from printing on standard error.

    The exceptions that follow say as much. Pillow has no switch for it, so the library
    that Pillow has loaded is asked itself; where a build hides it, it goes on printing.
    """
    with contextlib.suppress(AttributeError, OSError):
        libtiff = ctypes.CDLL(_imaging.__file__)  # its symbols, and what it links to
        libtiff.TIFFSetErrorHandler(None)
        libtiff.TIFFSetWarningHandler(None)


def _open(file, notes):
    """Returns (format, Pillow image, Parts) of a file whose size is in bounds."""
    file.seek(0)
    head = file.read(12)
    if not head:
        raise ValueError("the file is empty")
    for magic, (kind, plugin) in _FORMATS.items():  # noqa: B007
        if head.startswith(magic) and (kind != "WebP" or head[8:] == b"WEBP"):
            break
    else:
        other = heif.find_plugin(file, notes)
        if other is None:
            known = ", ".join(dict.fromkeys(SUFFIXES.values()))
            raise ValueError(f"none of {known}")
        kind, plugin = other
    found = parts.Parts(file)
    with found.optional("header") if kind == "BMP" else contextlib.nullcontext():
        _SPLIT.get(kind, lambda *_: None)(file, found)
    found.file.seek(0)
    if kind == "TIFF":
        _silence_libtiff()
    with _warnings_to(notes):
        image = plugin(found.file)
    found = getattr(image, "parts", found)  # a TIFF's tags are told by its reader
    if kind in heif.KINDS:
        heif.describe(image, found)
    found.icc = parts.checked_icc(found.icc, found.notes)
    image.info["icc_profile"] = found.icc
    w, h = image.size
    if w * h > MEGAPIXELS * 10**6:
        megapixels = f"{w * h / 1e6:.0f} megapixels, more than {MEGAPIXELS}"
        raise ValueError(f"{w} x {h} are {megapixels}")
    if w < 1 or h < 1:
        raise ValueError(f"it is {w} x {h} pixels")
    return kind, image, found
