"""A pair of an LR and an HR image: how it is read, and what may be wrong with it."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from btsrn_jax import images
from btsrn_jax.data import folders
from btsrn_jax.errors import InputError
from btsrn_jax.resize import imresize


class Pair(NamedTuple):
    """One image of a set, not read yet."""

    name: str
    """Unique in its set."""

    load: Callable[..., tuple[np.ndarray | None, np.ndarray]]
    """Reads (lr, hr), each uint8 (h, w, 3), or (h, w) if the file is grey. lr is None
    where it is to be made from hr. With `files`, it takes an optional list, to which it
    adds a phrase for each thing that was done on reading."""

    files: folders.Files | None = None
    """Where the image lies; None for records of DIV2K, which are no files."""

    prepared: str = ""
    """div2k/CONFIG of a record of DIV2K."""


def file_pair(path: pathlib.Path) -> Pair:
    """Returns the pair of an HR file alone; LR is to be made from it."""
    return files_pair(folders.Files(path.stem, path, None))


def files_pair(files: folders.Files) -> Pair:
    """Returns the pair of an HR file and, where there is one, its LR file."""

    def load(notes=None):
        lr = None if files.lr is None else images.read_image(files.lr, notes)
        return lr, images.read_image(files.hr, notes)

    return Pair(files.name, load, files)


def smaller_copy(pair: Pair, share: float, patch: int) -> Pair:
    """Returns the pair of a smaller copy of an image, made by `imresize`.

    Args:
      pair: of the image; its LR counts for nothing.
      share: the copy's sides, as a share of the image's.
      patch: pixels that a side of the copy has at least, if the image has them.
    """

    def load(*notes):
        _, hr = pair.load(*notes)
        fits = patch / min(hr.shape[:2])
        return None, imresize(hr, min(1.0, max(share, fits)))

    return Pair(f"{pair.name}, {share:g} of its sides", load, pair.files)


def name_image(error: InputError, pair: Pair) -> str:
    """Returns the error's text, the image's file or name in front if it lacks it."""
    text = str(error)
    if pair.files is None:
        return f"{pair.name}: {text}"
    known = any(path and str(path) in text for path in pair.files[1:])
    return text if known else f"{pair.files.hr}: {text}"


def check_pair(lr: np.ndarray, hr: np.ndarray, scale: int) -> np.ndarray:
    """Returns HR cut to `scale` times LR at the right and the bottom.

    Args:
      lr: (h, w, 3) or (h, w).
      hr: of at least `scale` times that size, and less than `scale` pixels more.
      scale: the factor.

    Raises:
      InputError: the two sizes do not fit.
    """
    (h, w), (full_h, full_w) = lr.shape[:2], hr.shape[:2]
    if not (0 <= full_h - scale * h < scale and 0 <= full_w - scale * w < scale):
        raise InputError(
            f"LR of {w}x{h} and HR of {full_w}x{full_h} do not fit at x{scale}:"
            f" LR of {full_w // scale}x{full_h // scale} was expected"
        )
    return hr[: scale * h, : scale * w]
