"""Decoded images on the host: raw uint8 files, mapped into memory.

For images that do not fit on a device. They give the same batches as the device's
store: indices come from the same `sampler.draw`, and only the squares travel.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import math
import os
import pathlib
import tempfile
import time
from collections.abc import Iterable

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from btsrn_jax import images, machine, mesh, storage
from btsrn_jax.data import loading, sampler
from btsrn_jax.data.folders import raise_together
from btsrn_jax.data.pairs import Pair, name_image
from btsrn_jax.errors import InputError
from btsrn_jax.progress import logger
from btsrn_jax.resize import symmetric

SHARE = 0.6  # of a device's memory that a store may take


@dataclasses.dataclass(frozen=True)
class HostStore:
    """Images one after the other, each as its rows of RGB."""

    lr: np.ndarray
    """Flat uint8, mapped."""

    hr: np.ndarray
    """Flat uint8, mapped; an image takes scale^2 times as much as in `lr`."""

    sizes: np.ndarray
    """(images, 2): height and width of the LR images, in pixels."""

    starts: np.ndarray
    """(images,): where each image begins in `lr`."""

    scale: int
    """How many HR pixels there are to one LR pixel, along a side."""


def load_store(
    config: ConfigDict, pairs: list[Pair], devices: Mesh
) -> sampler.Store | HostStore:
    """Decodes the training images to where `data.cache` wants them, and logs where.

    A host store that was made before is used, if it still fits the images.

    Args:
      config: `scale`, `data` and `train.patch` count.
      pairs: as of `training_pairs`.
      devices: the mesh on which a device store is to lie.

    Returns:
      A store on every device, or a host store: what `open_batches` takes.

    Raises:
      InputError: images are unreadable or too small, or a host store is wanted and the
        cache folder cannot be written to.
    """
    cache, limit = config.data.cache, device_limit()
    folder = folder_for(config, [pair.name for pair in pairs])
    store = None
    if cache != "device" and folder:
        store = open_store(folder, config.scale)
    if store is not None:
        _check_sizes(store, pairs, config.train.patch)
    if store is None or (cache == "auto" and size_on_device(store) <= limit):
        loaded = loading.load_training(pairs, config.scale, config.train.patch)
        store = make_store(loaded, config.scale, cache, limit, folder)
    on_host = isinstance(store, HostStore)
    logger.info(
        f"images: {size_on_device(store) / 1e9:.3g} GB decoded; a device has room for"
        f" {limit / 1e9:.3g} GB (config.data.cache={cache}): kept"
        f" {f'on the host, in {folder}' if on_host else 'on every device'}"
    )
    # What was put together on the host is not needed there any longer.
    return store if on_host else jax.device_put(store, mesh.replicated(devices))


def _check_sizes(store, pairs, patch):
    """Raises InputError for images smaller than a patch, as `load_training` does."""
    problems = []
    for pair, size in zip(pairs, hr_sizes(store), strict=True):
        try:
            loading.check_patch(size, patch)
        except InputError as error:
            problems.append(name_image(error, pair))
    raise_together(problems)


def device_limit() -> int:
    """Returns the bytes that a store may take on every device.

    Devices of a CPU share the machine's memory, and each holds a copy. Collective: the
    least of all processes.
    """
    devices = jax.local_devices()
    limit = min(mesh.device_memory(device)[1] for device in devices)
    if devices[0].platform == "cpu":  # it is put together in the same memory
        limit *= len(devices) / (1 + len(devices))
    return int(mesh.gather(np.int64(SHARE * limit)).min())


def make_store(
    loaded: Iterable[tuple[np.ndarray, np.ndarray]],
    scale: int,
    cache: str,
    limit: int,
    folder: pathlib.Path | None,
) -> sampler.Store | HostStore:
    """Puts (lr, hr) pairs into a store as they come.

    Args:
      loaded: as of `loading.load_training`.
      scale: of the pairs.
      cache: "device", "host", or "auto": the device, if it takes `limit` bytes at most.
      limit: see `device_limit`.
      folder: where a host store is to lie; None: there is no place for one.
    """
    pairs, rows, width, writer = [], 0, 0, None
    with contextlib.ExitStack() as stack:
        for pair in loaded:
            pairs.append(pair)
            rows, width = rows + pair[0].shape[0], max(width, pair[0].shape[1])
            too_large = cache == "auto" and _bytes(rows, width, scale) > limit
            if writer is None and (cache == "host" or too_large):
                if folder is None:
                    raise InputError(
                        "a store on the host needs a cache folder, and there is no home"
                        " directory: set BTSRN_CACHE"
                    )
                writer = stack.enter_context(_writer(folder.parent))
            if writer:
                for lr, hr in pairs:
                    writer.add(lr, hr)
                pairs = []
        if writer is None:
            return sampler.make_store(pairs, scale)
        writer.close()
        made = open_store(writer.folder, scale)
        _put(writer.folder, folder, scale)
    return open_store(folder, scale) or made


def _put(made, folder, scale):
    """Moves a store to its place, where another process may have put the same."""
    while open_store(folder, scale) is None:
        with contextlib.suppress(FileNotFoundError):  # what lies there is broken
            folder.rename(made.with_name(f"broken{time.monotonic_ns()}"))
        try:
            made.rename(folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


@contextlib.contextmanager
def _writer(parent):
    """Yields a writer into a temporary folder, from which the store is then moved."""
    storage.check_writable_folder(parent)
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent) as temporary:
        writer = _Writer(pathlib.Path(temporary, "made"))
        with writer.lr, writer.hr:  # closed also where an image is refused
            yield writer


class _Writer:
    """Appends images to a store's files; its index comes last."""

    def __init__(self, folder):
        self.folder = folder
        self.folder.mkdir()
        self.lr = (self.folder / "lr.u8").open("wb")
        self.hr = (self.folder / "hr.u8").open("wb")
        self.sizes = []

    def add(self, lr, hr):
        self.lr.write(np.ascontiguousarray(lr).data)
        self.hr.write(np.ascontiguousarray(hr).data)
        self.sizes.append(lr.shape[:2])

    def close(self):
        self.lr.close()
        self.hr.close()
        (self.folder / "index.json").write_text(json.dumps({"sizes": self.sizes}))


def open_store(folder: pathlib.Path, scale: int) -> HostStore | None:
    """Maps a store that was made before; returns None if there is no whole one, and
    raises OSError where that cannot be told."""
    try:
        sizes = np.array(json.loads((folder / "index.json").read_text())["sizes"])
        lr = np.memmap(folder / "lr.u8", np.uint8, "r")
        hr = np.memmap(folder / "hr.u8", np.uint8, "r")
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    lengths = 3 * sizes[:, 0] * sizes[:, 1]
    if lr.size != lengths.sum() or hr.size != scale**2 * lengths.sum():
        return None
    return HostStore(lr, hr, sizes, np.cumsum(lengths) - lengths, scale)


def folder_for(config: ConfigDict, names: list[str]) -> pathlib.Path | None:
    """Returns where a config's host store lies: in the cache, by what it holds. None if
    there is no cache folder.

    Args:
      config: `scale` and `data` count, with smaller copies `train.patch`; for folders,
        or one file, also the size and the date of each file.
      names: of the images.
    """
    data = config.data
    what = [config.scale, data.source, data.track, data.split]
    what.append(os.path.abspath(storage.expand(data.root)))
    for place in map(storage.local, filter(None, (data.hr_dir, data.lr_dir))):
        for path in [place] if place.is_file() else images.find_images(place):
            status = path.stat()
            what.append([str(path.resolve()), status.st_size, status.st_mtime_ns])
    if data.smaller_copies:  # the patch bounds their size
        what.append(config.train.patch)
    digest = hashlib.sha256(json.dumps([what, names]).encode()).hexdigest()
    cache = machine.cache_dir()
    return cache and cache / f"raw_x{config.scale}" / digest


def size_on_device(store: sampler.Store | HostStore) -> int:
    """Returns the bytes that the images take as a `sampler.Store`."""
    if isinstance(store, sampler.Store):
        return store.lr.nbytes + store.hr.nbytes
    rows, width = store.sizes[:, 0].sum(), store.sizes[:, 1].max()
    return _bytes(rows, width, store.scale)


def _bytes(rows, width, scale):
    return sum(map(math.prod, sampler.store_shapes(rows, width, scale)))


def hr_sizes(store: sampler.Store | HostStore) -> list[tuple[int, int]]:
    """Returns (height, width) of every image, in HR pixels."""
    if isinstance(store, HostStore):
        scale, sizes = store.scale, store.sizes
    else:
        scale = store.hr.shape[0] // store.lr.shape[0]
        sides = (np.asarray(x) for x in (store.index.height, store.index.width))
        sizes = zip(*sides, strict=True)
    return [(scale * int(h), scale * int(w)) for h, w in sizes]


def cut(
    store: HostStore,
    drawn: sampler.Draw,
    side: int,
    target: int,
    rows: slice,
    candidates: int = 1,
    margin: int = 0,
) -> sampler.Patches:
    """Cuts some rows of a batch, as NumPy; otherwise as `sampler.cut`.

    Args:
      store: what to cut from.
      drawn: of the whole batch, `candidates` for each row of it.
      side, target: pixels a side, of LR and of HR patches.
      rows: of the batch, which ones to cut.
      candidates: see `sampler.batch`.
      margin: LR pixels around a patch, as of `sampler.cut`.
    """
    begin, end, _ = rows.indices(len(drawn.image) // candidates)
    mine = slice(candidates * begin, candidates * end)
    drawn = sampler.Draw(*(field[mine] for field in drawn))
    if candidates > 1:
        lr = _squares(store, 1, drawn, 0, side)
        drawn = sampler.most_detailed(drawn, lr, candidates, store.scale, target)
    lr = _squares(store, 1, drawn, -margin, side + 2 * margin)
    border = (store.scale * side - target) // 2
    hr = _squares(store, store.scale, drawn, border, target)
    return sampler.Patches(lr, hr, drawn.turn)


def _squares(store, scale, drawn, border, side):
    places = zip(drawn.image, drawn.top, drawn.left, strict=True)
    return np.stack([_square(store, scale, *place, border, side) for place in places])


def _square(store, scale, image, top, left, border, side):
    h, w = store.sizes[image]
    start = scale**2 * store.starts[image]
    whole = (store.lr if scale == 1 else store.hr)[start : start + 3 * scale**2 * h * w]
    whole = whole.reshape(scale * h, scale * w, 3)
    top, left = scale * top + border, scale * left + border
    if border >= 0:
        return whole[top : top + side, left : left + side]
    places = np.arange(side)
    rows = symmetric(top + places, scale * h)
    return whole[rows[:, None], symmetric(left + places, scale * w)]
