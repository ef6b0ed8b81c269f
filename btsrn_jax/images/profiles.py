"""ICC profiles made from what else tells the meaning of a picture's colours.

A PNG has chunks for it, a BMP fields of its header, a TIFF tags, and a photograph EXIF.
Other formats cannot hold these, but all of them (not BMP) hold an ICC profile.
"""

import struct

import numpy as np
from PIL import Image

from btsrn_jax.images.exif import EXIF_IFD, INTEROP_IFD

D65 = (0.3127, 0.3290)
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
ADOBE = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
_2020 = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
_PAL = ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06))
_NTSC = ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070))
# Code points of ITU-T H.273, as in PNG's cICP chunk: (white, primaries) and curves.
_PRIMARIES = {1: (D65, SRGB), 5: (D65, _PAL), 6: (D65, _NTSC), 7: (D65, _NTSC)}
_PRIMARIES |= {9: (D65, _2020), 11: ((0.314, 0.351), _P3), 12: (D65, _P3)}

# A curve, from what is stored to light, is a gamma, the parameters (g, a, b, c, d) of
# ICC's third parametric curve, or a table of values in [0, 1].
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_VIDEO = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
_CURVES = {4: 2.2, 5: 2.8, 8: 1.0, 13: SRGB_CURVE, 1: _VIDEO, 6: _VIDEO, 14: _VIDEO}
_CURVES |= {15: _VIDEO}

_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def make(white, primaries, curves, name: str) -> bytes:
    """Returns an ICC profile (version 4.2) of light mixed from three primaries.

    Args:
      white: (x, y) chromaticity.
      primaries: (x, y) of red, green and blue; None for a profile of grey.
      curves: one for each channel.
      name: shown to users of the profile.

    Raises:
      ValueError: no colours are mixed from these.
    """
    paper = _xyz(white)
    adapt = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ paper))
    adapt = np.linalg.inv(_BRADFORD) @ adapt @ _BRADFORD
    tags = {b"desc": _text(name), b"cprt": _text("No copyright, use freely")}
    tags |= {b"wtpt": _xyz_tag(_D50), b"chad": b"sf32" + bytes(4) + _fixed(adapt)}
    if primaries is None:
        tags[b"kTRC"] = _curve(curves[0])
    else:
        columns = np.stack([_xyz(xy) for xy in primaries], axis=1)
        if abs(np.linalg.det(columns)) < 1e-6:
            raise ValueError("the primaries lie on one line")
        matrix = adapt @ (columns * np.linalg.solve(columns, paper))
        for k, letter in enumerate(b"rgb"):
            tags[bytes([letter]) + b"XYZ"] = _xyz_tag(matrix[:, k])
            tags[bytes([letter]) + b"TRC"] = _curve(curves[k])
    at, table, body = 132 + 12 * len(tags), b"", b""
    for tag, data in tags.items():
        data += bytes(-len(data) % 4)
        table += struct.pack(">4s2I", tag, at + len(body), len(data))
        body += data
    space = b"GRAY" if primaries is None else b"RGB "
    head = struct.pack(
        ">I4sI4s4s4s", at + len(body), b"", 0x4200000, b"mntr", space, b"XYZ "
    )
    head += (
        struct.pack(">6H4s", 2000, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + _fixed(_D50)
    )
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _xyz(xy):
    x, y = xy
    if not 1e-4 < y <= 1 or not 0 <= x <= 1:
        raise ValueError("no chromaticity")
    return np.array([x / y, 1, (1 - x - y) / y])


def _fixed(values):
    """Packs signed numbers of 16.16 bits."""
    return np.rint(np.asarray(values) * 65536).astype(">i4").tobytes()


def _xyz_tag(xyz):
    return b"XYZ " + bytes(4) + _fixed(xyz)


def _text(text):
    data = text.encode("utf-16-be")
    return (
        b"mluc" + struct.pack(">3I2s2s2I", 0, 1, 12, b"en", b"US", len(data), 28) + data
    )


def _curve(curve):
    if isinstance(curve, np.ndarray):
        values = np.rint(curve * 65535).astype(">u2")
        return b"curv" + struct.pack(">2I", 0, len(values)) + values.tobytes()
    if isinstance(curve, tuple):
        return b"para" + struct.pack(">I2H", 0, 3, 0) + _fixed(curve)
    if not 0.1 <= curve <= 10:
        raise ValueError("no gamma")
    return b"para" + struct.pack(">I2H", 0, 0, 0) + _fixed([curve])


def of_png(chunks: dict[bytes, bytes], grey: bool) -> tuple[bytes | None, str] | None:
    """Returns (profile, the chunks' names) of a PNG without an ICC profile.

    The order of precedence is the specification's: cICP, sRGB, gAMA and cHRM. For what
    no profile of this kind can say (HDR) the profile is None; for sRGB the name is
    empty, too. Returns None if there is no such chunk.

    Raises:
      ValueError: the values are impossible.
    """
    if b"cICP" in chunks:
        primaries, curve, matrix, full = chunks[b"cICP"]
        known = primaries in _PRIMARIES and curve in _CURVES and not matrix and full
        if not known or (primaries, curve) == (1, 13):
            return None, "" if known else "cICP"
        white, primaries = _PRIMARIES[primaries]
        curve = _CURVES[curve]
        return make(white, None if grey else primaries, [curve] * 3, "cICP"), "cICP"
    if b"sRGB" in chunks:
        return None, ""
    white, primaries, curve, names = D65, SRGB, SRGB_CURVE, []
    if b"gAMA" in chunks:
        (gamma,) = struct.unpack(">I", chunks[b"gAMA"])
        curve = 100000 / max(gamma, 1)
        names.append("gAMA")
    if b"cHRM" in chunks and not grey:
        values = np.array(struct.unpack(">8I", chunks[b"cHRM"])) / 100000
        white, *primaries = values.reshape(4, 2).tolist()
        names.append("cHRM")
    if not names:
        return None
    near = np.allclose([white, *primaries], [D65, *SRGB], atol=0.001)
    name = " and ".join(names)
    # These values, both of them, are what the specification has for sRGB itself.
    if near and "cHRM" in names and (curve == SRGB_CURVE or 2.15 < curve < 2.25):
        return None, ""
    return make(white, None if grey else primaries, [curve] * 3, name), name


def of_bmp(head: bytes, grey: bool) -> tuple[bytes | None, str] | None:
    """Returns (profile, "BMP header") for a BMP whose header has primaries and gammas.

    Returns None for any other header of version 4 or 5, and where these fields are 0.

    Raises:
      ValueError: as `make`.
    """
    ends = np.array(struct.unpack_from("<9i", head, 74)).reshape(3, 3) / 2**30
    gammas = np.array(struct.unpack_from("<3I", head, 110)) / 65536
    if head[70:74] != bytes(4) or not (ends.any() or gammas.any()):
        return None
    white, primaries = D65, SRGB
    if ends.any():
        primaries = [row[:2] / row.sum() for row in ends if row.sum() > 0]
        if len(primaries) < 3:
            raise ValueError("no colours")
        whole = ends.sum(axis=0)
        # Some writers have XYZ here, others chromaticities, which say no white.
        if not np.allclose(ends.sum(axis=1), 1, atol=0.01):
            white = whole[:2] / whole.sum()
    curves = [float(gamma) or SRGB_CURVE for gamma in gammas]
    name = "BMP header"
    return make(white, None if grey else primaries, curves, name), name


def of_tags(
    tags: dict[int, tuple[float, ...]], grey: bool, name: str
) -> tuple[bytes | None, str] | None:
    """Returns (profile, name) for the tags of TIFF: 301, 318 and 319.

    Transfer function, white point and primaries; returns None without the first and
    the last.

    Raises:
      ValueError: as `make`.
    """
    if not (301 in tags or 319 in tags):
        return None
    primaries = np.reshape(tags.get(319, SRGB), (3, 2))
    # TIFF 6.0 has 2.2 as the default.
    curves = [2.2] * 3
    if 301 in tags:
        table = np.array(tags[301]) / 65535
        count = 1 << (len(table).bit_length() - 1)  # 2^bits, or three times that
        tables = table.reshape(-1, count if len(table) == count else len(table) // 3)
        curves = [tables[k % len(tables)] for k in range(3)]
    white = tags.get(318, D65)
    return make(white, None if grey else primaries, curves, name), name


def of_exif(exif: Image.Exif, grey: bool) -> tuple[bytes | None, str] | None:
    """Returns (profile, "EXIF") if EXIF says that the colours are not sRGB's.

    Cameras say Adobe RGB by a colour space of 2, or by 65535 ("uncalibrated") and the
    mark R03 for interoperability. Returns None if EXIF says nothing, or sRGB.

    Raises:
      ValueError: as `make`. Pillow raises many types for damaged EXIF.
    """
    ifd = exif.get_ifd(EXIF_IFD)
    space = ifd.get(0xA001)
    index = exif.get_ifd(INTEROP_IFD).get(1, "") if INTEROP_IFD in ifd else ""
    if space == 2 or (space != 1 and str(index).startswith("R03")):
        curves = [563 / 256] * 3
        return make(D65, None if grey else ADOBE, curves, "Adobe RGB (1998)"), "EXIF"
    if space != 1 and 319 in exif:
        tags = {t: [float(v) for v in exif[t]] for t in (318, 319) if t in exif}
        return of_tags(tags, grey, "EXIF")
    return None
