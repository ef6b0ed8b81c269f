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
    TiffImagePlugin,
    WebPImagePlugin,
    _imaging,
)

from btsrn_jax.errors import InputError, first_line
from btsrn_jax.images import exif
from btsrn_jax.images.pixels import pixels_of

# Larger files are refused by their header, since a few bytes can claim 2^62 pixels.
# 200 megapixels are more than any camera takes in one shot, and 0.6 GB decoded.
MEGAPIXELS = 200

# The plug-ins themselves instead of `Image.open`: no other format is ever tried on a
# user's file, and Pillow's own limit, a warning at 89 megapixels, does not apply.
_FORMATS = {
    b"\x89PNG\r\n\x1a\n": ("PNG", PngImagePlugin.PngImageFile),
    b"\xff\xd8\xff": ("JPEG", JpegImagePlugin.JpegImageFile),
    b"RIFF": ("WebP", WebPImagePlugin.WebPImageFile),
    b"II*\0": ("TIFF", TiffImagePlugin.TiffImageFile),
    b"MM\0*": ("TIFF", TiffImagePlugin.TiffImageFile),
    b"II+\0": ("TIFF", TiffImagePlugin.TiffImageFile),
    b"MM\0+": ("TIFF", TiffImagePlugin.TiffImageFile),
    b"BM": ("BMP", BmpImagePlugin.BmpImageFile),
}
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


@dataclasses.dataclass(frozen=True)
class Picture:
    """What one image file holds."""

    pixels: np.ndarray
    """(h, w, 1 or 3) uint8 or uint16, upright; colours are not premultiplied."""

    alpha: np.ndarray | None = None
    """(h, w) of the same dtype, where 0 is transparent; None if all is opaque."""

    icc: bytes | None = None
    """The ICC profile of `pixels`; None means sRGB."""

    exif: bytes | None = None
    """An EXIF block that begins with b"Exif", its orientation 1; None if empty."""

    notes: tuple[str, ...] = ()
    """What was done on reading, one short phrase each."""


def read_picture(path: pathlib.Path) -> Picture:
    """Reads a PNG, JPEG, WebP, TIFF or BMP file, whatever its name says.

    Raises:
      InputError: in one line, for a file that cannot be read whole and right.
    """
    notes = []
    with _opened(path) as file:
        kind, image = _open(file, notes)
        named = SUFFIXES.get(pathlib.Path(path).suffix.lower(), kind)
        if named != kind:
            notes.append(f"read as {kind}, which it is in spite of its name")
        with _warnings_to(notes):
            frames = getattr(image, "n_frames", 1)
            orientation = exif.orientation(file, image)
            block = exif.descriptive(image, notes)
        if frames > 1:
            notes.append(f"the first of {frames} frames or pages only")
        icc = image.info.get("icc_profile") or None
        # Only TIFF warns while decoding; the other formats are decoded in parallel.
        with _warnings_to(notes) if kind == "TIFF" else contextlib.nullcontext():
            pixels = pixels_of(image, lambda: _open(file, notes)[1], notes)
        if orientation != 1:
            notes.append(f"EXIF orientation {orientation} applied")
            if kind != "TIFF":  # Pillow has turned a TIFF while loading it
                flip, quarters = exif.UPRIGHT[orientation]
                pixels = np.rot90(pixels[:, ::-1] if flip else pixels, quarters)
        channels = 3 if pixels.shape[2] >= 3 else 1
        alpha = pixels[..., channels] if pixels.shape[2] in (2, 4) else None
        space = {3: b"RGB ", 1: b"GRAY"}[channels]
        if icc and icc[16:20] not in (space, b"RGB "):  # grey in an RGB profile exists
            icc = None
            if image.mode != "CMYK":  # converted to sRGB, and that was said
                notes.append("ICC profile dropped (not for these channels)")
        pixels = np.ascontiguousarray(pixels[..., :channels])
        return Picture(pixels, alpha, icc, block, tuple(dict.fromkeys(notes)))


def image_size(path: pathlib.Path) -> tuple[int, int]:
    """Returns (h, w) of an image file, upright, from its header alone.

    Raises:
      InputError: as `read_picture`, as far as the header shows it.
    """
    with _opened(path) as file:
        kind, image = _open(file, [])
        with _warnings_to([]):
            turned = kind != "TIFF" and exif.orientation(file, image) >= 5
        return image.size if turned else image.size[::-1]


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
        raise InputError(f"no file {path}") from None
    except IsADirectoryError:
        raise InputError(f"cannot read {path}: it is a folder") from None
    except PermissionError:
        raise InputError(f"cannot read {path}: permission denied") from None
    except MemoryError:
        raise InputError(f"cannot read {path}: out of memory") from None
    except Image.DecompressionBombError:  # WebP's, before there is an image to ask
        more = f"more than {MEGAPIXELS} megapixels"
        raise InputError(f"cannot read {path}: {more}") from None
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
    """Returns (format, Pillow image) of a file whose header shows a size in bounds."""
    file.seek(0)
    head = file.read(12)
    if not head:
        raise ValueError("the file is empty")
    for magic, (kind, plugin) in _FORMATS.items():  # noqa: B007
        if head.startswith(magic) and (kind != "WebP" or head[8:] == b"WEBP"):
            break
    else:
        known = ", ".join(dict.fromkeys(SUFFIXES.values()))
        raise ValueError(f"none of {known}")
    file.seek(0)
    if kind == "TIFF":
        _silence_libtiff()
    with _warnings_to(notes):
        image = plugin(file)
    w, h = image.size
    if w * h > MEGAPIXELS * 10**6:
        megapixels = f"{w * h / 1e6:.0f} megapixels, more than {MEGAPIXELS}"
        raise ValueError(f"{w} x {h} are {megapixels}")
    if w < 1 or h < 1:
        raise ValueError(f"it is {w} x {h} pixels")
    return kind, image
