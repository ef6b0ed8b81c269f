"""Image files as arrays: find, read, write; and the eight flips and rotations."""

import os
import pathlib

import numpy as np

from btsrn_jax.errors import InputError
from btsrn_jax.images.decode import SUFFIXES, Picture, read_picture
from btsrn_jax.images.encode import to_8_bits, write_picture


def find_images(
    folder: pathlib.Path, unreadable: list | None = None
) -> list[pathlib.Path]:
    """All image files under a folder, nested ones included, sorted by path.

    Raises InputError where there are none, and for a folder that may not be read;
    the latter are appended as InputErrors to `unreadable` instead, if that is given.
    """
    folder = pathlib.Path(folder)
    if not os.path.isdir(folder):  # pathlib's would raise without permission
        raise InputError(f"no folder {folder}")
    failed = []
    files = sorted(
        pathlib.Path(parent, name)
        for parent, _, names in os.walk(folder, onerror=failed.append)
        for name in names
        if pathlib.Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
    )
    errors = [
        InputError(f"cannot read folder {e.filename}: {e.strerror}") for e in failed
    ]
    if unreadable is not None:
        unreadable.extend(errors)
    elif errors:
        raise errors[0]
    if not files and not errors:
        raise InputError(f"no images in {folder} (looked for {' '.join(SUFFIXES)})")
    return files


def read_image(path: pathlib.Path, notes: list | None = None) -> np.ndarray:
    """Reads (h, w, 3) uint8, or (h, w) uint8 for a grey file: as metrics want it.

    16 bits are reduced to 8 by rounding v / 257, alpha is dropped, and these, with
    all that `read_picture` did, are appended to `notes`.

    Raises InputError for a file that is missing, truncated or no image.
    """
    picture = read_picture(path)
    pixels, said = picture.pixels, list(picture.notes)
    if pixels.dtype == np.uint16:
        pixels = to_8_bits(pixels)
        said.append("16-bit reduced to 8-bit")
    if picture.alpha is not None:
        said.append("alpha dropped")
    if notes is not None:
        notes.extend(said)
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels


def as_rgb(image: np.ndarray) -> np.ndarray:
    """(h, w) or (h, w, 3) -> (h, w, 3): grey becomes three equal channels."""
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def write_image(path: pathlib.Path, image: np.ndarray) -> None:
    """Writes uint8 or uint16 (h, w) or (h, w, 3) by the suffix of `path`, whole or not
    at all; the folder is made."""
    write_picture(path, Picture(image if image.ndim == 3 else image[..., None]))
