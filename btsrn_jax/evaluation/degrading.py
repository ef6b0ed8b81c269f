"""LR images as photographs are: blurred, noisy, saved as JPEG (`--degrade`).

NumPy and Pillow alone, and nothing of what training degrades its patches with: figures
should not depend on whether that is right.
"""

import difflib
import hashlib
import io
import math
import os
import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from btsrn_jax.errors import InputError

CLEAN = "clean"  # the LR images as they are
KINDS = {"blur": "WIDTH", "noise": "SIGMA", "jpeg": "QUALITY"}
MOST_JPEG = 65500  # pixels along a side, of libjpeg


class Step(NamedTuple):
    """One thing that is done to an LR image."""

    kind: str
    """A name of KINDS."""

    value: float
    """The standard deviation of a Gaussian blur in LR pixels, or of Gaussian noise in
    grey levels; the quality of a JPEG, a whole number."""


Degradation = tuple[Step, ...]  # in order; () for the LR images as they are


def parse_degradations(
    texts: Iterable[str], option: str = "--degrade"
) -> list[Degradation]:
    """Returns the degradations that an option names, each once.

    Args:
      texts: "clean", or "blur:WIDTH", "noise:SIGMA", "jpeg:QUALITY", or several of
        these joined by +, which is their order; or several such texts with commas or
        spaces.
      option: for messages.

    Raises InputError for anything else, and for values that are out of range.
    """
    joined = [re.sub(r"\s*\+\s*", "+", text) for text in texts]
    parts = [part for text in joined for part in text.split(",")]
    names = [name for part in parts for name in part.split() or [""]]
    return list(dict.fromkeys(_parse(name, option) for name in names))


def degradations_of(config: ConfigDict) -> list[Degradation]:
    """Returns those of `eval.degrade`, by which training validates; [()] without.

    Raises InputError as `parse_degradations` does.
    """
    named = config.eval.degrade
    return parse_degradations([named], "config.eval.degrade") if named else [()]


def _parse(text, option):
    if text == CLEAN:
        return ()
    where = f"{option} {text!r}: "
    return tuple(_parse_step(part.strip(), text, where) for part in text.split("+"))


def _parse_step(part, text, where):
    kind, _, value = part.partition(":")
    where += f"{part!r} is wrong: " if part != text else ""
    if kind not in KINDS:
        known = ", ".join(f"{name}:{unit}" for name, unit in KINDS.items())
        near = difflib.get_close_matches(kind, KINDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        ways = f"{CLEAN} alone, {known}, or several of these joined by +"
        raise InputError(f"{where}{ways} were expected{hint}")
    if kind == "jpeg":
        if not re.fullmatch("[0-9]{1,3}", value) or not 1 <= int(value) <= 100:
            raise InputError(f"{where}a quality of 1 to 100 was expected")
        return Step(kind, int(value))
    most, unit = (20, "LR pixels") if kind == "blur" else (255, "grey levels")
    number = re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?|\.[0-9]{1,9}", value)
    if not number or not 0 < float(value) <= most:
        raise InputError(f"{where}a number above 0 and at most {most} ({unit})")
    return Step(kind, float(value))


def degradation_name(degradation: Degradation) -> str:
    """Returns a degradation as tables and CSV files have it: "blur:0.6+jpeg:75"; "" for
    none."""
    return "+".join(f"{step.kind}:{step.value:g}" for step in degradation)


def degrade(lr: np.ndarray, degradation: Degradation, name: str) -> np.ndarray:
    """Returns a degraded image; after each step it is rounded to uint8.

    Args:
      lr: (h, w, 3) or (h, w) uint8.
      degradation: of `parse_degradations`.
      name: of the image. It is the seed of the noise.
    """
    for number, step in enumerate(degradation):
        if step.kind == "blur":
            lr = _blurred(lr, step.value)
        elif step.kind == "noise":
            seed = hashlib.sha256(b"%d %b" % (number, os.fsencode(name))).digest()
            rng = np.random.default_rng(int.from_bytes(seed))
            lr = _rounded(lr + step.value * rng.standard_normal(lr.shape))
        else:
            lr = _as_jpeg(lr, step.value)
    return lr


def _rounded(values):
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)


def _blurred(lr, width):
    """Each axis in turn, the image mirrored around its edges."""
    radius = math.ceil(4 * width)
    weights = np.exp(-((np.arange(-radius, radius + 1) / width) ** 2) / 2)
    weights /= weights.sum()
    values = lr.astype(np.float64)
    for axis in (0, 1):
        around = [(radius, radius) if a == axis else (0, 0) for a in range(lr.ndim)]
        padded = np.pad(values, around, "symmetric")
        size = values.shape[axis]
        values = sum(
            weight * np.take(padded, range(start, start + size), axis)
            for start, weight in enumerate(weights)
        )
    return _rounded(values)


def _as_jpeg(lr, quality):
    """As Pillow saves it by default: baseline, colours at half the resolution."""
    if max(lr.shape) > MOST_JPEG:
        h, w = lr.shape[:2]
        raise InputError(f"LR of {w} x {h} pixels: a JPEG has at most {MOST_JPEG}")
    file = io.BytesIO()
    Image.fromarray(lr).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(file) as image:
        return np.asarray(image)
