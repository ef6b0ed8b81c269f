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
    image: Image.Image,
    reopen: Callable[[], Image.Image],
    transparency: bytes | None,
    notes: list[str],
) -> np.ndarray:
    """Returns an image's pixels with all their bits.

    Args:
      image: of a Pillow plug-in, not loaded yet.
      reopen: opens the same image once more.
      transparency: a PNG's tRNS chunk, if it has one.
      notes: takes a phrase for each thing that had to be converted.

    Returns:
      (h, w, 1..4) uint8 or uint16: grey or RGB, with or without alpha, as they lie in
      the file: no orientation is applied.

    Raises:
      ValueError: the pixels are of a kind that is not read. Pillow raises many other
        types for damaged files.
    """
    kind, raw = image.format, _raw_mode(image)
    if kind in ("PNG", "TIFF") and not raw:
        raise ValueError("it holds no pixels")
    if getattr(image, "grey_alpha_16", False):
        return _straight(_grey_alpha_16(image), image)
    if kind in ("PNG", "TIFF") and ("16" in raw or "12" in raw):
        if image.mode != "CMYK" and image.mode != "I":
            pixels = _decode_16(image, reopen, raw, notes)
            return _with_key(pixels, transparency, 16, notes)
        notes.append("16-bit CMYK reduced to 8 bits")
    image.load()
    mode, shown = image.mode, None
    if mode in ("P", "PA"):
        shown = "RGBA" if mode == "PA" else "RGB"
        alpha = "A" if transparency else ""
        notes.append(f"palette expanded to {shown}{alpha}")
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
        held = {
            "F": "floating point",
            "I": "32-bit or signed integer",
            "LAB": "CIE Lab",
        }
        what = f"it has {held.get(mode, mode)} pixels"
        can = "grey and RGB of 8 or 16 bits are read"
        raise ValueError(f"{what}; {can}: convert it first")
    pixels = np.asarray(image if shown is None else image.convert(shown))
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if mode == "P" and transparency:
        table = np.full(256, 255, np.uint8)
        table[: len(transparency)] = list(transparency[:256])
        return np.concatenate([pixels, table[np.asarray(image)][..., None]], axis=2)
    bits = {"1": 1, "L;2": 2, "L;4": 4}.get(raw, 8)
    return _with_key(_straight(pixels, image), transparency, bits, notes)


def _straight(pixels, image):
    """Undoes what Pillow does not know of in a TIFF of grey with alpha."""
    premultiplied = getattr(image, "premultiplied", False)
    white_is_zero = getattr(image, "white_is_zero", False)
    if not premultiplied and not white_is_zero:
        return pixels
    top = np.iinfo(pixels.dtype).max
    grey, alpha = pixels[..., :1], pixels[..., 1:]
    if premultiplied:
        grey = np.minimum(grey / np.maximum(alpha, np.float32(1)) * top, top)
        grey = np.rint(grey).astype(pixels.dtype)
    if white_is_zero:
        grey = top - grey
    return np.concatenate([grey, alpha], axis=2)


def _grey_alpha_16(image):
    """Returns (h, w, 2) uint16 of a TIFF that was opened as 8-bit RGBA."""
    # libtiff gives values in the machine's order, an uncompressed file has its own.
    order = "=" if image.use_load_libtiff else "<>"[image.tag_v2.prefix == b"MM"]
    image.load()
    return np.ascontiguousarray(image).view(f"{order}u2").astype(np.uint16)


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


def _with_key(pixels, transparency, bits, notes):
    """Adds the alpha channel of a PNG in which one colour is transparent.

    Args:
      transparency: its tRNS chunk, or None: 2 bytes for each channel.
      bits: of a channel in the file; `pixels` are scaled to their dtype's range.
    """
    channels = pixels.shape[2]
    if transparency is None or channels not in (1, 3):
        return pixels
    if len(transparency) < 2 * channels:
        notes.append("tRNS damaged: not kept")
        return pixels
    top = np.iinfo(pixels.dtype).max
    key = np.frombuffer(transparency, ">u2", channels) & (2**bits - 1)
    key = key * (top // (2**bits - 1))
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
