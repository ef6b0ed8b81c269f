"""An image file as it is: pixels of 8 or 16 bits, alpha, colour profile, EXIF.

Decoding is Pillow's, but never its guesses: the kind of file is told by its first
bytes, its size is held to one limit before a pixel is decoded, 16-bit colour is read
with all its bits, and whatever had to be converted is said in `Picture.notes`.
"""

import contextlib
import dataclasses
import io
import os
import pathlib
import stat
import sys
import threading
import warnings

import numpy as np
from PIL import (
    BmpImagePlugin,
    Image,
    ImageCms,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from btsrn_jax.errors import InputError
from btsrn_jax.images import exif

# Larger files are refused by their header: 200 megapixels are more than any camera
# takes in one shot, and 0.6 GB decoded; a few bytes can claim 2^62 pixels.
MEGAPIXELS = 200

# The plug-ins themselves, not `Image.open`: no other format is ever tried on a user's
# file, and Pillow's own limit, a warning at 89 megapixels, does not apply.
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
    ".webp": "WebP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}

# `warnings.catch_warnings` changes the whole process, and training decodes in threads.
_WARNINGS = threading.RLock()


@dataclasses.dataclass
class Picture:
    """What one image file holds.

    Attributes:
      pixels: (h, w, 1 or 3) uint8 or uint16, upright; colours not premultiplied.
      alpha: (h, w) of the same dtype, 0 is transparent; or None.
      icc: the ICC profile that `pixels` are in; None means sRGB.
      exif: an EXIF block, beginning with b"Exif", its orientation 1; or None.
      notes: what was done on reading, one short phrase each.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    notes: tuple[str, ...] = ()


def read_picture(path: pathlib.Path) -> Picture:
    """Reads a PNG, JPEG, WebP, TIFF or BMP file, whatever its name.

    Raises InputError, in one line, for anything that cannot be read whole and right.
    """
    notes = []
    with _in_one_line(path), open(path, "rb") as file:
        kind, image = _open(file, path, notes)
        if pathlib.Path(path).suffix.lower() in SUFFIXES:
            named = SUFFIXES[pathlib.Path(path).suffix.lower()]
            if named != kind:
                notes.append(f"read as {kind}, which it is in spite of its name")
        with _quietly(notes, kind):
            frames = getattr(image, "n_frames", 1)
            orientation, block = exif.orientation(file, image), exif.kept(image, notes)
        if frames > 1:
            notes.append(f"the first of {frames} frames or pages only")
        icc = image.info.get("icc_profile") or None
        with contextlib.ExitStack() as stack:
            if kind == "TIFF":  # warns while decoding; the others decode in parallel
                stack.enter_context(_quietly(notes, kind))
            pixels = _decode(file, path, kind, image, notes)
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
    """(h, w) of an upright image file, by its header; InputError as read_picture."""
    with _in_one_line(path), open(path, "rb") as file:
        kind, image = _open(file, path, [])
        with _quietly([], kind):
            turned = kind != "TIFF" and exif.orientation(file, image) >= 5
        return image.size if turned else image.size[::-1]


@contextlib.contextmanager
def _in_one_line(path):
    """Any failure to read `path` becomes an InputError of one line."""
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
            raise InputError(f"cannot read {path}: not a regular file")  # might block
        yield
    except InputError:
        raise
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
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"cannot read {path}: {reason}") from None


@contextlib.contextmanager
def _quietly(notes, kind=None):
    """Warnings become notes. What libtiff prints on standard error is dropped: the
    exception that follows tells it, and C code heeds nothing but the descriptor."""
    recorded = warnings.catch_warnings(record=True)
    with _WARNINGS, recorded as seen, contextlib.ExitStack() as stack:
        warnings.simplefilter("always")
        if kind == "TIFF":
            with contextlib.suppress(OSError):  # without standard error, nothing to do
                error = os.dup(2)
                stack.callback(os.close, error)
                stack.callback(os.dup2, error, 2)
                with open(os.devnull, "wb") as nowhere:
                    os.dup2(nowhere.fileno(), 2)
        yield
    for warning in seen:
        if not issubclass(warning.category, Image.DecompressionBombWarning):
            notes.append(" ".join(str(warning.message).split()))


def _open(file, path, notes):
    """(kind, Pillow image), its header read and its size found to be within bounds."""
    file.seek(0)
    head = file.read(12)
    if not head:
        raise InputError(f"cannot read {path}: the file is empty")
    for magic, (kind, plugin) in _FORMATS.items():  # noqa: B007
        if head.startswith(magic) and (kind != "WebP" or head[8:] == b"WEBP"):
            break
    else:
        known = ", ".join(dict.fromkeys(SUFFIXES.values()))
        raise InputError(f"cannot read {path}: none of {known}")
    file.seek(0)
    with _quietly(notes, kind):
        image = plugin(file)
    w, h = image.size
    if w * h > MEGAPIXELS * 10**6:
        raise InputError(
            f"cannot read {path}: {w} x {h} are {w * h / 1e6:.0f} megapixels, more "
            f"than {MEGAPIXELS}"
        )
    if w < 1 or h < 1:
        raise InputError(f"cannot read {path}: it is {w} x {h} pixels")
    return kind, image


def _decode(file, path, kind, image, notes):
    """(h, w, 1..4) uint8 or uint16: grey, grey and alpha, RGB, or RGB and alpha."""
    key, raw = image.info.get("transparency"), _raw_mode(image)
    if kind in ("PNG", "TIFF") and not raw:
        raise InputError(f"cannot read {path}: it holds no pixels")
    tags = getattr(image, "tag_v2", {})
    if tags.get(284) == 2 and max(tags.get(258, (1,))) > 8:  # Pillow errs silently
        raise InputError(f"cannot read {path}: 16-bit colours in separate planes")
    if kind in ("PNG", "TIFF") and ("16" in raw or "12" in raw):
        if image.mode != "CMYK" and image.mode != "I":
            pixels = _decode_16(file, path, image, raw, notes)
            return pixels if key is None else _with_key(pixels, key)
        notes.append("16-bit CMYK reduced to 8 bits")
    image.load()
    mode, shown = image.mode, None
    if mode in ("P", "PA"):
        shown = "RGBA" if mode == "PA" or key is not None else "RGB"
        key = None
        notes.append(f"palette expanded to {shown}")
    elif mode == "1":
        shown = "L"
        notes.append("1-bit expanded to 8-bit grey")
    elif mode in ("La", "RGBa"):
        shown = mode.upper()
    elif mode == "YCbCr":
        shown = "RGB"
    elif mode == "CMYK":
        image = _cmyk_to_srgb(image, notes)
    elif mode not in ("L", "LA", "RGB", "RGBA"):
        held = {"F": "floating point", "I": "32-bit or signed integer"}.get(mode, mode)
        raise InputError(f"cannot read {path}: {held} pixels; 8 or 16 bits are read")
    pixels = np.asarray(image if shown is None else image.convert(shown))
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if key is None or isinstance(key, bytes):
        return pixels
    bits = int(raw[2:]) if raw in ("L;2", "L;4") else 8  # pixels are scaled, key is not
    return _with_key(pixels, np.asarray(key) * (255 // (2**bits - 1)))


def _decode_16(file, path, image, raw, notes):
    """(h, w, 1..4) uint16.

    Pillow has no 16-bit colour and unpacks the high byte of each value. Told the other
    byte order, it unpacks the low one: two passes give all bits.
    """
    tags = getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16"):
        image.load()
        grey = np.asarray(image).astype(np.uint16)
        if raw.startswith("I;12"):
            notes.append("12-bit scaled to 16-bit")
            grey = np.rint(grey * (65535 / 4095)).astype(np.uint16)
        white_is_zero = tags.get(262) == 0  # Pillow inverts this for 8 bits only
        return (65535 - grey if white_is_zero else grey)[..., None]
    if raw == "LA;16B":  # as wide as 8-bit RGBA, so decode as that
        pixels = _load(image, "RGBA")
        return pixels.view(">u2").astype(np.uint16)
    straight = raw.replace("a;", "A;")  # division by alpha follows, at full precision
    little = straight[-1] == "L" or (straight[-1] == "N" and sys.byteorder == "little")
    high = _load(image, straight).astype(np.uint16)
    low = _load(_open(file, path, notes)[1], straight[:-1] + "LB"[little])
    pixels = (high << 8) | low
    if straight != raw:
        alpha = pixels[..., 3:].astype(np.float32)
        colour = np.minimum(pixels[..., :3] / np.maximum(alpha, 1) * 65535, 65535)
        pixels[..., :3] = np.rint(colour).astype(np.uint16)
    return pixels


def _raw_mode(image):
    """Pillow's name for how the file stores its pixels, such as "RGB;16B"."""
    if not image.tile:
        return ""
    args = image.tile[0].args
    return args if isinstance(args, str) else str(args[0])


def _load(image, raw):
    """The pixels of an image not loaded yet, unpacked as `raw`."""
    image.tile = [
        t._replace(args=raw if isinstance(t.args, str) else (raw, *t.args[1:]))
        for t in image.tile
    ]
    image.load()
    return np.asarray(image)


def _with_key(pixels, key):
    """Adds the alpha of a PNG whose pixels of colour `key` are transparent."""
    top = np.iinfo(pixels.dtype).max
    alpha = np.where(np.all(pixels == key, axis=-1, keepdims=True), 0, top)
    return np.concatenate([pixels, alpha.astype(pixels.dtype)], axis=-1)


def _cmyk_to_srgb(image, notes):
    icc = image.info.get("icc_profile")
    if icc:
        with contextlib.suppress(ImageCms.PyCMSError, OSError):
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            srgb = ImageCms.createProfile("sRGB")
            out = ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB")
            notes.append("CMYK converted to sRGB by its ICC profile")
            return out
    notes.append("CMYK converted to RGB without a usable profile: colours approximate")
    return image.convert("RGB")
