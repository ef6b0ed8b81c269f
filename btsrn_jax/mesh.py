"""Devices and hosts: one mesh with one axis, `data`.

Parameters are replicated (0.9 M of them), batches are split along the axis; what must
be summed over devices follows from the mean over the batch.
"""

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
