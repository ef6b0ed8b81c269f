"""Pictures of a validation: fixed crops, as bicubic, the network and HR have them.

pictures/NAME-STEP.png in the run directory, a crop each: bicubic on the left, the
network's in the middle, the original on the right. All are small, and of a long run
KEPT steps are kept, spread over it.
"""

import hashlib
import io
from typing import Any

import numpy as np
from PIL import Image

from btsrn_jax import evaluation, images, inference, storage

FOLDER = "pictures"
MOST = 3  # crops of a validation
SIDE = 64  # of a crop, in HR pixels
GAP = 2
SHAPE = (SIDE, 3 * SIDE + 2 * GAP, 3)
KEPT = 100
LONGEST = 40  # letters of up to four bytes: a file name has 255


def choose(sets: list[str]) -> list[int]:
    """Returns which images are shown, at most MOST: the first ones of each set, every
    set in its turn.

    Args:
      sets: the name of each image's set, set by set.
    """
    rank, counts = [], {}
    for name in sets:
        rank.append(counts.get(name, 0))
        counts[name] = rank[-1] + 1
    return sorted(range(len(sets)), key=lambda i: (rank[i], i))[:MOST]


def draw(image: evaluation.Input, sr: np.ndarray, scale: int) -> np.ndarray:
    """Returns the busiest square of an image three times side by side, SHAPE uint8; of
    an image smaller than that, what there is.

    Args:
      image: the LR and HR images.
      sr: (H, W, 3) uint8, the network's answer.
      scale: of the network.
    """
    hr = images.as_rgb(image.hr)
    h, w = (min(SIDE, length) for length in hr.shape[:2])
    side = min(h, w)
    top, left = images.busiest_square(hr, side)
    top, left = min(top, hr.shape[0] - h), min(left, hr.shape[1] - w)
    bicubic = inference.bicubic_model(scale).upscale(image.lr)
    sheet = np.full(SHAPE, 255, np.uint8)
    for i, picture in enumerate((bicubic, sr, hr)):
        x = i * (SIDE + GAP)
        sheet[:h, x : x + w] = picture[top : top + h, left : left + w]
    return sheet


def write(home: Any, step: int, name: str, picture: np.ndarray) -> None:
    """Writes a picture, and removes those that are too many.

    Args:
      home: the run directory.
      step: of the validation.
      name: of the image, SET/IMAGE; of a long one the end is kept.
      picture: (h, w, 3) uint8.

    Raises:
      OSError: it cannot be written.
    """
    stem = name.encode(errors="replace").decode().replace("/", "_")
    if len(stem) > LONGEST:
        stem = hashlib.sha256(stem.encode()).hexdigest()[:8] + stem[-LONGEST:]
    png = io.BytesIO()
    Image.fromarray(picture).save(png, "png", optimize=True)
    folder = home / FOLDER
    storage.write(folder / f"{stem}-{step}.png", png.getvalue())
    steps = [_step(path.name, stem) for path in folder.iterdir()]
    kept = sorted(step for step in steps if step is not None)
    while len(kept) > KEPT:
        least = min(range(1, len(kept) - 1), key=lambda i: kept[i + 1] - kept[i - 1])
        (folder / f"{stem}-{kept.pop(least)}.png").unlink(missing_ok=True)


def _step(file, stem):
    """Returns the step of a picture of that image; None for any other file."""
    number = file.removeprefix(f"{stem}-").removesuffix(".png")
    ours = number.isdecimal() and file == f"{stem}-{number}.png"
    return int(number) if ours else None
