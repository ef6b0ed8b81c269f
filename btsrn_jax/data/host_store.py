"""Images that do not fit on a device: raw uint8 files, mapped into memory.

The same batches as from the device store: indices come from the same `sampler.draw`,
and only the squares travel to the device, a few steps ahead of their use.
"""

import hashlib
import json
import math
import os
import pathlib
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from btsrn_jax import images, mesh
from btsrn_jax.data import datasets, sampler

AHEAD = 4  # batches that lie ready
SHARE = 0.6  # of a device's memory that a store may take


class HostStore(NamedTuple):
    """Images one after the other. lr, hr: flat uint8, mapped; sizes: (images, 2) of LR
    height and width; starts: (images,) where each begins in `lr`."""

    lr: np.ndarray
    hr: np.ndarray
    sizes: np.ndarray
    starts: np.ndarray
    scale: int


def device_limit() -> int:
    """Bytes that a store may take on every device, the least of all processes. Devices
    of a CPU share the machine's memory, and each holds a copy."""
    devices = jax.local_devices()
    limit = min(mesh.device_memory(device)[1] for device in devices)
    if devices[0].platform == "cpu":  # where it is put together, too
        limit *= len(devices) / (1 + len(devices))
    return int(mesh.gather(np.int64(SHARE * limit)).min())


def gather(
    loaded: Iterable[tuple], scale: int, cache: str, limit: int, folder: pathlib.Path
) -> sampler.Store | HostStore:
    """Puts (lr, hr) pairs into a store as they come.

    Args:
      loaded: as of `datasets.load_training`.
      scale: of the pairs.
      cache: device, host, or auto: device as long as it takes `limit` bytes at most.
      limit: see `device_limit`.
      folder: where a host store is to lie.
    """
    pairs, rows, width, writer = [], 0, 0, None
    with tempfile.TemporaryDirectory(dir=_made(folder.parent)) as temporary:
        for pair in loaded:
            rows, width = rows + pair[0].shape[0], max(width, pair[0].shape[1])
            size = _bytes(rows, width, scale)
            if writer is None and (
                cache == "host" or (cache == "auto" and size > limit)
            ):
                writer = _Writer(pathlib.Path(temporary))
            pairs.append(pair)
            if writer:
                for lr, hr in pairs:
                    writer.add(lr, hr)
                pairs = []
        if writer is None:
            return sampler.make_store(pairs, scale)
        writer.close()
        made = pathlib.Path(temporary) / "made"
        try:
            made.rename(folder)
        except OSError:
            if not folder.exists():  # else another process was faster
                raise
    return open_store(folder, scale)


class _Writer:
    """Appends images to a store's files; its index comes last."""

    def __init__(self, parent):
        self.folder = parent / "made"
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
    """Maps a store that was made before; None where there is none, or it is broken."""
    try:
        sizes = np.array(json.loads((folder / "index.json").read_text())["sizes"])
        lr = np.memmap(folder / "lr.u8", np.uint8, "r")
        hr = np.memmap(folder / "hr.u8", np.uint8, "r")
    except (OSError, ValueError, KeyError):
        return None
    lengths = 3 * sizes[:, 0] * sizes[:, 1]
    if lr.size != lengths.sum() or hr.size != scale**2 * lengths.sum():
        return None
    return HostStore(lr, hr, sizes, np.cumsum(lengths) - lengths, scale)


def folder_for(config: ConfigDict, names: list[str]) -> pathlib.Path:
    """Where a config's host store lies: below the cache folder, by what it holds."""
    data = config.data
    what = [
        config.scale,
        data.source,
        data.track,
        data.split,
        os.path.abspath(data.root),
    ]
    for folder in filter(None, (data.hr_dir, data.lr_dir)):
        for path in images.find_images(pathlib.Path(folder)):
            status = path.stat()
            what.append([str(path.resolve()), status.st_size, status.st_mtime_ns])
    digest = hashlib.sha256(json.dumps([what, names]).encode()).hexdigest()
    return datasets.cache_dir() / f"raw_x{config.scale}" / digest


def discard(folder: pathlib.Path, store: HostStore | None) -> None:
    """Removes what `open_store` called broken."""
    if store is None:
        shutil.rmtree(folder, ignore_errors=True)


def size_on_device(store: sampler.Store | HostStore) -> int:
    """Bytes that the images take as a `sampler.Store`."""
    if isinstance(store, sampler.Store):
        return store.lr.nbytes + store.hr.nbytes
    rows, width = store.sizes[:, 0].sum(), store.sizes[:, 1].max()
    return _bytes(rows, width, store.scale)


def _bytes(rows, width, scale):
    return sum(map(math.prod, sampler.store_shapes(rows, width, scale)))


def hr_sizes(store: sampler.Store | HostStore) -> list[tuple[int, int]]:
    """(height, width) in HR pixels of every image."""
    if isinstance(store, HostStore):
        scale, sizes = store.scale, store.sizes
    else:
        scale = store.hr.shape[0] // store.lr.shape[0]
        sizes = zip(store.index.height, store.index.width, strict=True)
    return [(scale * int(h), scale * int(w)) for h, w in sizes]


def _made(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def cut(
    store: HostStore,
    drawn: sampler.Draw,
    side: int,
    target: int,
    rows: slice,
    candidates: int = 1,
) -> sampler.Patches:
    """As `sampler.cut`, of some rows of the batch, as NumPy. drawn: of the whole batch;
    candidates: see `sampler.batch`."""
    begin, end, _ = rows.indices(len(drawn.image) // candidates)
    mine = slice(candidates * begin, candidates * end)
    drawn = sampler.Draw(*(field[mine] for field in drawn))
    if candidates > 1:
        lr = _squares(store, 1, drawn, 0, side)
        drawn = sampler.most_detailed(drawn, lr, candidates, store.scale, target)
    lr = _squares(store, 1, drawn, 0, side)
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
    return whole[top : top + side, left : left + side]


class Feeder:
    """feeder(step) -> sampler.Patches of that step on the mesh, for steps in order from
    `start`. A thread works ahead.

    Each process cuts the rows of the batch that its own devices hold.
    """

    def __init__(self, store: HostStore, recipe, devices, start: int, last: int):
        self._waited, self._since = 0.0, time.monotonic()
        self._ready = queue.Queue(AHEAD)
        self._stop = threading.Event()
        work = (self._patches(store, recipe, devices, s) for s in range(start, last))
        self._thread = threading.Thread(target=self._fill, args=(work,), daemon=True)
        self._thread.start()

    def __call__(self, step: int) -> sampler.Patches:
        begun = time.monotonic()
        item = self._ready.get()
        self._waited += time.monotonic() - begun
        if isinstance(item, Exception):
            raise item
        return item

    def share_waited(self) -> float:
        """The share of the time since the last call that steps waited for patches."""
        now = time.monotonic()
        share = self._waited / (now - self._since)
        self._waited, self._since = 0.0, now
        return share

    def close(self) -> None:
        """Ends the thread."""
        self._stop.set()
        while self._thread.is_alive():
            try:
                self._ready.get(timeout=0.05)
            except queue.Empty:
                continue

    def _fill(self, work: Iterator):
        try:
            for patches in work:
                self._ready.put(patches)
                if self._stop.is_set():
                    return
        except Exception as error:  # told to the main thread, which raises it
            self._ready.put(error)

    @staticmethod
    def _patches(store, recipe, devices, step):
        r = recipe
        n, k = r.batch_size, r.candidates
        drawn = draw_on_host(store, r.seed, step, k * n, r.side)
        parts = {}  # a device asks for lr, hr and turn of the same rows

        def rows(index, field):
            part = index[0]
            key = part.start, part.stop
            if key not in parts:
                parts[key] = cut(store, drawn, r.side, r.target, part, k)
            return parts[key][field]

        shapes = (n, r.side, r.side, 3), (n, r.target, r.target, 3), (n,)
        sharding = mesh.split(devices)
        return sampler.Patches(
            *(
                jax.make_array_from_callback(shape, sharding, lambda i, f=f: rows(i, f))
                for f, shape in enumerate(shapes)
            )
        )


def draw_on_host(store: HostStore, seed: int, step: int, batch_size: int, side: int):
    """`sampler.draw` as NumPy, computed by the CPU where JAX has one."""
    index = sampler.make_index(store.sizes[:, 0], store.sizes[:, 1])
    try:
        device = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves it out; the bits are the same anywhere
        device = jax.local_devices()[0]
    with jax.default_device(device):
        drawn = _DRAW(index, seed, step, batch_size, side)
    return sampler.Draw(*map(np.asarray, drawn))


_DRAW = jax.jit(sampler.draw, static_argnums=(1, 3, 4))
