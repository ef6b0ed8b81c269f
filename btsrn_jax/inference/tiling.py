"""Tiles and the self-ensemble: functions around `super_resolve`.

The network is VALID, so a tile with `halo(model)` real pixels around it gives the very
pixels of the whole image: any size, one static shape, one compilation, no seams.
"""

import functools
import math
import sys
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from tqdm import tqdm

from btsrn_jax import images, mesh, network, resize

# The highest value of a dtype; floats are neither rounded nor clipped.
LEVELS = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535, np.dtype(np.float32): 1}
SMALLEST_TILE = 16  # below, halos are nearly all of the work
LARGEST_GROUP = 8  # tiles or views at once on one device; more is no faster


def enlarge_tiles(
    model, variables: Mapping, tiles: jax.Array, ensemble: bool, devices, group: int
) -> jax.Array:
    """Super-resolves square tiles, halos included, on all devices.

    Args:
      tiles: (B, t + 2 halo, t + 2 halo, 3) uint8, uint16, or float32 in [0, 1].
      ensemble: average the eight flips and rotations (paper, Sec. 4); they are one more
        batch axis of the call, and divide over the devices as the tiles do.
      devices: a mesh, over whose devices the tiles (times eight) divide evenly.
      group: how many are computed at once on one device; divides its share of them.

    Returns:
      (B, s t, s t, 3) of the dtype of `tiles`; averaged in float32, rounded once.
    """
    levels = LEVELS[np.dtype(tiles.dtype)]
    lr = tiles.astype(jnp.float32) / levels
    views = range(8 if ensemble else 1)
    # The views of a tile follow each other: mostly one device has them all.
    units = jnp.stack([images.turn(lr, k) for k in views], axis=1)
    units = units.reshape(-1, *lr.shape[1:])
    share = jax.shard_map(
        functools.partial(_enlarge_share, model, group),
        mesh=devices,
        in_specs=(PartitionSpec(), PartitionSpec("data")),
        out_specs=PartitionSpec("data"),
    )
    sr = share(variables, units)
    sr = sr.reshape(len(lr), len(views), *sr.shape[1:])
    sr = sum(images.turn_back(sr[:, k], k) for k in views) / len(views)
    if levels == 1:
        return sr
    return jnp.floor(jnp.clip(sr, 0, 1) * levels + 0.5).astype(tiles.dtype)


def _enlarge_share(model, group, variables, lr):
    """One device's tiles (n, ...), float32, `group` at a time."""
    side = model.scale * (lr.shape[1] - 2 * model.halo)

    def enlarge(lr):
        sr, _ = network.super_resolve(model, variables, lr)
        return network.crop(sr, (sr.shape[1] - side) // 2)

    if len(lr) == group:
        return enlarge(lr)
    sr = jax.lax.map(enlarge, lr.reshape(-1, group, *lr.shape[1:]))
    return sr.reshape(-1, *sr.shape[2:])


class TiledUpscaler:
    """Enlarges images of any size; compiled once for all of them.

    Args:
      model: as of `model.build`; its `compute` says the precision.
      devices: a mesh; tiles, and the views of an ensemble, divide over its devices.
      tile: LR pixels a side that one tile contributes.
      memory_gb: for the activations on one device, 1e9 bytes; 0: half of what is free.
        More tiles at once, or smaller ones, follow from it.
      log: takes a line for whatever had to be given up for lack of memory.
    """

    def __init__(
        self,
        model,
        devices,
        tile: int = 128,
        ensemble: bool = False,
        memory_gb: float = 0.0,
        log: Callable[[str], None] | None = None,
    ):
        self.model, self.devices, self.ensemble = model, devices, ensemble
        self.log = log or functools.partial(tqdm.write, file=sys.stderr)
        budget = memory_gb * 1e9 or free_memory(devices) / 2
        self.tile = tile
        while unit_bytes(model, self.tile) > budget and self.tile > SMALLEST_TILE:
            self.tile = max(SMALLEST_TILE, self.tile // 2)
        self.group = 1
        # On a CPU, caches are shorter than memory: one tile at a time is fastest.
        largest = LARGEST_GROUP if model.compute.platform != "cpu" else 1
        while 2 * self.group <= min(largest, budget / unit_bytes(model, self.tile)):
            self.group *= 2
        self._prepare()

    def _prepare(self):
        """The jitted call for the present tile and group, and its number of tiles."""
        views = 8 if self.ensemble else 1
        self.batch = math.lcm(self.group * self.devices.size, views) // views
        function = functools.partial(
            enlarge_tiles,
            self.model,
            ensemble=self.ensemble,
            devices=self.devices,
            group=self.group,
        )
        everywhere = mesh.replicated(self.devices)
        self.compiled = jax.jit(
            function, in_shardings=everywhere, out_shardings=everywhere
        )

    def __call__(
        self, variables: Mapping, lr: np.ndarray, progress: Callable | None = None
    ) -> np.ndarray:
        """lr (h, w, 3) uint8, uint16, or float32 in [0, 1] -> (s h, s w, 3), the same
        dtype. progress(done, total) is called with LR pixels.

        Raises MemoryError where not even a small tile, or the output, can be held.
        """
        s = self.model.scale
        sr = np.empty((s * lr.shape[0], s * lr.shape[1], 3), lr.dtype)
        variables = jax.device_put(variables, mesh.replicated(self.devices))
        done = 0  # tiles
        while True:
            tile = self.tile
            try:
                for filled in self._tiles(variables, lr, sr, done, progress):
                    done = filled
                return sr
            except jax.errors.JaxRuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                self._make_smaller()
            done = done if self.tile == tile else 0

    def _tiles(self, variables, lr, sr, done, progress):
        """Fills `sr` batch by batch from tile number `done` on; yields how many tiles
        are in it. One batch is computed while the last one is copied."""
        (h, w, _), tile = lr.shape, self.tile
        corners = [(y, x) for y in range(0, h, tile) for x in range(0, w, tile)]
        pending = None
        for start in [*range(done, len(corners), self.batch), None]:
            group = [] if start is None else corners[start : start + self.batch]
            if group:
                tiles = np.stack([self._cut(lr, *corner) for corner in group])
                missing = ((0, self.batch - len(group)), (0, 0), (0, 0), (0, 0))
                computing = self.compiled(variables, np.pad(tiles, missing))
            if pending:
                self._put(sr, *pending)
                done += len(pending[1])
                y, x = pending[1][-1]
                if progress:
                    rest = w - min(w, x + tile)
                    progress(min(h, y + tile) * w - rest * min(tile, h - y), h * w)
                yield done
            pending = (computing, group) if group else None

    def _cut(self, lr, y, x):
        """A tile and its halo; what lies outside the image is mirrored (SYMMETRIC)."""
        halo, (h, w, _) = self.model.halo, lr.shape
        rows = resize.symmetric(np.arange(y - halo, y + self.tile + halo), h)
        columns = resize.symmetric(np.arange(x - halo, x + self.tile + halo), w)
        return lr[rows[:, None], columns]

    def _put(self, sr, computed, corners):
        s, t = self.model.scale, self.model.scale * self.tile
        # Out of memory is raised here; by np.asarray a CPU's would end the process.
        jax.block_until_ready(computed)
        for (y, x), image in zip(corners, np.asarray(computed), strict=False):
            part = sr[s * y : s * y + t, s * x : s * x + t]
            part[:] = image[: part.shape[0], : part.shape[1]]

    def _make_smaller(self):
        """After a device ran out of memory: half as much at once from now on."""
        if self.group > 1:
            self.group //= 2
            what = f"{self.group} tiles of {self.tile} pixels at a time"
        elif self.tile > SMALLEST_TILE:
            self.tile = max(SMALLEST_TILE, self.tile // 2)
            what = f"tiles of {self.tile} pixels"
        else:
            raise MemoryError(f"not even tiles of {self.tile} pixels fit the device")
        self.log(f"out of memory on the device: going on with {what}")
        self._prepare()


def unit_bytes(model, tile: int) -> float:
    """What one tile, or one view of it, needs on a device, in bytes: as many HR
    activations of full width as are alive at once, from above."""
    width = model.features + model.bottleneck
    side = model.scale * (tile + 2 * model.halo)
    # Convolutions in bfloat16 may still be computed in float32.
    return 4 * 5 * width * side**2


def free_memory(devices) -> float:
    """Bytes free on each device of a mesh; CPU devices share what the machine has."""
    local = [d for d in devices.devices.flat if d.process_index == jax.process_index()]
    return mesh.device_memory(local[0])[1]


def _is_out_of_memory(error):
    # The last is how a CPU's convolution says that it got no memory for itself.
    signs = ("RESOURCE_EXHAUSTED", "ut of memory", "YNNPACK operation failed")
    return any(sign in str(error) for sign in signs)


def tiled_upscaler(config: Mapping, devices, ensemble: bool) -> TiledUpscaler:
    """A `TiledUpscaler` for a config's `scale`, `model` and, where it has one, `eval`.

    float32 means the highest precision; TF32 and bfloat16 would be the devices' own
    choices.
    """
    settings = config.get("eval", {})
    dtype = jnp.dtype(settings.get("dtype", "float32"))
    exact = jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None
    compute = network.Compute(dtype, mesh.platform(devices), exact)
    model = network.build(config["model"], config["scale"], compute)
    limits = {k: settings[k] for k in ("tile", "memory_gb") if k in settings}
    return TiledUpscaler(model, devices, ensemble=ensemble, **limits)


def make_bicubic(scale: int) -> Callable:
    """`--model bicubic`: MATLAB's imresize, as the tables of the field have it."""

    def enlarge(lr: np.ndarray, progress=None) -> np.ndarray:
        if lr.dtype == np.uint16:
            levels = LEVELS[lr.dtype]
            sr = resize.imresize(lr.astype(np.float64), scale)
            return np.floor(sr.clip(0, levels) + 0.5).astype(np.uint16)
        return resize.imresize(lr, scale)

    return enlarge
