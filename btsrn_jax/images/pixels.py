"""From an image as Pillow opens it to an array of 8 or 16 bits.

Pillow's own guesses would lose bits of 16-bit colours, and the alpha of a transparent
colour; what has to be converted is told to the caller.
"""

import contextlib
import io
import sys
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageCms


def pixels_of(
    image: Image.Image, reopen: Callable[[], Image.Image], notes: list[str]
) -> np.ndarray:
    """Returns an image's pixels with all their bits.

    Args:
      image: of a Pillow plug-in, not loaded yet.
      reopen: opens the same image once more.
      notes: takes a phrase for each thing that had to be converted.

    Returns:
      (h, w, 1..4) uint8 or uint16: grey or RGB, with or without alpha. EXIF orientation
      is applied to a TIFF, since Pillow does that, but not to other formats.

    Raises:
      ValueError: the pixels are of a kind that is not read. Pillow raises many other
        types for damaged files.
    """
    kind = image.format
    key, raw = image.info.get("transparency"), _raw_mode(image)
    if kind in ("PNG", "TIFF") and not raw:
        raise ValueError("it holds no pixels")
    tags = getattr(image, "tag_v2", {})
    # Of these Pillow makes wrong pixels, and says nothing.
    if tags.get(284) == 2 and max(tags.get(258, (1,))) > 8:
        raise ValueError("16-bit colours in separate planes")
    if kind in ("PNG", "TIFF") and ("16" in raw or "12" in raw):
        if image.mode != "CMYK" and image.mode != "I":
            pixels = _decode_16(image, reopen, raw, notes)
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
        raise ValueError(f"{held} pixels; 8 or 16 bits are read")
    pixels = np.asarray(image if shown is None else image.convert(shown))
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if key is None or isinstance(key, bytes):
        return pixels
    bits = int(raw[2:]) if raw in ("L;2", "L;4") else 8  # pixels are scaled, key is not
    return _with_key(pixels, np.asarray(key) * (255 // (2**bits - 1)))


def _decode_16(image, reopen, raw, notes):
    """Returns (h, w, 1..4) uint16.

    Pillow has no 16-bit colour and unpacks the high byte of each value. Told the other
    byte order, it unpacks the low one: two passes give all bits. tifffile would not
    replace this: PNG needs it too, and tifffile reads LZW only by imagecodecs (27 MB).
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
    if raw == "LA;16B":  # a pixel is as wide as one of 8-bit RGBA: decode as that
        pixels = _load(image, "RGBA")
        return pixels.view(">u2").astype(np.uint16)
    straight = raw.replace("a;", "A;")  # division by alpha follows, at full precision
    little = straight[-1] == "L" or (straight[-1] == "N" and sys.byteorder == "little")
    high = _load(image, straight).astype(np.uint16)
    low = _load(reopen(), straight[:-1] + "LB"[little])
    pixels = (high << 8) | low
    if straight != raw:
        alpha = pixels[..., 3:].astype(np.float32)
        colour = np.minimum(pixels[..., :3] / np.maximum(alpha, 1) * 65535, 65535)
        pixels[..., :3] = np.rint(colour).astype(np.uint16)
    return pixels


def _raw_mode(image):
    """Returns Pillow's name for how the file stores its pixels, such as "RGB;16B"."""
    if not image.tile:
        return ""
    args = image.tile[0].args
    return args if isinstance(args, str) else str(args[0])


def _load(image, raw):
    """Loads an image, its pixels unpacked as `raw`, and returns them."""
    image.tile = [
        t._replace(args=raw if isinstance(t.args, str) else (raw, *t.args[1:]))
        for t in image.tile
    ]
    image.load()
    return np.asarray(image)


def _with_key(pixels, key):
    """Adds the alpha channel of a PNG in which the colour `key` is transparent."""
    top = np.iinfo(pixels.dtype).max
    alpha = np.where(np.all(pixels == key, axis=-1, keepdims=True), 0, top)
    return np.concatenate([pixels, alpha.astype(pixels.dtype)], axis=-1)


def _cmyk_to_srgb(image, notes):
    """Converts by the image's own ICC profile, or roughly where it has none."""
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
