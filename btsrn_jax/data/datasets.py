"""Pairs of LR and HR images, from DIV2K, from folders, or from sample photographs.

A pair is a name and a function that reads it, so that listing a thousand images costs
nothing and threads can decode them. Errors name all images at fault, not just one.
"""

import concurrent.futures
import importlib.resources
import os
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from btsrn_jax import images, storage
from btsrn_jax.data import div2k, folders
from btsrn_jax.errors import InputError
from btsrn_jax.metrics import get_protocol, mod_crop
from btsrn_jax.progress import progress_bar

# Photographs inside the scikit-image wheel, all CC0 or public domain; see README.
SAMPLES_TRAIN = (
    "astronaut.png",
    "rocket.jpg",
    "hubble_deep_field.jpg",
    "camera.png",
    "brick.png",
    "grass.png",
    "gravel.png",
)
SAMPLES_HELD_OUT = ("chelsea.png", "coffee.png")
SAMPLES = "samples"  # the held-out photographs, as a name in `eval.sets`


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


def training_pairs(config: ConfigDict) -> list[Pair]:
    """Returns the pairs that a config's `data` section asks for.

    Raises:
      InputError: there are none, or a folder or partners are missing.
    """
    data, scale = config.data, config.scale
    if data.source == "samples":
        return _samples(SAMPLES_TRAIN)
    if data.source == "folder":
        lr_dir = storage.local(data.lr_dir) if data.lr_dir else None
        return folder_pairs(storage.local(data.hr_dir), lr_dir, scale)
    return _div2k(f"{data.track}_x{scale}", data.split, data.root)


def evaluation_sets(config: ConfigDict) -> dict[str, list[Pair]]:
    """Returns the pairs of a config's `eval.sets` by set name, all files checked.

    By default these are images that belong to the training data and are not trained on:
    DIV2K's validation split, or the held-out samples.

    Raises:
      InputError: as `evaluation_set` and `check_set`.
    """
    data = config.data
    names = tuple(config.eval.sets)
    if not names and data.source == "div2k" and data.split == "train":
        names = (f"div2k/{data.track}_x{config.scale}",)
    elif not names and data.source == "samples":
        names = (SAMPLES,)
    sets = {}
    for name in names:
        sets[set_name(name)] = evaluation_set(name, config.scale, data.root)
    ignored = get_protocol(config.eval.protocol).ignored(config.scale)
    for pairs in sets.values():
        check_set(pairs, config.scale, ignored)
    return sets


def set_name(name: str) -> str:
    """Returns a set's name in tables: the folder's name, or div2k/CONFIG itself."""
    return name if name.startswith("div2k/") else storage.local(name).resolve().name


def evaluation_set(
    name: str, scale: int, root: str = "data", problems: list[str] | None = None
) -> list[Pair]:
    """Returns the pairs of one evaluation set.

    Args:
      name: "samples", "div2k/CONFIG" (its validation split), or a folder, laid out in
        any of the ways of `folders.find_set`.
      scale: of the pairs.
      root: where DIV2K is prepared.
      problems: as of `folders.find_set`.

    Raises:
      InputError: there is no such set, or images in it are missing.
    """
    if name == SAMPLES:
        return _samples(SAMPLES_HELD_OUT)
    if name.startswith("div2k/"):
        config = name.removeprefix("div2k/")
        if not config.endswith(f"_x{scale}"):
            raise InputError(f"{name} is not of scale {scale}")
        return _div2k(config, "validation", root)
    found = folders.find_set(storage.local(name), scale, problems)
    return [_pair(files) for files in found]


def origin(pairs: list[Pair]) -> str:
    """Returns a few words on where a set's images come from."""
    if pairs[0].files is None:
        return "as prepared"
    if pairs[0].files.lr is None:
        return f"HR of {_common([p.files.hr for p in pairs])}, LR made by imresize"
    hr, lr = (_common([p.files[i] for p in pairs]) for i in (1, 2))
    return f"HR and LR of {hr}" if hr == lr else f"HR of {hr}, LR of {lr}"


def _common(paths):
    return os.path.commonpath([path.parent for path in paths])


def _div2k(config, split, root):
    return [Pair(*pair) for pair in div2k.pairs(config, split, storage.path(root))]


def _samples(names):
    folder = importlib.resources.files("skimage") / "data"
    files = [pathlib.Path(str(folder / name)) for name in names]
    return [file_pair(path) for path in files]


def folder_pairs(
    hr_dir: pathlib.Path, lr_dir: pathlib.Path | None, scale: int
) -> list[Pair]:
    """Returns pairs of HR files and, with `lr_dir`, the LR files of the same name.

    Arguments and errors are those of `folders.find_pairs`.
    """
    return [_pair(files) for files in folders.find_pairs(hr_dir, lr_dir, scale)]


def file_pair(path: pathlib.Path) -> Pair:
    """Returns the pair of an HR file alone; LR is to be made from it."""
    return _pair(folders.Files(path.stem, path, None))


def _pair(files):
    def load(notes=None):
        lr = None if files.lr is None else images.read_image(files.lr, notes)
        return lr, images.read_image(files.hr, notes)

    return Pair(files.name, load, files)


def check_set(pairs: list[Pair], scale: int, ignored: int = 0) -> list[str]:
    """Reads every file of a set once, in threads, before anything is computed.

    DIV2K as prepared needs no check: it has checksums.

    Args:
      pairs: the set.
      scale: of the pairs.
      ignored: pixels on each side that a protocol leaves out; some must be left.

    Returns:
      A line for each thing that was done on reading (16 bits reduced, alpha dropped,
      ...), with the names of the images.

    Raises:
      InputError: images are unreadable, do not fit their partners, or are too small;
        each is named.
    """

    def check(pair):
        notes = []
        try:
            lr, hr = pair.load(notes)
            if lr is not None:
                hr = check_pair(lr, hr, scale)
            h, w = mod_crop(hr, scale).shape[:2]
            if min(h, w) <= 2 * ignored:
                raise InputError(
                    f"{hr.shape[1]}x{hr.shape[0]} is too small at x{scale}: the"
                    f" protocol ignores {ignored} pixels on each side"
                )
        except InputError as error:
            return name_image(error, pair), notes
        return None, notes + (["grey"] if hr.ndim == 2 else [])

    pairs = [pair for pair in pairs if pair.files is not None]
    problems, said = [], {}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        work = pool.map(check, pairs)
        bar = progress_bar(work, "checking images", len(pairs), unit="image", delay=2)
        for pair, (problem, notes) in zip(pairs, bar, strict=True):
            problems += [problem] if problem else []
            for note in dict.fromkeys(notes):
                said.setdefault(note, []).append(pair.name)
    folders.raise_together(problems)
    return [f"{note}: {_shortened(names)}" for note, names in said.items()]


def _shortened(names, most=5):
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


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
