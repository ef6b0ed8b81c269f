"""Tiles: how much is computed at once, and an image cut into them and put together.

The network is VALID, so a tile with `halo` real pixels around it gives the very pixels
of the whole image. Hence images of any size need few shapes of tiles, and show no
seams. What computes the tiles is a `TileRuntime`; nothing here loads JAX.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from btsrn_jax import resize
from btsrn_jax.progress import logger

# The highest value of a dtype; floats are neither rounded nor clipped.
LEVELS = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535, np.dtype(np.float32): 1}
VIEWS = 8  # flips and rotations of the self-ensemble
SMALLEST_TILE = 16  # below, halos are nearly all of the work
LARGEST_GROUP = 8  # tiles or views at once on one accelerator; more is no faster


class Plan(NamedTuple):
    """How much is computed at once.

    One call takes `batch` tiles, each of which contributes `tile` LR pixels a side, or
    fewer where an image needs no more. A device computes `group` tiles, or views of
    tiles, at a time.
    """

    tile: int
    group: int
    batch: int


class Network(NamedTuple):
    """What a plan has to know of a network, as one of `network.build` says it, too."""

    scale: int
    halo: int
    features: int
    bottleneck: int


class OutOfMemory(Exception):
    """A runtime did not get the memory for a batch of tiles."""


class TileRuntime(Protocol):
    """Computes tiles: JAX, or another runtime."""

    scale: int
    """How many times larger the output is."""

    halo: int
    """The pixels around a tile that are cut out with it."""

    plan: Plan
    """How much is computed at once; less after `make_smaller`."""

    step: int
    """Sides of tiles are multiples of it, so that few shapes occur; 0 for tiles of the
    plan's size alone."""

    square: bool
    """True if tiles have to be square."""

    def finish(self, begun: Any) -> np.ndarray:
        """Returns the tiles (n, s h, s w, 3) that `start` has begun, or more; raises
        OutOfMemory where there was not enough of it."""
        ...

    def make_smaller(self, side: int) -> None:
        """Changes the plan after tiles of `side` pixels did not fit the memory. Raises
        MemoryError where tiles get no smaller."""
        ...


def plan(
    model: Any,
    devices: int,
    memory: float,
    tile: int = 128,
    ensemble: bool = False,
    largest_group: int = 1,
) -> Plan:
    """Returns the largest plan that fits the memory. Measures nothing.

    Args:
      model: a network of `network.build`, or a `Network`.
      devices: how many there are.
      memory: bytes for the activations on each device.
      tile: LR pixels a side, the most that is wanted. Less is taken if not even one
        tile fits, down to `SMALLEST_TILE`.
      ensemble: whether each tile is computed in eight views.
      largest_group: the most tiles or views that a device takes at once. On a CPU the
        caches are the bottleneck, not memory: one tile at a time is fastest.
    """
    while unit_bytes(model, tile) > memory and tile > SMALLEST_TILE:
        tile = max(SMALLEST_TILE, tile // 2)
    group = 1
    while 2 * group <= min(largest_group, memory / unit_bytes(model, tile)):
        group *= 2
    return _plan(tile, group, devices, ensemble)


def smaller(
    too_large: Plan, devices: int, ensemble: bool, side: int | None = None
) -> Plan:
    """Returns a plan that takes half as much memory; arguments as of `plan`.

    Args:
      side: of the tiles that were too large, if less than the plan's.

    Raises MemoryError where one tile at a time is as small as tiles get.
    """
    tile, group, _ = too_large
    if group > 1:
        return _plan(tile, group // 2, devices, ensemble)
    tile = min(tile, side or tile)
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


def tile_size(h: int, w: int, runtime: TileRuntime) -> tuple[int, int]:
    """Returns the (height, width) of the tiles for an image of h x w LR pixels: that of
    the least work among the shapes that a runtime takes."""
    (most, _, batch), step, halo = runtime.plan, runtime.step, runtime.halo
    if not step:
        return most, most

    def shares(length):
        """The sides of the fewest tiles that cover a length, and of a few more."""
        least = -(-length // most)
        parts = (-(-length // count) for count in range(least, least + 4))
        return [min(most, -(-part // step) * step) for part in parts]

    def work(shape):
        tall, wide = shape
        tiles = -(-h // tall) * -(-w // wide)
        # Layers after the upsampling see hardly any of the halo.
        return -(-tiles // batch) * batch * (tall + halo) * (wide + halo)

    if runtime.square:
        return min(
            ((side, side) for side in (most, *range(step, most, step))), key=work
        )
    return min(itertools.product(shares(h), shares(w)), key=work)


def upscale_image(
    runtime: TileRuntime,
    lr: np.ndarray,
    start: Callable[[np.ndarray], Any],
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Upscales one image, tile by tile.

    Args:
      runtime: what computes the tiles.
      lr: (h, w, 3) uint8, uint16, or float32 in [0, 1].
      start: start(tiles) begins to compute (n, h + 2 halo, w + 2 halo, 3) of the dtype
        of `lr`, n being the plan's batch or, at the end of an image, less. What it
        returns is given to `runtime.finish`.
      progress: progress(done, total) is called with LR pixels.

    Returns:
      (s h, s w, 3) of the dtype of `lr`.

    Raises MemoryError where the output or not even a small tile can be held.
    """
    s, (h, w, _) = runtime.scale, lr.shape
    sr = np.empty((s * h, s * w, 3), lr.dtype)
    done = 0
    while True:
        size = tile_size(h, w, runtime)
        try:
            for filled in _fill(runtime, size, lr, sr, start, done, progress):
                done = filled
            return sr
        except OutOfMemory:
            runtime.make_smaller(max(size))
            tile, group, _ = runtime.plan
            many = f"{group} tiles of {tile} pixels at a time"
            logger.warning(
                "out of memory on the device: going on with %s",
                many if group > 1 else f"tiles of {tile} pixels",
            )
        # Smaller groups go on with the same tiles; other tiles begin anew.
        done = done if tile_size(h, w, runtime) == size else 0


def _fill(runtime, size, lr, sr, start, done, progress) -> Iterator[int]:
    """Fills `sr` batch by batch from tile number `done` on; yields how many tiles are
    in it. One batch may be computed while the last one is copied."""
    (h, w, _), (height, width) = lr.shape, size
    corners = [(y, x) for y in range(0, h, height) for x in range(0, w, width)]
    batch, pending = runtime.plan.batch, None
    for first in [*range(done, len(corners), batch), None]:
        group = [] if first is None else corners[first : first + batch]
        if group:
            begun = start(np.stack([_cut(lr, *at, size, runtime.halo) for at in group]))
        if pending:
            _put(sr, runtime.finish(pending[0]), pending[1], runtime.scale)
            done += len(pending[1])
            y, x = pending[1][-1]
            if progress:
                rest = w - min(w, x + width)
                progress(min(h, y + height) * w - rest * min(height, h - y), h * w)
            yield done
        pending = (begun, group) if group else None


def _cut(lr, y, x, size, halo):
    """A tile and its halo; what lies outside the image is mirrored (SYMMETRIC)."""
    (h, w, _), (height, width) = lr.shape, size
    rows = resize.symmetric(np.arange(y - halo, y + height + halo), h)
    columns = resize.symmetric(np.arange(x - halo, x + width + halo), w)
    return lr[rows[:, None], columns]


def _put(sr, computed, corners, scale):
    for (y, x), image in zip(corners, computed, strict=False):
        h, w, _ = image.shape
        part = sr[scale * y : scale * y + h, scale * x : scale * x + w]
        part[:] = image[: part.shape[0], : part.shape[1]]
