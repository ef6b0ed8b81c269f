"""Devices and hosts: one mesh with one axis, `data`.

Parameters are replicated (0.9 M of them), batches are split along the axis; what must
be summed over devices follows from the mean over the batch.
"""

import math
import os

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

# Multiplies as fast as the machine's matrix products allow (DESIGN.md, choice 9). An
# unknown flag would abort the process, hence only versions that were tried.
CPU_FLAG = "--xla_cpu_experimental_ynn_fusion_type=individual_dot"
CPU_FLAG_VERSIONS = ("0.10.2",)


def make_mesh(devices: list | None = None) -> Mesh:
    """A mesh over these devices; by default over all of all hosts."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh(
        (len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """The same value on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The leading axis divided over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def platform(mesh: Mesh) -> str:
    """What `ops` is asked for: "cpu" or "plain"."""
    return "cpu" if mesh.devices.flat[0].platform == "cpu" else "plain"


def prepare(batch_size: int) -> str:
    """Settings of a process that are to be made before the first use of a device; says
    in a line what was set. Only entry points call this.

    Without an accelerator, as many CPU devices as there are cores (and as divide the
    batch) compute a part of the batch each: small batches suit the caches.
    """
    platforms = os.environ.get("JAX_PLATFORMS", "")
    flags = os.environ.get("XLA_FLAGS", "")
    if "host_platform_device_count" in flags:
        return "CPU devices as XLA_FLAGS says"
    if jax.__version__ in CPU_FLAG_VERSIONS and CPU_FLAG.split("=")[0] not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {CPU_FLAG}".strip()
    if platforms in ("", "cpu"):
        jax.config.update("jax_num_cpu_devices", math.gcd(os.cpu_count(), batch_size))
    if jax.default_backend() != "cpu":
        return f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    return f"{jax.device_count()} CPU devices"
