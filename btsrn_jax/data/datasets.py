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

from btsrn_jax import images, storage
from btsrn_jax.data import div2k, folders
from btsrn_jax.errors import InputError
from btsrn_jax.metrics import get_protocol, mod_crop
from btsrn_jax.progress import progress_bar
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
    for a grey file; None where LR is to be made from HR. files: where they lie, if in
    files of their own; then `load` takes a list for what was done on reading."""

    name: str
    load: Callable[..., tuple[np.ndarray | None, np.ndarray]]
    files: folders.Files | None = None


def training_pairs(config: ConfigDict) -> list[Pair]:
    """The pairs of a config's `data` section; InputError where there are none."""
    data, scale = config.data, config.scale
    if data.source == "samples":
        return _samples(SAMPLES_TRAIN)
    if data.source == "folder":
        lr_dir = storage.local(data.lr_dir) if data.lr_dir else None
        return folder_pairs(storage.local(data.hr_dir), lr_dir, scale)
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
    sets = {}
    for name in names:
        sets[set_name(name)] = evaluation_set(name, config.scale, data.root)
    ignored = get_protocol(config.eval.protocol).ignored(config.scale)
    for pairs in sets.values():
        check_set(pairs, config.scale, ignored)
    return sets


def set_name(name: str) -> str:
    """How a set is called in tables: the folder's name, or div2k/CONFIG itself."""
    return name if name.startswith("div2k/") else pathlib.Path(name).resolve().name


def evaluation_set(
    name: str, scale: int, root: str = "data", problems: list[str] | None = None
) -> list[Pair]:
    """The pairs of one set: "samples", "div2k/CONFIG" (validation split, prepared in
    `root`), or a folder, laid out in any of the ways of `folders.find_set`, which also
    says what `problems` takes."""
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
    """Where a set's images come from, in a few words."""
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
    """Pairs of HR files and, with `lr_dir`, the LR files of the same name; see
    `folders.find_pairs`."""
    return [_pair(files) for files in folders.find_pairs(hr_dir, lr_dir, scale)]


def file_pair(path: pathlib.Path) -> Pair:
    """An HR file on its own; LR is to be made from it."""
    return _pair(folders.Files(path.stem, path, None))


def _pair(files):
    def load(notes=None):
        lr = None if files.lr is None else images.read_image(files.lr, notes)
        return lr, images.read_image(files.hr, notes)

    return Pair(files.name, load, files)


def check_set(pairs: list[Pair], scale: int, ignored: int = 0) -> list[str]:
    """Reads every file of a set once, in threads, before anything is computed.

    Args:
      ignored: pixels on each side that a protocol leaves out; some must be left.

    Returns:
      What was done on reading (16 bits reduced, alpha dropped, ...): a line for each,
      with the names of the images.

    Raises:
      InputError naming every image that is unreadable, does not fit its partner, or is
      too small. DIV2K as prepared needs no check: it has checksums.
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
            return _named(error, pair), notes
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


def _named(error, pair):
    """The error's text, with the image's file or name in front if it lacks it."""
    text = str(error)
    if pair.files is None:
        return f"{pair.name}: {text}"
    known = any(path and str(path) in text for path in pair.files[1:])
    return text if known else f"{pair.files.hr}: {text}"


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
            return _named(error, pair)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        work = pool.map(load, pairs)
        bar = progress_bar(work, "reading images", len(pairs), unit="image", delay=2)
        problems = []
        for item in bar:
            if isinstance(item, str):
                problems.append(item)
            elif not problems:
                yield item
    folders.raise_together(problems)


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
