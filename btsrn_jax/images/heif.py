"""HEIC and AVIF: read where Pillow, or its plug-in pillow-heif, can decode them."""

import importlib.util
import struct
from collections.abc import Callable
from typing import BinaryIO

from PIL import Image, features

from btsrn_jax.images.parts import Parts

# The brands in the first box of a file. Files of one picture and of several differ.
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF"}
_BRANDS |= dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), "HEIC")
_BRANDS |= dict.fromkeys((b"mif1", b"msf1"), "HEIC")  # unless AVIF is named, too
_SUFFIXES = {".avif": "AVIF", ".heic": "HEIC", ".heif": "HEIC"}


KINDS = ("AVIF", "HEIC")


def find_plugin(file: BinaryIO, notes: list[str]) -> tuple[str, Callable] | None:
    """Returns the format of a HEIC or AVIF file and Pillow's plug-in for it; None for
    another file.

    Args:
      file: opened; it is read from its start.
      notes: takes a phrase where the file has more than 8 bits: 8 are decoded.

    Raises:
      ValueError: nothing that is installed can decode it. It says what to do.
    """
    file.seek(0)
    head = file.read(4096)
    if head[4:8] != b"ftyp" or head[8:12] not in _BRANDS:
        return None
    kind = "AVIF" if b"avif" in head[8:64] else _BRANDS[head[8:12]]
    if not _can_read(kind):
        install = "pip install 'btsrn-jax[heif]' to read it, or " * (kind == "HEIC")
        raise ValueError(
            f"it is {kind}: {install}convert it to PNG first, as by `magick IN out.png`"
        )
    at = head.find(b"pixi") + 9  # the bits of each channel
    if at > 8 and head[at : at + 1] > b"\x08":
        notes.append(f"{head[at]}-bit reduced to 8-bit")
    if kind == "AVIF":
        from PIL.AvifImagePlugin import AvifImageFile

        return kind, AvifImageFile
    from pillow_heif import HeifImageFile

    return kind, HeifImageFile


def describe(image: Image.Image, found: Parts) -> None:
    """Adds what the plug-in has read beside the pixels to the parts of the file."""
    found.icc = image.info.get("icc_profile") or None
    found.exif = image.info.get("exif") or None
    found.xmp = image.info.get("xmp") or None
    found.frames = getattr(image, "n_frames", 1)
    found.file.seek(0)
    head = found.file.read(4096)
    at = head.find(b"colrnclx") + 8
    if at > 7 and not found.icc and len(head) > at + 6:
        # Code points as in PNG's cICP; 2 is for unknown, which is taken as sRGB.
        primaries, curve = struct.unpack_from(">2H", head, at)
        primaries, curve = primaries % 256, curve % 256
        codes = 1 if primaries == 2 else primaries, 13 if curve == 2 else curve
        if codes != (1, 13):
            found.colour[b"cICP"] = bytes([*codes, 0, 1])


def _can_read(kind):
    if kind == "AVIF":
        return features.check("avif")
    return importlib.util.find_spec("pillow_heif") is not None


def readable_suffixes() -> list[str]:
    """Returns the suffixes of those of these formats that can be read here."""
    return [suffix for suffix, kind in _SUFFIXES.items() if _can_read(kind)]
