"""The quality that a JPEG was saved with, from its quantisation tables."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

# Annex K of the JPEG standard, row by row, of luminance and of the colours.
_STANDARD = np.array([
    [
        16, 11, 10, 16, 24, 40, 51, 61,
        12, 12, 14, 19, 26, 58, 60, 55,
        14, 13, 16, 24, 40, 57, 69, 56,
        14, 17, 22, 29, 51, 87, 80, 62,
        18, 22, 37, 56, 68, 109, 103, 77,
        24, 35, 55, 64, 81, 104, 113, 92,
        49, 64, 78, 87, 103, 121, 120, 101,
        72, 92, 95, 98, 112, 100, 103, 99,
    ],
    [
        17, 18, 24, 47, 99, 99, 99, 99,
        18, 21, 26, 66, 99, 99, 99, 99,
        24, 26, 56, 99, 99, 99, 99, 99,
        47, 66, 99, 99, 99, 99, 99, 99,
        *[99] * 32,
    ],
])  # fmt: skip
_QUALITIES = np.arange(1, 101)[:, None, None]
_PERCENT = np.where(_QUALITIES < 50, 5000 // _QUALITIES, 200 - 2 * _QUALITIES)
# (100, 2, 64) int32: these tables as libjpeg, and so most programs, scales them at each
# quality from 1 to 100.
JPEG_TABLES = ((_STANDARD * _PERCENT + 50) // 100).clip(1, 255).astype(np.int32)

WEIGHTS = 1 / (1 + np.add.outer(np.arange(8), np.arange(8))).ravel()  # by frequency


@dataclasses.dataclass(frozen=True)
class JpegQuality:
    """How strongly a JPEG was compressed."""

    value: int
    """1 to 100, as libjpeg counts; of tables of another kind that of the nearest."""

    standard: bool
    """True if the tables are the standard ones, scaled as libjpeg scales them."""

    def __str__(self) -> str:
        more = "" if self.standard else " (tables of its own: the nearest)"
        return f"JPEG of quality {self.value}{more}"


def quality_of(tables: Mapping[int, Sequence[int]]) -> JpegQuality | None:
    """Returns the quality that quantisation tables stand for; None without any.

    Of tables that are not the standard ones it is the quality at which these are as
    coarse in the mean, low frequencies counting more. For the nine presets of Photoshop
    that is within 3 of the quality with the same error, but for one, the coarsest (12).

    Args:
      tables: by their number, 64 values row by row, as Pillow gives them: that of
        luminance first, then that of the colours, if there is one.
    """
    found = [np.asarray(tables[number]) for number in sorted(tables)][:2]
    if not found or any(table.shape != (64,) for table in found):
        return None
    scaled = JPEG_TABLES[:, : len(found)]
    same = (scaled == found).all(axis=(1, 2))
    if same.any():
        return JpegQuality(int(same.argmax()) + 1, standard=True)
    ratios = np.log(np.maximum(found, 1)) - np.log(scaled)
    away = np.abs((ratios * WEIGHTS).sum(axis=(1, 2)))
    return JpegQuality(int(away.argmin()) + 1, standard=False)
