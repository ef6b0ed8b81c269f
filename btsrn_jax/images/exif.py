"""EXIF: which way is up, and which tags an image made from a photograph keeps."""

import struct
from typing import BinaryIO

from PIL import Image

ORIENTATION, EXIF_IFD, GPS_IFD, INTEROP_IFD = 0x0112, 0x8769, 0x8825, 0xA005
WIDTH, HEIGHT = 0xA002, 0xA003
# The tags of the main directory that describe the photograph. The others would be
# wrong in another file: a TIFF keeps the layout of its pixels in the same directory,
# and a JPEG points to a thumbnail there.
_DESCRIPTIVE = {0x010E, 0x010F, 0x0110, ORIENTATION, 0x011A, 0x011B, 0x0128, 0x0131}
_DESCRIPTIVE |= {0x0132, 0x013B, 0x013C, 0x4746, 0x4749, 0x8298, EXIF_IFD, GPS_IFD}
_DESCRIPTIVE |= set(range(0x9C9B, 0x9CA0))

# EXIF orientation -> (flip left-right first, then quarter turns anticlockwise).
UPRIGHT = {2: (1, 0), 3: (0, 2), 4: (1, 2), 5: (1, 1), 6: (0, 3), 7: (1, 3), 8: (0, 1)}


def orientation(file: BinaryIO, image: Image.Image) -> int:
    """Returns the EXIF orientation, 1..8, of a Pillow image opened from `file`.

    Without EXIF, and where it is damaged, that is 1: no reason to refuse a photograph.
    """
    try:
        if image.format == "PNG" and "exif" not in image.info:
            # Some tools write the EXIF chunk after the pixels, and Pillow's `getexif`
            # would decode all of them to find it.
            late = _late_png_exif(file)
            if late:
                image.info["exif"] = late
        # The base class's: the PNG plug-in's own `getexif` decodes the pixels.
        value = Image.Image.getexif(image).get(ORIENTATION, 1)
    except Exception:  # Pillow raises many types for damaged EXIF
        return 1
    return value if value in UPRIGHT else 1


def _late_png_exif(file):
    """Returns the payload of a PNG's eXIf chunk, wherever that lies; None without."""
    here, at, found = file.tell(), 8, None
    while found is None:
        file.seek(at)
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            break
        (length,) = struct.unpack(">I", head[:4])
        if head[4:] == b"eXIf" and length < 2**24:
            found = file.read(length)
        at += 12 + length
    file.seek(here)
    return found


def descriptive(image: Image.Image, notes: list[str]) -> bytes | None:
    """Returns an EXIF block of an image's descriptive tags, its orientation set to 1.

    Returns None where the image has none. If they are damaged, `notes` says so.
    """
    try:
        # A new block: changing the image's own would change how Pillow turns a TIFF.
        old, new = Image.Image.getexif(image), Image.Exif()
        for tag in _DESCRIPTIVE & set(old):
            new[tag] = old[tag]
            if tag in (EXIF_IFD, GPS_IFD):
                new[tag] = dict(old.get_ifd(tag))
                new[tag].pop(INTEROP_IFD, None)  # an offset into the old block
        if ORIENTATION in new:
            new[ORIENTATION] = 1
        block = new.tobytes() if len(new) else None
        with_size(block, 1, 1)  # what could fail on writing fails here
        return block
    except Exception:  # as above
        notes.append("EXIF damaged: not kept")
        return None


def with_size(block: bytes | None, h: int, w: int) -> bytes | None:
    """Returns the EXIF block with its size set to (w, h) and its orientation to 1.

    Tags that the block lacks are not added. None stays None.
    """
    if not block:
        return None
    exif = Image.Exif()
    exif.load(block)
    ifd = exif.get_ifd(EXIF_IFD)
    for tag, value in ((WIDTH, w), (HEIGHT, h)):
        if tag in ifd:
            ifd[tag] = value
    if ORIENTATION in exif:
        exif[ORIENTATION] = 1
    return exif.tobytes()
