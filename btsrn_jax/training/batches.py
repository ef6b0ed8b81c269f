"""Batches by step, from images on the device or on the host: one interface."""

import logging
from typing import Protocol

import jax
from ml_collections import ConfigDict

from btsrn_jax import mesh
from btsrn_jax.data import Pair, host_store, load_training, sampler
from btsrn_jax.progress import LOGGER
from btsrn_jax.training.step import Recipe


class Batches(Protocol):
    """What the compiled step takes its batch from, step by step."""

    def __call__(self, step: int) -> sampler.Store | sampler.Patches:
        """Returns the data of a step; to be asked for in order."""

    def share_waited(self) -> float | None:
        """Returns the share of the time since the last call that steps waited for
        data; None where they never do."""

    def close(self) -> None:
        """Ends the work ahead."""


class DeviceBatches:
    """Every step cuts its batch from the same store, whole on every device."""

    def __init__(self, store: sampler.Store, devices: jax.sharding.Mesh):
        self._store = jax.device_put(store, mesh.replicated(devices))

    def __call__(self, step: int) -> sampler.Store:
        return self._store

    def share_waited(self) -> None:
        return None

    def close(self) -> None:
        pass


def open_batches(
    store: sampler.Store | host_store.HostStore,
    recipe: Recipe,
    devices: jax.sharding.Mesh,
    start: int,
    last: int,
) -> Batches:
    """Returns the batches of steps `start` to `last` - 1."""
    if isinstance(store, host_store.HostStore):
        return host_store.Feeder(store, recipe, devices, start, last)
    return DeviceBatches(store, devices)


def load_store(
    config: ConfigDict, pairs: list[Pair]
) -> sampler.Store | host_store.HostStore:
    """Decodes the images to where config.data.cache wants them; logs where that is."""
    names = [pair.name for pair in pairs]
    folder, cache = host_store.folder_for(config, names), config.data.cache
    limit = host_store.device_limit()
    store = host_store.open_store(folder, config.scale) if cache != "device" else None
    if store is None or (cache == "auto" and host_store.size_on_device(store) <= limit):
        host_store.discard(folder, store)
        loaded = load_training(pairs, config.scale, config.train.patch)
        store = host_store.gather(loaded, config.scale, cache, limit, folder)
    on_host = isinstance(store, host_store.HostStore)
    size = host_store.size_on_device(store)
    logging.getLogger(LOGGER).info(
        f"images: {size / 1e9:.3g} GB decoded; a device has room for"
        f" {limit / 1e9:.3g} GB (config.data.cache={cache}): kept"
        f" {f'on the host, in {folder}' if on_host else 'on every device'}"
    )
    return store
