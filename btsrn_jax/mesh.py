"""Devices and hosts: one mesh with one axis, `data`.

Parameters are replicated (there are 0.9 M of them) and batches are split along the
axis. What must be summed over devices follows from the mean over the batch.
"""

import math
import os

import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from btsrn_jax import machine
from btsrn_jax.errors import Failure, first_line

# What XLA leaves to YNNPACK, its fast routines, by the version of JAX. In 0.10 products
# beside the convolutions halve the time of inference; in 0.12 sums and activations too
# save a tenth of training and inference (docs/speed.md). XLA aborts the process at a
# flag it does not know, hence only versions that were tried.
CPU_FLAG = "--xla_cpu_experimental_ynn_fusion_type"
CPU_FUSIONS = {"0.10.2": "individual_dot", "0.12.0.1": "dot,eltwise"}


class NoDevices(Failure):
    """JAX finds no device, or not the kind that JAX_PLATFORMS names."""


def find_devices() -> list[jax.Device]:
    """Returns the devices of all hosts. The first call wakes them.

    Raises:
      NoDevices: there are none of the kinds that were asked for.
    """
    try:
        return jax.devices()
    except jax.errors.JaxRuntimeError:
        raise  # another process is lost
    except (RuntimeError, AssertionError) as error:  # the latter for "cuda" without one
        wanted = os.environ.get("JAX_PLATFORMS")
        kind = f" of JAX_PLATFORMS={wanted!r}" if wanted else ""
        said = f" ({first_line(error)})" if str(error) else ""
        raise NoDevices(
            f"JAX finds no device{kind}{said}. JAX_PLATFORMS=cpu computes on the CPU"
        ) from None


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """Returns a mesh over these devices; by default over all devices of all hosts.

    Of several TPU slices, or hosts with GPUs, one follows the other along the axis.

    Raises:
      NoDevices: as of `find_devices`.
    """
    devices = find_devices() if devices is None else devices
    parts = {}
    for device in devices:
        parts.setdefault(getattr(device, "slice_index", 0), []).append(device)
    # JAX orders the devices of each by their links; its own make_mesh takes one only.
    ordered = [
        mesh_utils.create_device_mesh((len(part),), part)
        for _, part in sorted(parts.items())
    ]
    return Mesh(np.concatenate(ordered), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array that is whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array whose leading axis is divided over devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def platform(mesh: Mesh) -> str:
    """Returns "cpu", or "plain" for accelerators: which operations a network takes."""
    return "cpu" if mesh.devices.flat[0].platform == "cpu" else "plain"


def describe(mesh: Mesh) -> str:
    """Returns the devices in words: "1 x cpu (2 cores)", "8 x NVIDIA H100"."""
    kind = mesh.devices.flat[0].device_kind
    return f"{mesh.size} x {kind}" + f" ({os.cpu_count()} cores)" * (kind == "cpu")


def device_memory(device: jax.Device) -> tuple[float, float]:
    """Returns (total, free) memory of a device, in bytes.

    Devices of a CPU have no memory of their own: `total` is infinite, and `free` is an
    equal share of what the machine has available. Both are infinite for a device that
    is only described, as those of `btsrn info --topology`.
    """
    try:
        stats = device.memory_stats() or {}
    except Exception:  # a described device raises errors of many types
        return math.inf, math.inf
    if "bytes_limit" in stats:
        total = stats["bytes_limit"]
        return total, total - stats.get("bytes_in_use", 0)
    return math.inf, machine.free_memory() / jax.local_device_count()


def prepare() -> None:
    """Sets the XLA flags that have to stand before a process first uses a device.

    Only entry points call this. What the user has set in the environment stays.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if machine.has_accelerator():
        return
    fusions = CPU_FUSIONS.get(jax.__version__)
    if fusions and CPU_FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {CPU_FLAG}={fusions}".strip()


def local() -> Mesh:
    """Returns a mesh over this process's own devices."""
    return make_mesh(jax.local_devices())


def process_count() -> int:
    """Returns how many processes work on this run together."""
    return jax.process_count()


def is_first() -> bool:
    """Returns True in the one process that writes for all."""
    return jax.process_index() == 0


def barrier() -> None:
    """Returns when every process of the run has called it."""
    gather(np.zeros(1, np.uint8))


def gather(values: np.ndarray) -> np.ndarray:
    """Returns the arrays of all processes, (processes, ...); each calls it at once.

    Args:
      values: of the same shape and dtype in every process; a number becomes (1,).
    """
    values = np.atleast_1d(values)
    if jax.process_count() == 1:
        return values[None]
    # As bytes: JAX would make float32 of float64.
    found = multihost_utils.process_allgather(values.reshape(-1).view(np.uint8))
    return np.asarray(found).view(values.dtype).reshape(-1, *values.shape)
