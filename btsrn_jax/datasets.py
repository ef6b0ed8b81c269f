"""Sources of (LR, HR) pairs: DIV2K through TFDS, folders, sample photographs.

A pair is a name and a function that reads it, so that listing a thousand images costs
nothing and threads can decode them. What is wrong with any of them is told at once.
"""

import concurrent.futures
import hashlib
import importlib.resources
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from btsrn_jax import div2k, images
from btsrn_jax.errors import InputError
from btsrn_jax.metrics import mod_crop
from btsrn_jax.resize import imresize

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
    """name: unique in its set. load: -> (lr or None, hr), uint8 (h, w, 3), or (h, w)
    for a grey file; None where LR is to be made from HR."""

    name: str
    load: Callable[[], tuple[np.ndarray | None, np.ndarray]]


def training_pairs(config: ConfigDict) -> list[Pair]:
    """The pairs of a config's `data` section; InputError where there are none."""
    data, scale = config.data, config.scale
    if data.source == "samples":
        return _samples(SAMPLES_TRAIN)
    if data.source == "folder":
        lr_dir = pathlib.Path(data.lr_dir) if data.lr_dir else None
        return folder_pairs(pathlib.Path(data.hr_dir), lr_dir, scale)
    return _div2k(f"{data.track}_x{scale}", data.split, data.root)


def evaluation_sets(config: ConfigDict) -> dict[str, list[Pair]]:
    """Set name -> pairs, of `eval.sets`; by default what goes with the training data
    and was not trained on: DIV2K's validation split, or the held-out samples."""
    data = config.data
    names = tuple(config.eval.sets)
    if not names and data.source == "div2k" and data.split == "train":
        names = (f"div2k/{data.track}_x{config.scale}",)
    elif not names and data.source == "samples":
        names = (SAMPLES,)
    return {
        set_name(name): evaluation_set(name, config.scale, data.root) for name in names
    }


def set_name(name: str) -> str:
    """How a set is called in tables: the folder's name, or div2k/CONFIG itself."""
    return name if name.startswith("div2k/") else pathlib.Path(name).resolve().name


def evaluation_set(name: str, scale: int, root: str = "data") -> list[Pair]:
    """The pairs of one set: "samples", "div2k/CONFIG" (validation split, prepared in
    `root`), or a folder of HR images."""
    if name == SAMPLES:
        return _samples(SAMPLES_HELD_OUT)
    if name.startswith("div2k/"):
        config = name.removeprefix("div2k/")
        if not config.endswith(f"_x{scale}"):
            raise InputError(f"{name} is not of scale {scale}")
        return _div2k(config, "validation", root)
    return folder_pairs(pathlib.Path(name), None, scale)


def _div2k(config, split, root):
    return [Pair(*pair) for pair in div2k.pairs(config, split, pathlib.Path(root))]


def _samples(names):
    folder = importlib.resources.files("skimage") / "data"
    paths = [pathlib.Path(str(folder / name)) for name in names]
    return [Pair(path.stem, lambda p=path: (None, images.read(p))) for path in paths]


def folder_pairs(
    hr_dir: pathlib.Path, lr_dir: pathlib.Path | None, scale: int
) -> list[Pair]:
    """Pairs of HR files and, with `lr_dir`, the LR files of the same name.

    A name is the path below the folder without its suffix. The LR file of `a/0001` is
    `a/0001` or `a/0001x4` in `lr_dir` (x4 being the scale), or the only file there of
    that name in whatever folder. Missing partners and duplicates are named together.
    """
    hr_files, problems = _by_name(hr_dir)
    if lr_dir is None:
        found = dict.fromkeys(hr_files)
    else:
        lr_files, more = _by_name(lr_dir)
        problems += more
        found, missing = _partners(hr_files, lr_files, scale)
        problems += [
            f"{hr_files[name]}: no LR image {name} or {name}x{scale} in {lr_dir}"
            for name in missing
        ]
    raise_together(problems)

    def load(hr_path, lr_path):
        lr = None if lr_path is None else images.read(lr_path)
        return lr, images.read(hr_path)

    return [
        Pair(name, lambda h=path, low=found[name]: load(h, low))
        for name, path in hr_files.items()
    ]


def _by_name(folder):
    """{name: path} of a folder's images, and the names that occur twice."""
    files, problems = {}, []
    for path in images.find(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in files:
            problems.append(f"{path}: the same name as {files[name]}")
        files[name] = path
    return files, problems


def _partners(hr_files, lr_files, scale):
    by_base = {}
    for name, path in lr_files.items():
        by_base.setdefault(name.rpartition("/")[2], []).append(path)
    found, missing = {}, []
    for name in hr_files:
        base = name.rpartition("/")[2]
        for candidate in (name, f"{name}x{scale}"):
            if candidate in lr_files:
                found[name] = lr_files[candidate]
                break
        else:
            paths = by_base.get(base, []) + by_base.get(f"{base}x{scale}", [])
            if len(paths) == 1:
                found[name] = paths[0]
            else:
                missing.append(name)
    return found, missing


def raise_together(problems: list[str]) -> None:
    """One InputError for all offenders, if there are any."""
    if not problems:
        return
    shown = problems[:20]
    if len(problems) > 20:
        shown.append(f"... and {len(problems) - 20} more")
    raise InputError("\n".join(shown))


def check_pair(lr: np.ndarray, hr: np.ndarray, scale: int) -> np.ndarray:
    """HR cut top-left to `scale` times LR; InputError where the two do not fit."""
    (h, w), (full_h, full_w) = lr.shape[:2], hr.shape[:2]
    if not (0 <= full_h - scale * h < scale and 0 <= full_w - scale * w < scale):
        raise InputError(
            f"LR of {w}x{h} and HR of {full_w}x{full_h} do not fit at x{scale}:"
            f" LR of {full_w // scale}x{full_h // scale} was expected"
        )
    return hr[: scale * h, : scale * w]


def load_training(
    pairs: list[Pair], scale: int, patch: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Reads all pairs in threads, with a progress bar.

    Yields:
      (lr, hr), uint8 RGB, hr exactly `scale` times lr. LR that had to be made by
      `imresize` is kept in a cache folder for the next run.

    Raises:
      InputError naming every image that is unreadable, does not fit its partner, or is
      smaller than `patch` HR pixels.
    """

    def load(pair):
        try:
            lr, hr = pair.load()
            hr = images.as_rgb(hr)
            if lr is None:
                hr = mod_crop(hr, scale)
                lr = _cached_lr(hr, scale)
            else:
                lr = images.as_rgb(lr)
                hr = check_pair(lr, hr, scale)
            if min(hr.shape[:2]) < patch:
                raise InputError(
                    f"{hr.shape[1]}x{hr.shape[0]} is smaller than a patch of {patch}"
                )
            return lr, hr
        except InputError as error:
            text = str(error)
            return text if pair.name in text else f"{pair.name}: {text}"

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        work = pool.map(load, pairs)
        bar = tqdm(work, "reading images", len(pairs), unit="image", delay=2)
        problems = []
        for item in bar:
            if isinstance(item, str):
                problems.append(item)
            elif not problems:
                yield item
    raise_together(problems)


def _cached_lr(hr, scale):
    """imresize(hr, 1 / scale), from the cache folder if it was made before.

    Keyed by the pixels themselves: hashing takes a hundredth of the resizing.
    """
    digest = hashlib.sha256(repr(hr.shape).encode() + hr.tobytes()).hexdigest()
    path = cache_dir() / f"lr_x{scale}" / digest[:2] / f"{digest}.npy"
    try:
        lr = np.load(path)
        if lr.dtype == np.uint8 and lr.shape[:2] == (
            hr.shape[0] // scale,
            hr.shape[1] // scale,
        ):
            return lr
    except (OSError, ValueError, EOFError):
        pass
    lr = imresize(hr, 1 / scale)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            np.save(file, lr)
        os.replace(file.name, path)
    except OSError:
        pass  # a cache that cannot be written is only slower
    return lr


def cache_dir() -> pathlib.Path:
    """BTSRN_CACHE, or btsrn below XDG_CACHE_HOME or ~/.cache."""
    if "BTSRN_CACHE" in os.environ:
        return pathlib.Path(os.environ["BTSRN_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "btsrn"
