"""EXIF: which way is up, and which tags an image made from a photograph keeps."""

import contextlib
import math

from PIL import Image

MAGIC = (b"II*\0", b"MM\0*")  # it is a TIFF without pixels
ORIENTATION, EXIF_IFD, GPS_IFD, INTEROP_IFD = 0x0112, 0x8769, 0x8825, 0xA005
WIDTH, HEIGHT = 0xA002, 0xA003
# The tags of the main directory that describe the photograph. The others would be
# wrong in another file: a TIFF keeps the layout of its pixels in the same directory,
# and a JPEG points to a thumbnail there.
_DESCRIPTIVE = {0x010E, 0x010F, 0x0110, ORIENTATION, 0x011A, 0x011B, 0x0128, 0x0131}
_DESCRIPTIVE |= {0x0132, 0x013B, 0x013C, 0x4746, 0x4749, 0x8298, EXIF_IFD, GPS_IFD}
_DESCRIPTIVE |= set(range(0x9C9B, 0x9CA0))
_RESOLUTION = {0x011A, 0x011B, 0x0128}

# EXIF orientation -> (flip left-right first, then quarter turns anticlockwise).
UPRIGHT = {2: (1, 0), 3: (0, 2), 4: (1, 2), 5: (1, 1), 6: (0, 3), 7: (1, 3), 8: (0, 1)}


def load(block: bytes | None) -> Image.Exif:
    """Returns what an EXIF block says; nothing where there is none, or it is damaged.

    Damage deeper in the block shows when a tag is read: Pillow raises many types then.
    """
    exif = Image.Exif()
    with contextlib.suppress(Exception):
        exif.load(block or b"")
    return exif


def orientation(exif: Image.Exif) -> int | None:
    """Returns the orientation, 1..8; None if EXIF does not tell it.

    Where it is damaged, that is no reason to refuse a photograph.
    """
    try:
        value = exif.get(ORIENTATION)
    except Exception:  # as above
        return None
    return value if value in range(1, 9) else None


def dots_per_inch(exif: Image.Exif) -> tuple[float, float] | None:
    """Returns the resolution, across and down; None if EXIF does not tell it."""
    try:
        unit = {2: 1, 3: 2.54}[exif.get(0x0128, 2)]
        x, y = (float(exif[tag]) * unit for tag in (0x011A, 0x011B))
    except Exception:  # as above
        return None
    return (x, y) if 0 < x < math.inf and 0 < y < math.inf else None


def descriptive(exif: Image.Exif, notes: list[str]) -> bytes | None:
    """Returns an EXIF block of the descriptive tags, its orientation set to 1.

    Returns None where there are none but the resolution, which `dots_per_inch` tells.
    If they are damaged, `notes` says so.
    """
    try:
        new = Image.Exif()
        for tag in _DESCRIPTIVE & set(exif):
            new[tag] = exif[tag]
            if tag in (EXIF_IFD, GPS_IFD):
                new[tag] = dict(exif.get_ifd(tag))
                new[tag].pop(INTEROP_IFD, None)  # an offset into the old block
        if ORIENTATION in new:
            new[ORIENTATION] = 1
        block = new.tobytes() if set(new) - _RESOLUTION else None
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
    exif = load(block)
    ifd = exif.get_ifd(EXIF_IFD)
    for tag, value in ((WIDTH, w), (HEIGHT, h)):
        if tag in ifd:
            ifd[tag] = value
    if ORIENTATION in exif:
        exif[ORIENTATION] = 1
    return exif.tobytes()


def with_resolution(block: bytes | None, dpi: tuple[float, float]) -> bytes:
    """Returns the EXIF block with its resolution set, in dots per inch."""
    exif = load(block)
    for tag, value in ((0x011A, dpi[0]), (0x011B, dpi[1]), (0x0128, 2)):
        exif[tag] = value
    return exif.tobytes()
