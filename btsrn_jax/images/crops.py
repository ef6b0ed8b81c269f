"""Crops of images side by side: they show what figures cannot."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from btsrn_jax.images.files import as_rgb


def busiest_square(hr: np.ndarray, side: int) -> tuple[int, int]:
    """Returns (top, left) of the square with the strongest gradients.

    Args:
      hr: (h, w) or (h, w, 3), any real dtype.
      side: of the square, in pixels; at most min(h, w).
    """
    return busiest_squares(hr, side, 1)[0]


def busiest_squares(hr: np.ndarray, side: int, count: int) -> list[tuple[int, int]]:
    """Returns (top, left) of up to `count` squares, the one with the strongest
    gradients first. Two overlap by half at most, so a small image has fewer.

    Args:
      hr: (h, w) or (h, w, 3), any real dtype.
      side: of the squares, in pixels; at most min(h, w).
      count: at least 1.
    """
    grey = as_rgb(hr).mean(axis=2)
    gy, gx = np.gradient(grey)
    total = np.hypot(gy, gx).cumsum(0).cumsum(1)
    total = np.pad(total, ((1, 0), (1, 0)))
    sums = total[side:, side:] - total[:-side, side:] - total[side:, :-side]
    sums += total[:-side, :-side]
    found = []
    while len(found) < count and sums.max() > -np.inf:
        top, left = map(int, np.unravel_index(np.argmax(sums), sums.shape))
        found.append((top, left))
        apart = (side + 1) // 2
        above, before = max(top - apart + 1, 0), max(left - apart + 1, 0)
        sums[above : top + apart, before : left + apart] = -np.inf
    return found


def side_by_side(
    rows: list[list[tuple[str, np.ndarray]]], enlarge: int = 3
) -> np.ndarray:
    """Draws labelled crops beside each other, one row per image.

    Args:
      rows: (label, crop) pairs for each row; every crop is (n, n) or (n, n, 3) uint8,
        of the same n.
      enlarge: each pixel becomes a square of this side, so that pixels can be seen.

    Returns:
      (h, w, 3) uint8.
    """
    font = ImageFont.load_default(16)
    side, gap, caption = enlarge * rows[0][0][1].shape[0], 8, 26
    width = max(len(row) for row in rows) * (side + gap) + gap
    sheet = Image.new("RGB", (width, len(rows) * (side + caption + gap)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, row in enumerate(rows):
        for j, (label, crop) in enumerate(row):
            x, y = gap + j * (side + gap), i * (side + caption + gap)
            draw.text((x, y + 4), label, fill="black", font=font)
            crop = np.repeat(np.repeat(as_rgb(crop), enlarge, 0), enlarge, 1)
            sheet.paste(Image.fromarray(crop), (x, y + caption))
    return np.asarray(sheet)
