"""Tiles and the self-ensemble: functions around `super_resolve`.

The network is VALID, so a tile with `halo(model)` real pixels around it gives the very
pixels of the whole image: any size, one static shape, one compilation, no seams.
"""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from btsrn_jax import images, mesh, ops, resize
from btsrn_jax import model as network

# uint8 or uint16 in, the same out.
LEVELS = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}


def enlarge_tiles(model, variables: Mapping, tiles: jax.Array, ensemble: bool):
    """Super-resolves square tiles, halos included.

    Args:
      tiles: (B, t + 2 halo, t + 2 halo, 3) uint8 or uint16.
      ensemble: average the eight flips and rotations (paper, Sec. 4), as an axis of one
        vmapped call.

    Returns:
      (B, s t, s t, 3) of the dtype of `tiles`; averaged in float32, rounded once.
    """
    levels = LEVELS[np.dtype(tiles.dtype)]
    lr = tiles.astype(jnp.float32) / levels
    side = model.scale * (tiles.shape[1] - 2 * network.halo(model))

    def enlarge(view):
        sr, _ = network.super_resolve(model, variables, view)
        return ops.crop(sr, (sr.shape[1] - side) // 2)

    if ensemble:
        views = jnp.stack([images.turn(lr, k) for k in range(8)])
        views = jax.vmap(enlarge)(views)
        sr = sum(images.turn_back(view, k) for k, view in enumerate(views)) / 8
    else:
        sr = enlarge(lr)
    return jnp.floor(jnp.clip(sr, 0, 1) * levels + 0.5).astype(tiles.dtype)


def make_enlarge(
    model,
    devices,
    tile: int = 96,
    ensemble: bool = False,
    memory_gb: float = 0.0,
) -> Callable:
    """A function that enlarges images of any size, compiled once.

    Args:
      model: as of `model.build`; its `compute` says the precision.
      devices: a mesh; tiles divide over its devices.
      tile: LR pixels a side that one tile contributes.
      memory_gb: for the activations of a batch of tiles on one device; 0: 1 GB.

    Returns:
      enlarge(variables, lr, progress=None): lr (h, w, 3) uint8 or uint16 ->
      (s h, s w, 3) of the same dtype. progress(done, total) is called with LR pixels.
    """
    halo = network.halo(model)
    batch = devices.size * _tiles_per_device(model, tile, ensemble, memory_gb)
    compiled = jax.jit(
        functools.partial(enlarge_tiles, model, ensemble=ensemble),
        in_shardings=(mesh.replicated(devices), mesh.split(devices)),
        out_shardings=mesh.split(devices),
    )

    def enlarge(variables: Mapping, lr: np.ndarray, progress=None) -> np.ndarray:
        h, w, _ = lr.shape
        variables = jax.device_put(variables, mesh.replicated(devices))
        corners = [(y, x) for y in range(0, h, tile) for x in range(0, w, tile)]
        s = model.scale
        sr = np.empty((s * h, s * w, 3), lr.dtype)

        def put(done, corners):
            for (y, x), image in zip(corners, np.asarray(done), strict=False):
                part = sr[s * y : s * (y + tile), s * x : s * (x + tile)]
                part[:] = image[: part.shape[0], : part.shape[1]]
            if progress:
                y, x = corners[-1]
                progress(min(h * w, y * w + (x + tile) * min(tile, h - y)), h * w)

        pending = None  # one batch is computed while the last one is copied
        for start in range(0, len(corners), batch):
            group = corners[start : start + batch]
            tiles = np.stack([_tile(lr, *corner, tile, halo) for corner in group])
            missing = batch - len(group)
            tiles = np.pad(tiles, ((0, missing), (0, 0), (0, 0), (0, 0)))
            done = compiled(variables, tiles)
            if pending:
                put(*pending)
            pending = done, group
        put(*pending)
        return sr

    enlarge.compiled = compiled
    return enlarge


def _tile(lr, y, x, tile, halo):
    """A tile and its halo; what lies outside the image is mirrored (SYMMETRIC)."""
    h, w, _ = lr.shape
    rows = resize.symmetric(np.arange(y - halo, y + tile + halo), h)
    columns = resize.symmetric(np.arange(x - halo, x + tile + halo), w)
    return lr[rows[:, None], columns]


def _tiles_per_device(model, tile, ensemble, memory_gb):
    """How many tiles fit: about four full-width HR activations are alive at once."""
    if not memory_gb and model.compute.platform == "cpu":
        return 1  # caches, not memory, are what is short
    bytes_per_tile = 4 * model.features * 4 * (model.scale * (tile + 16)) ** 2
    if ensemble:
        bytes_per_tile *= 8
    return max(1, int((memory_gb or 1.0) * 1e9 / bytes_per_tile))


def enlarge_for(config: Mapping, devices, ensemble: bool) -> Callable:
    """`make_enlarge` for a config's `scale`, `model` and, where it has one, `eval`.

    float32 means the highest precision; TF32 and bfloat16 would be the devices' own
    choices.
    """
    settings = config.get("eval", {})
    dtype = jnp.dtype(settings.get("dtype", "float32"))
    exact = jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None
    compute = network.Compute(dtype, mesh.platform(devices), exact)
    model = network.build(config["model"], config["scale"], compute)
    tile, memory_gb = settings.get("tile", 96), settings.get("memory_gb", 0.0)
    return make_enlarge(model, devices, tile, ensemble, memory_gb)


def make_bicubic(scale: int) -> Callable:
    """`--model bicubic`: MATLAB's imresize, as the tables of the field have it."""

    def enlarge(lr: np.ndarray, progress=None) -> np.ndarray:
        if lr.dtype == np.uint16:
            levels = LEVELS[lr.dtype]
            sr = resize.imresize(lr.astype(np.float64), scale)
            return np.floor(sr.clip(0, levels) + 0.5).astype(np.uint16)
        return resize.imresize(lr, scale)

    return enlarge
