"""Pairs of LR and HR images, from DIV2K, from folders, or from sample photographs.

A pair is a name and a function that reads it, so that listing a thousand images costs
nothing and threads can decode them. Errors name all images at fault, not just one.
"""

import concurrent.futures
import importlib.resources
import os
import pathlib

from ml_collections import ConfigDict

from btsrn_jax import machine, storage
from btsrn_jax.data import div2k, folders
from btsrn_jax.data.pairs import (
    Pair,
    check_pair,
    file_pair,
    files_pair,
    name_image,
    smaller_copy,
)
from btsrn_jax.data.set_naming import DIV2K, SAMPLES, is_reserved, set_names
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


def training_pairs(config: ConfigDict) -> list[Pair]:
    """Returns the pairs that a config's `data` section asks for: the images, then their
    smaller copies.

    Raises:
      InputError: there are none, or a folder or partners are missing.
    """
    pairs, patch = _training_images(config), config.train.patch
    copies = config.data.smaller_copies
    with_lr = [pair.files.lr for pair in pairs if pair.files and pair.files.lr]
    if copies and with_lr:
        raise InputError(
            "config.data.smaller_copies needs LR images as imresize makes them, and"
            f" there are others: {with_lr[0]}"
        )
    return pairs + [
        smaller_copy(pair, share, patch) for share in copies for pair in pairs
    ]


def _training_images(config):
    data, scale = config.data, config.scale
    if data.source == "samples":
        return _samples(SAMPLES_TRAIN)
    if data.source == "folder":
        lr_dir = storage.local(data.lr_dir) if data.lr_dir else None
        return folder_pairs(storage.local(data.hr_dir), lr_dir, scale, "train")
    return _div2k(f"{data.track}_x{scale}", data.split, data.root)


def name_folders(config: ConfigDict, pairs: list[Pair]) -> ConfigDict:
    """Returns a config whose `data` names the folders that the training pairs come
    from: `hr_dir` may hold LR images, too, and the run's record should say so."""
    data = config.data
    if data.source != "folder" or data.lr_dir or pairs[0].files.lr is None:
        return config
    config = config.copy_and_resolve_references()
    config.data.hr_dir = _common([pair.files.hr for pair in pairs])
    config.data.lr_dir = _common([pair.files.lr for pair in pairs])
    return config


def evaluation_sets(config: ConfigDict) -> dict[str, list[Pair]]:
    """Returns the pairs of a config's `eval.sets` by set name, all files checked.

    By default these are images that belong to the training data and are not trained on:
    DIV2K's validation split, or the held-out samples.

    Raises:
      InputError: as `evaluation_set` and `check_set`.
    """
    data, given, sets = config.data, config.eval.sets, {}
    names = evaluation_set_names(config)
    for name, place in zip(names, given or names, strict=True):
        if given:
            sets[name] = evaluation_set(place, config.scale, data.root)
        elif name == SAMPLES:
            sets[name] = sample_pairs()
        else:
            sets[name] = _div2k(name.removeprefix(DIV2K), "validation", data.root)
    ignored = get_protocol(config.eval.protocol).ignored(config.scale)
    for pairs in sets.values():
        check_set(pairs, config.scale, ignored)
    return sets


def evaluation_set_names(config: ConfigDict) -> list[str]:
    """Returns the names of `evaluation_sets`, without looking for images.

    Raises:
      InputError: as of `set_names`.
    """
    data = config.data
    if config.eval.sets:
        return set_names(list(config.eval.sets), data.root)
    if data.source == "div2k" and data.split == "train":
        return [f"{DIV2K}{data.track}_x{config.scale}"]
    return [SAMPLES] if data.source == "samples" else []


def check_names(config: ConfigDict) -> None:
    """Raises InputError where a config cannot be trained for what it names: no folder
    of HR images, or an `eval.best_set` that is none of the evaluation sets."""
    if config.data.source == "folder" and not config.data.hr_dir:
        raise InputError("config.data.hr_dir is empty: the folder of HR images")
    best, names = config.eval.best_set, evaluation_set_names(config)
    if best and best not in names:
        known = f"one of {', '.join(names)}" if names else "there are no sets"
        raise InputError(
            f"config.eval.best_set is {best!r}: {known}, or leave it empty for all"
        )


def evaluation_set(
    name: str,
    scale: int,
    root: str = "data",
    problems: list[str] | None = None,
    lr_dir: pathlib.Path | None = None,
) -> list[Pair]:
    """Returns the pairs of one evaluation set.

    Args:
      name: "samples", "div2k/CONFIG" (its validation split), or a folder, laid out in
        any of the ways of `folders.find_set`.
      scale: of the pairs.
      root: where DIV2K is prepared.
      problems, lr_dir: as of `folders.find_set`.

    Raises:
      InputError: there is no such set, or images in it are missing.
    """
    if is_reserved(name, root):
        if lr_dir is not None:
            raise InputError(f"{name} has no LR folder of yours: leave out --lr")
        if name == SAMPLES:
            return sample_pairs()
        config = name.removeprefix(DIV2K)
        if not config.endswith(f"_x{scale}"):
            raise InputError(f"{name} is not of scale {scale}")
        return _div2k(config, "validation", root)
    found = folders.find_set(storage.local(name), scale, problems, lr_dir)
    return [files_pair(files) for files in found]


def lr_origin(pairs: list[Pair]) -> str:
    """Returns where a set's LR images come from: "imresize", their folder, or
    div2k/CONFIG."""
    files = pairs[0].files
    if files is None:
        return pairs[0].prepared or "imresize"
    return _common([p.files.lr for p in pairs]) if files.lr else "imresize"


def origin(pairs: list[Pair]) -> str:
    """Returns a few words on how many images a set has, and where they come from."""
    count = f"{len(pairs)} image{'s' * (len(pairs) != 1)}"
    if pairs[0].files is None:
        return f"{count}, as prepared"
    hr = _common([p.files.hr for p in pairs])
    if pairs[0].files.lr is None:
        return f"{count}, HR of {hr}, LR made by imresize"
    lr = _common([p.files.lr for p in pairs])
    return f"{count}, HR {f'and LR of {hr}' if hr == lr else f'of {hr}, LR of {lr}'}"


def _common(paths):
    return os.path.commonpath([path.parent for path in paths])


def _div2k(config, split, root):
    records = div2k.pairs(config, split, storage.path(root))
    return [Pair(*record, prepared=DIV2K + config) for record in records]


def sample_pairs() -> list[Pair]:
    """Returns the sample photographs that no training sees."""
    return _samples(SAMPLES_HELD_OUT)


def _samples(names):
    folder = importlib.resources.files("skimage") / "data"
    files = [pathlib.Path(str(folder / name)) for name in names]
    return [file_pair(path) for path in files]


def folder_pairs(
    hr_dir: pathlib.Path, lr_dir: pathlib.Path | None, scale: int, split: str = "train"
) -> list[Pair]:
    """Returns pairs of HR files and the LR files of the same name, from `lr_dir` or
    from `hr_dir` itself, if LR lies there.

    Arguments and errors are those of `folders.find_set`.
    """
    found = folders.find_set(hr_dir, scale, None, lr_dir, split)
    return [files_pair(files) for files in found]


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
    with concurrent.futures.ThreadPoolExecutor(machine.cores()) as pool:
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
