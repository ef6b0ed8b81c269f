"""A batch that is computed in parts: on each device one after the other."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec


def in_parts(
    function: Callable, params: Any, batch: tuple, parts: int, divided: NamedSharding
) -> Any:
    """Returns function(params, *batch), computed part by part.

    Only one part's activations are in memory at a time; on a CPU those of a small part
    stay in the caches.

    Args:
      function: a mean over the batch, or a pytree of such means.
      params: its first argument, whole on every device.
      batch: arrays with the batch as their leading axis.
      parts: equal ones, computed one after the other and averaged; each is divided over
        all devices.
      divided: the sharding of the batch.
    """
    if parts == 1:
        return function(params, *batch)

    def share(params, *batch):
        return _one_after_the_other(function, params, batch, parts)

    if divided.mesh.size == 1:
        return share(params, *batch)

    # Each device averages the parts of its own share, and the averages are summed over
    # devices once. Left to itself, XLA would do so after each part.
    def averaged(params, *batch):
        return jax.lax.pmean(share(params, *batch), divided.spec[0])

    whole = PartitionSpec()
    specs = (whole, *(divided.spec for _ in batch))
    return jax.shard_map(
        averaged, mesh=divided.mesh, in_specs=specs, out_specs=whole, check_vma=False
    )(params, *batch)


def _one_after_the_other(function, params, batch, parts):
    batch = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch)
    first = jax.tree.map(lambda x: x[0], batch)
    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype),
        jax.eval_shape(function, params, *first),
    )

    def add(total, part):
        return jax.tree.map(jnp.add, total, function(params, *part)), None

    total, _ = jax.lax.scan(add, zeros, batch)
    return jax.tree.map(lambda x: x / parts, total)
