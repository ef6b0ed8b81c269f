"""Archives like DIV2K's, of a few small images."""

import hashlib
import io
import pathlib
import zipfile

import numpy as np
from PIL import Image

from btsrn_jax.data import archives, div2k

CONFIG, SCALE = "bicubic_x4", 4
NUMBERS = {"train": range(1, 8), "validation": range(801, 804)}


def picture(number: int, kind: str) -> np.ndarray:
    """Returns a picture of this number and kind; sizes differ, as DIV2K's do."""
    h, w = 12 + number % 5, 10 + number % 3
    s = SCALE if kind == "hr" else 1
    rng = np.random.default_rng([number, s])
    return rng.integers(0, 256, (s * h, s * w, 3), np.uint8)


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def describe(path: pathlib.Path, url: str) -> archives.Archive:
    data = path.read_bytes()
    return archives.Archive(url, len(data), hashlib.sha256(data).hexdigest())


def make_archives(folder: pathlib.Path, config: str) -> dict[str, archives.Archive]:
    """Makes four zips, named and nested as the real ones; returns what they are."""
    folder.mkdir(exist_ok=True)
    track, scale = config.split("_x")
    sources = {}
    for part, real in div2k.archives(config).items():
        split, kind = part.split("_")
        stem = real.name.removesuffix(".zip")
        path = folder / real.name
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            inner = f"{stem}/" if kind == "hr" else f"{stem[:-3]}/X{scale}/"
            archive.writestr(inner, b"")
            for number in NUMBERS[split]:
                name = (
                    f"{number:04d}.png" if kind == "hr" else f"{number:04d}x{scale}.png"
                )
                archive.writestr(inner + name, png(picture(number, kind)))
        if kind == "lr":
            assert stem[:-3].endswith(f"LR_{track}")
        # A port where nobody listens: what is there must not be downloaded.
        sources[part] = describe(path, f"http://127.0.0.1:9/{path.name}")
    return sources
