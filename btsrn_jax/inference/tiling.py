"""Tiles and the self-ensemble: functions around `super_resolve`.

The network is VALID, so a tile with `model.halo` real pixels around it gives the very
pixels of the whole image. Hence images of any size need one static tile shape and one
compilation, and show no seams.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from btsrn_jax import images, mesh, network, resize
from btsrn_jax.progress import logger

# The highest value of a dtype; floats are neither rounded nor clipped.
LEVELS = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535, np.dtype(np.float32): 1}
VIEWS = 8  # flips and rotations of the self-ensemble
SMALLEST_TILE = 16  # below, halos are nearly all of the work
LARGEST_GROUP = 8  # tiles or views at once on one device; more is no faster


class Plan(NamedTuple):
    """How much is computed at once.

    One call takes `batch` tiles, each of which contributes `tile` LR pixels a side. A
    device computes `group` tiles, or views of tiles, at a time.
    """

    tile: int
    group: int
    batch: int


def plan(
    model: Any, devices: int, memory: float, tile: int = 128, ensemble: bool = False
) -> Plan:
    """Returns the largest plan that fits the memory. Measures nothing.

    Args:
      model: a network of `network.build`.
      devices: how many there are.
      memory: bytes for the activations on each device.
      tile: LR pixels a side, the most that is wanted. Less is taken if not even one
        tile fits, down to `SMALLEST_TILE`.
      ensemble: whether each tile is computed in eight views.
    """
    while unit_bytes(model, tile) > memory and tile > SMALLEST_TILE:
        tile = max(SMALLEST_TILE, tile // 2)
    # On a CPU the caches are the bottleneck, not memory: one tile at a time is fastest.
    largest = LARGEST_GROUP if model.compute.platform != "cpu" else 1
    group = 1
    while 2 * group <= min(largest, memory / unit_bytes(model, tile)):
        group *= 2
    return _plan(tile, group, devices, ensemble)


def smaller(too_large: Plan, devices: int, ensemble: bool) -> Plan:
    """Returns a plan that takes half as much memory; arguments as of `plan`.

    Raises MemoryError where one tile at a time is as small as tiles get.
    """
    tile, group, _ = too_large
    if group > 1:
        return _plan(tile, group // 2, devices, ensemble)
    if tile > SMALLEST_TILE:
        return _plan(max(SMALLEST_TILE, tile // 2), group, devices, ensemble)
    raise MemoryError(f"not even tiles of {tile} pixels fit the device")


def _plan(tile, group, devices, ensemble):
    """The fewest tiles whose views divide evenly over groups and devices."""
    views = VIEWS if ensemble else 1
    return Plan(tile, group, math.lcm(group * devices, views) // views)


def unit_bytes(model: Any, tile: int) -> float:
    """Returns the bytes that one tile, or one view of it, needs on a device: an upper
    bound on the HR activations of full width that are alive at once."""
    width = model.features + model.bottleneck
    side = model.scale * (tile + 2 * model.halo)
    # Convolutions in bfloat16 may still be computed in float32.
    return 4 * 5 * width * side**2


def upscale_tiles(
    model: Any,
    variables: Mapping,
    tiles: jax.Array,
    ensemble: bool,
    devices: Mesh,
    group: int,
) -> jax.Array:
    """Super-resolves square tiles, halos included, on all devices.

    Args:
      model: a network of `network.build`.
      variables: its parameters, and batch statistics if it has any.
      tiles: (B, t + 2 halo, t + 2 halo, 3) uint8, uint16, or float32 in [0, 1].
      ensemble: whether to average the eight flips and rotations (paper, Sec. 4). They
        are one more axis of the call, and divide over the devices as the tiles do.
      devices: a mesh, over whose devices the tiles (times eight) divide evenly.
      group: how many tiles or views one device computes at once. It divides the
        device's share of them.

    Returns:
      (B, s t, s t, 3) of the dtype of `tiles`; averaged in float32, rounded once.
    """
    share = jax.shard_map(
        functools.partial(_upscale_share, model, group),
        mesh=devices,
        in_specs=(PartitionSpec(), PartitionSpec("data")),
        out_specs=PartitionSpec("data"),
    )
    if ensemble:
        views = jnp.arange(VIEWS)
        # (B, 8, ...): the views of a tile follow each other, so that mostly one device
        # has them all.
        turned = jax.vmap(images.turn, in_axes=(None, 0), out_axes=1)(tiles, views)
        sr = share(variables, turned.reshape(-1, *tiles.shape[1:]))
        # Pixels are gathered before they are added: sums over devices would depend on
        # how many there are.
        sr = jax.lax.with_sharding_constraint(sr, mesh.replicated(devices))
        sr = sr.reshape(len(tiles), VIEWS, *sr.shape[1:])
        sr = jax.vmap(images.turn_back, in_axes=(1, 0))(sr, views).mean(axis=0)
    else:
        sr = share(variables, tiles)
    levels = LEVELS[np.dtype(tiles.dtype)]
    if levels == 1:
        return sr
    return jnp.floor(jnp.clip(sr, 0, 1) * levels + 0.5).astype(tiles.dtype)


def _upscale_share(model, group, variables, tiles):
    """One device's tiles (n, ...), `group` at a time, to float32."""
    side = model.scale * (tiles.shape[1] - 2 * model.halo)
    levels = LEVELS[np.dtype(tiles.dtype)]

    def upscale(tiles):
        lr = tiles.astype(jnp.float32) / levels
        sr, _ = network.super_resolve(model, variables, lr)
        return network.crop(sr, (sr.shape[1] - side) // 2)

    if len(tiles) == group:
        return upscale(tiles)
    sr = jax.lax.map(upscale, tiles.reshape(-1, group, *tiles.shape[1:]))
    return sr.reshape(-1, *sr.shape[2:])


class TiledUpscaler:
    """Upscales images of any size; compiled once for all of them.

    Args:
      model: as of `network.build`; its `compute` says the precision.
      devices: a mesh; tiles, and the views of an ensemble, divide over its devices.
      plan: how much is computed at once. A smaller one takes its place where a device
        runs out of memory; the logger "btsrn" says so.
      ensemble: whether to average the eight flips and rotations.
    """

    def __init__(
        self, model: Any, devices: Mesh, plan: Plan, ensemble: bool = False
    ) -> None:
        self.model, self.devices, self.ensemble = model, devices, ensemble
        self.plan = plan
        self.compiled = self._compiled()

    def _compiled(self):
        """The jitted call for the present plan."""
        function = functools.partial(
            upscale_tiles,
            self.model,
            ensemble=self.ensemble,
            devices=self.devices,
            group=self.plan.group,
        )
        everywhere = mesh.replicated(self.devices)
        return jax.jit(function, in_shardings=everywhere, out_shardings=everywhere)

    def __call__(
        self,
        variables: Mapping,
        lr: np.ndarray,
        progress: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """Upscales one image.

        Args:
          variables: of the network, as of `network.init`.
          lr: (h, w, 3) uint8, uint16, or float32 in [0, 1].
          progress: progress(done, total) is called with LR pixels.

        Returns:
          (s h, s w, 3) of the dtype of `lr`.

        Raises MemoryError where the output or not even a small tile can be held.
        """
        s = self.model.scale
        sr = np.empty((s * lr.shape[0], s * lr.shape[1], 3), lr.dtype)
        variables = jax.device_put(variables, mesh.replicated(self.devices))
        done = 0
        while True:
            tile = self.plan.tile
            try:
                for filled in self._tiles(variables, lr, sr, done, progress):
                    done = filled
                return sr
            except jax.errors.JaxRuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                self._make_smaller()
            # Smaller groups go on with the same tiles; other tiles begin anew.
            done = done if self.plan.tile == tile else 0

    def _tiles(self, variables, lr, sr, done, progress) -> Iterator[int]:
        """Fills `sr` batch by batch from tile number `done` on; yields how many tiles
        are in it. One batch is computed while the last one is copied."""
        (h, w, _), (tile, _, batch) = lr.shape, self.plan
        corners = [(y, x) for y in range(0, h, tile) for x in range(0, w, tile)]
        pending = None
        for start in [*range(done, len(corners), batch), None]:
            group = [] if start is None else corners[start : start + batch]
            if group:
                tiles = np.stack([self._cut(lr, *corner) for corner in group])
                missing = ((0, batch - len(group)), (0, 0), (0, 0), (0, 0))
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
        rows = resize.symmetric(np.arange(y - halo, y + self.plan.tile + halo), h)
        columns = resize.symmetric(np.arange(x - halo, x + self.plan.tile + halo), w)
        return lr[rows[:, None], columns]

    def _put(self, sr, computed, corners):
        s, t = self.model.scale, self.model.scale * self.plan.tile
        # Wait, so that running out of memory is raised here: on a CPU np.asarray would
        # end the process.
        jax.block_until_ready(computed)
        for (y, x), image in zip(corners, np.asarray(computed), strict=False):
            part = sr[s * y : s * y + t, s * x : s * x + t]
            part[:] = image[: part.shape[0], : part.shape[1]]

    def _make_smaller(self):
        """After a device ran out of memory: half as much at once from now on."""
        self.plan = smaller(self.plan, self.devices.size, self.ensemble)
        tile, group, _ = self.plan
        many = f"{group} tiles of {tile} pixels at a time"
        logger.warning(
            "out of memory on the device: going on with %s",
            many if group > 1 else f"tiles of {tile} pixels",
        )
        self.compiled = self._compiled()


def free_memory(devices: Mesh) -> float:
    """Returns the bytes that are free on each device of a mesh. CPU devices share what
    the machine has."""
    local = [d for d in devices.devices.flat if d.process_index == jax.process_index()]
    return mesh.device_memory(local[0])[1]


def _is_out_of_memory(error):
    # The last is how a CPU's convolution says that it got no memory for itself.
    signs = ("RESOURCE_EXHAUSTED", "ut of memory", "YNNPACK operation failed")
    return any(sign in str(error) for sign in signs)


def tiled_upscaler(config: Mapping, devices: Mesh, ensemble: bool) -> TiledUpscaler:
    """Returns a `TiledUpscaler` for a config, planned for the memory of the devices.

    Args:
      config: `scale`, `model` and, where there is one, `eval`: its `tile`, `dtype` and
        `memory_gb` (of 1e9 bytes; 0: half of what is free).
      devices: a mesh, over whose devices the tiles divide.
      ensemble: whether to average the eight flips and rotations.
    """
    settings = config.get("eval", {})
    dtype = jnp.dtype(settings.get("dtype", "float32"))
    # Else the devices would choose TF32 or bfloat16 for float32.
    exact = jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None
    compute = network.Compute(dtype, mesh.platform(devices), exact)
    model = network.build(config["model"], config["scale"], compute)
    memory = settings.get("memory_gb", 0) * 1e9 or free_memory(devices) / 2
    tile = settings.get("tile", 128)
    chosen = plan(model, devices.size, memory, tile, ensemble)
    return TiledUpscaler(model, devices, chosen, ensemble)
