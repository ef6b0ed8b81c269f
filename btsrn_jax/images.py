"""Image files, uint8 and float, and the eight flips and rotations."""

import pathlib

import numpy as np
from PIL import Image

from btsrn_jax.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def find(folder: pathlib.Path) -> list[pathlib.Path]:
    """All image files under a folder, nested ones included, sorted by path."""
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise InputError(f"no folder {folder}")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    files = [p for p in files if not p.name.startswith(".")]
    if not files:
        raise InputError(f"no images in {folder} (looked for {' '.join(SUFFIXES)})")
    return files


def read(path: pathlib.Path) -> np.ndarray:
    """Reads (h, w, 3) uint8, or (h, w) uint8 for a grey file.

    Raises InputError for a file that is missing, truncated or no image.
    """
    try:
        with Image.open(path) as image:
            grey = image.mode in ("1", "L", "LA")
            return np.asarray(image.convert("L" if grey else "RGB"))
    except FileNotFoundError:
        raise InputError(f"no file {path}") from None
    except Exception as error:  # Pillow raises many types for damaged files
        raise InputError(f"cannot read {path}: {error}") from None


def as_rgb(image: np.ndarray) -> np.ndarray:
    """(h, w) or (h, w, 3) -> (h, w, 3): grey becomes three equal channels."""
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def write(path: pathlib.Path, image: np.ndarray) -> None:
    """Writes uint8 (h, w) or (h, w, 3) by the suffix of `path`, never half a file."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        Image.fromarray(image).save(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def turn(x, k: int):
    """View k of 0..7 of (..., h, w, c): k // 4 flips left-right, then k % 4 turns by 90
    degrees. NumPy and JAX arrays alike. View 0 is the image itself."""
    if k & 4:
        x = x[..., ::-1, :]
    if k & 1:
        x = x.swapaxes(-3, -2)[..., ::-1, :, :]
    if k & 2:
        x = x[..., ::-1, ::-1, :]
    return x


def turn_back(x, k: int):
    """The inverse of `turn(x, k)`."""
    if k & 2:
        x = x[..., ::-1, ::-1, :]
    if k & 1:
        x = x[..., ::-1, :, :].swapaxes(-3, -2)
    if k & 4:
        x = x[..., ::-1, :]
    return x
