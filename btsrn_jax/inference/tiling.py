"""Tiles and the self-ensemble on JAX's devices: functions around `super_resolve`."""

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from btsrn_jax import images, mesh, network
from btsrn_jax.inference import cutting
from btsrn_jax.inference.cutting import LARGEST_GROUP, LEVELS, VIEWS, OutOfMemory, Plan

# On a CPU tiles are no larger than an image needs, in so few shapes: each one has to be
# compiled. On an accelerator a compilation takes longer than any tile.
STEP = 32


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
    """Upscales images of any size; compiled once for each shape of tiles.

    Args:
      model: as of `network.build`; its `compute` says the precision.
      devices: a mesh; tiles, and the views of an ensemble, divide over its devices.
      plan: how much is computed at once. A smaller one takes its place where a device
        runs out of memory; the logger "btsrn" says so.
      ensemble: whether to average the eight flips and rotations. Tiles are square then:
        they keep their shape when they are turned.
    """

    def __init__(
        self, model: Any, devices: Mesh, plan: Plan, ensemble: bool = False
    ) -> None:
        self.model, self.devices, self.ensemble = model, devices, ensemble
        self.scale, self.halo = model.scale, model.halo
        self.plan, self.square = plan, ensemble
        self.step = STEP if mesh.platform(devices) == "cpu" else 0
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
        variables = jax.device_put(variables, mesh.replicated(self.devices))

        def start(tiles):
            missing = ((0, self.plan.batch - len(tiles)), (0, 0), (0, 0), (0, 0))
            with _naming_lack_of_memory():
                return self.compiled(variables, np.pad(tiles, missing))

        return cutting.upscale_image(self, lr, start, progress)

    def finish(self, begun: jax.Array) -> np.ndarray:
        """Waits for tiles; raises OutOfMemory where the device had too little."""
        # On a CPU, np.asarray would end the process.
        with _naming_lack_of_memory():
            jax.block_until_ready(begun)
        return np.asarray(begun)

    def make_smaller(self, side: int) -> None:
        """Computes half as much at once from now on, or raises MemoryError."""
        count = self.devices.size
        self.plan = cutting.smaller(self.plan, count, self.ensemble, side)
        self.compiled = self._compiled()


@contextlib.contextmanager
def _naming_lack_of_memory():
    """Raises OutOfMemory in place of JAX's error for that."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        # The last is how a CPU's convolution says that it got no memory for itself.
        signs = ("RESOURCE_EXHAUSTED", "ut of memory", "YNNPACK operation failed")
        if any(sign in str(error) for sign in signs):
            raise OutOfMemory from error
        raise


def free_memory(devices: Mesh) -> float:
    """Returns the bytes that are free on each device of a mesh. CPU devices share what
    the machine has."""
    local = [d for d in devices.devices.flat if d.process_index == jax.process_index()]
    return mesh.device_memory(local[0])[1]


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
    most = 1 if compute.platform == "cpu" else LARGEST_GROUP
    chosen = cutting.plan(model, devices.size, memory, tile, ensemble, most)
    return TiledUpscaler(model, devices, chosen, ensemble)
