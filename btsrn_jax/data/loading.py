"""Reads training images, LR made from HR where there is none."""

import concurrent.futures
import contextlib
import hashlib
from collections.abc import Iterator

import numpy as np

from btsrn_jax import images, machine, storage
from btsrn_jax.data.folders import raise_together
from btsrn_jax.data.pairs import Pair, check_pair, name_image
from btsrn_jax.errors import InputError
from btsrn_jax.metrics import mod_crop
from btsrn_jax.progress import progress_bar
from btsrn_jax.resize import imresize


def load_training(
    pairs: list[Pair], scale: int, patch: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Reads all pairs in threads, with a progress bar.

    LR that has to be made by `imresize` is kept in the cache folder for the next run.

    Args:
      pairs: what to read.
      scale: of the pairs.
      patch: HR pixels that every image must have along each side.

    Yields:
      (lr, hr): (h, w, 3) and (scale h, scale w, 3) uint8.

    Raises:
      InputError: images are unreadable, do not fit their partners, or are smaller than
        a patch; each is named.
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
            check_patch(hr.shape[:2], patch)
            return lr, hr
        except InputError as error:
            return name_image(error, pair)

    with concurrent.futures.ThreadPoolExecutor(machine.cores()) as pool:
        work = pool.map(load, pairs)
        bar = progress_bar(work, "reading images", len(pairs), unit="image", delay=2)
        problems = []
        for item in bar:
            if isinstance(item, str):
                problems.append(item)
            elif not problems:
                yield item
    raise_together(problems)


def check_patch(size: tuple[int, int], patch: int) -> None:
    """Raises InputError for an image, of (height, width), smaller than a patch."""
    h, w = size
    if min(h, w) < patch:
        raise InputError(f"{w}x{h} is smaller than a patch of {patch}")


def _cached_lr(hr, scale):
    """Returns imresize(hr, 1 / scale), from the cache folder if it was made before.

    The pixels themselves are the key: hashing takes a hundredth of the resizing.
    """
    digest = hashlib.sha256(repr(hr.shape).encode() + hr.tobytes()).hexdigest()
    cache = machine.cache_dir()
    if cache is None:
        return imresize(hr, 1 / scale)
    path = cache / f"lr_x{scale}" / digest[:2] / f"{digest}.npy"
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
    # A cache that cannot be written to is only slower.
    with contextlib.suppress(OSError), storage.replacing(path) as file:
        np.save(file, lr)
    return lr
