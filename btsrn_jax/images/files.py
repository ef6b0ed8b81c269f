"""Image files as arrays of 8 bits, the form in which data and metrics use them."""

import os
import pathlib

import numpy as np

from btsrn_jax import storage
from btsrn_jax.errors import InputError
from btsrn_jax.images import heif
from btsrn_jax.images.decode import SUFFIXES, read_picture
from btsrn_jax.images.encode import to_8_bits, write_picture
from btsrn_jax.images.picture import Picture


def find_images(
    folder: pathlib.Path, unreadable: list[InputError] | None = None
) -> list[pathlib.Path]:
    """Returns all image files in a folder and its subfolders, sorted by path.

    Images are told by their suffix; hidden files are left out.

    Args:
      folder: where to look.
      unreadable: if given, takes an InputError for each folder that may not be read,
        and the rest is returned.

    Raises:
      InputError: there is no such folder, it holds no images, or part of it may not be
        read and `unreadable` is None.
    """
    folder = pathlib.Path(folder)
    if not os.path.isdir(folder):  # pathlib's is_dir raises without permission
        found = os.path.exists(folder)
        raise InputError(f"{folder} is no folder" if found else storage.missing(folder))
    failed, suffixes = [], (*SUFFIXES, *heif.readable_suffixes())
    files = sorted(
        pathlib.Path(parent, name)
        for parent, _, names in os.walk(folder, onerror=failed.append)
        for name in names
        if pathlib.Path(name).suffix.lower() in suffixes and not name.startswith(".")
    )
    errors = [
        InputError(f"cannot read folder {e.filename}: {e.strerror}") for e in failed
    ]
    if unreadable is not None:
        unreadable.extend(errors)
    elif errors:
        raise errors[0]
    if not files and not errors:
        raise InputError(f"no images in {folder} (looked for {' '.join(suffixes)})")
    return files


def read_image(path: pathlib.Path, notes: list[str] | None = None) -> np.ndarray:
    """Reads an image file as 8 bits without alpha.

    Args:
      path: of a PNG, JPEG, WebP, TIFF or BMP file.
      notes: if given, takes a phrase for each thing that was done on reading, such as
        "alpha dropped". 16 bits are reduced to 8 by rounding v / 257.

    Returns:
      (h, w, 3) uint8, or (h, w) uint8 for a grey file.

    Raises:
      InputError: the file is missing, truncated, or no image.
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
    """Returns (h, w, 3) for (h, w) or (h, w, 3): grey becomes three equal channels."""
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def write_image(path: pathlib.Path, image: np.ndarray) -> None:
    """Writes an image file in the format of its suffix, whole or not at all.

    Args:
      path: the file; its folder is made if it is missing.
      image: (h, w) or (h, w, 3), uint8 or uint16.

    Raises:
      InputError, OSError: as of `write_picture`.
    """
    write_picture(path, Picture(image if image.ndim == 3 else image[..., None]))
