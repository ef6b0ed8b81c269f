"""The batches of a run, one interface for images on the devices and on the host."""

import concurrent.futures
import functools
import time
from typing import Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from btsrn_jax import mesh
from btsrn_jax.data import host_store, sampler

AHEAD = 4  # batches that are cut before they are asked for


class PatchRecipe(Protocol):
    """What a recipe of training says about its patches; see `sampler.batch`."""

    seed: int
    batch_size: int
    candidates: int
    side: int
    target: int
    margin: int


class Batches(Protocol):
    """Gives each step what `sampler.batch` takes its patches from."""

    def __call__(self, step: int) -> sampler.Store | sampler.Patches:
        """Returns the source of a step's batch, on the devices."""

    def share_waited(self) -> float | None:
        """Returns the share of the time since the last call that steps had to wait.

        None means that there is nothing to wait for.
        """

    def close(self) -> None:
        """Ends what works in the background."""


def open_batches(
    store: sampler.Store | host_store.HostStore,
    recipe: PatchRecipe,
    devices: Mesh,
    start: int,
    last: int,
) -> Batches:
    """Returns the batches of a store; to be closed after use.

    Args:
      store: as of `load_store`.
      recipe: which patches a step takes.
      devices: the mesh over which a batch is split.
      start: the first step that will be asked for, counted from 0.
      last: the end of the steps; step `last` itself is not cut.
    """
    if isinstance(store, host_store.HostStore):
        return Feeder(store, recipe, devices, start, last)
    return DeviceBatches(store)


class DeviceBatches:
    """Batches of images that lie on every device: the step cuts its own patches."""

    def __init__(self, store: sampler.Store) -> None:
        self._store = store

    def __call__(self, step: int) -> sampler.Store:
        return self._store

    def share_waited(self) -> None:
        return None

    def close(self) -> None:
        pass


class Feeder:
    """Batches of images on the host: a thread cuts patches a few steps ahead.

    Steps have to be asked for in order. Each process cuts the rows of the batch that
    its own devices hold.
    """

    def __init__(
        self,
        store: host_store.HostStore,
        recipe: PatchRecipe,
        devices: Mesh,
        start: int,
        last: int,
    ) -> None:
        self._cut = functools.partial(cut_for_devices, store, recipe, devices)
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "feeder")
        self._steps, self._ready = iter(range(start, last)), {}
        self._waited, self._since = 0.0, time.monotonic()
        for _ in range(AHEAD):
            self._cut_next()

    def _cut_next(self):
        for step in self._steps:
            self._ready[step] = self._thread.submit(self._cut, step)
            return

    def __call__(self, step: int) -> sampler.Patches:
        begun = time.monotonic()
        patches = self._ready.pop(step).result()  # raises what went wrong in the thread
        self._waited += time.monotonic() - begun
        self._cut_next()
        return patches

    def share_waited(self) -> float:
        now = time.monotonic()
        share = self._waited / (now - self._since)
        self._waited, self._since = 0.0, now
        return share

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)


def cut_for_devices(
    store: host_store.HostStore, recipe: PatchRecipe, devices: Mesh, step: int
) -> sampler.Patches:
    """Returns the patches of a step, split over the devices.

    Only the rows that this process's own devices hold are cut.
    """
    n, k = recipe.batch_size, recipe.candidates
    side, target, margin = recipe.side, recipe.target, recipe.margin
    drawn = draw_on_host(store, recipe.seed, step, k * n, side)

    @functools.cache  # a device asks for lr, hr and turn of the same rows
    def cut(start, stop):
        rows = slice(start, stop)
        return host_store.cut(store, drawn, side, target, rows, k, margin)

    def rows(index, field):
        return cut(index[0].start, index[0].stop)[field]

    whole = side + 2 * margin
    shapes = (n, whole, whole, 3), (n, target, target, 3), (n,)
    parts = (
        jax.make_array_from_callback(
            shape, mesh.split(devices), functools.partial(rows, field=field)
        )
        for field, shape in enumerate(shapes)
    )
    return sampler.Patches(*parts)


def draw_on_host(
    store: host_store.HostStore, seed: int, step: int, batch_size: int, side: int
) -> sampler.Draw:
    """Returns `sampler.draw` as NumPy, computed by the CPU where JAX has one."""
    index = sampler.make_index(store.sizes[:, 0], store.sizes[:, 1])
    try:
        device = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves it out; the bits are the same anywhere
        device = jax.local_devices()[0]
    with jax.default_device(device):
        drawn = _DRAW(index, seed, step, batch_size, side)
    return sampler.Draw(*map(np.asarray, drawn))


_DRAW = jax.jit(sampler.draw, static_argnums=(1, 3, 4))
