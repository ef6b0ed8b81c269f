"""Devices and hosts: one mesh with one axis, `data`.

Parameters are replicated (0.9 M of them), batches are split along the axis; what must
be summed over devices follows from the mean over the batch.
"""

import importlib.util
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


def describe(mesh: Mesh) -> str:
    """Such as "2 x cpu" or "8 x NVIDIA H100"."""
    return f"{mesh.size} x {mesh.devices.flat[0].device_kind}"


def prepare() -> None:
    """Settings that a process makes before it first uses a device. Only entry points
    call this; what the user has set in the environment stays."""
    flags = os.environ.get("XLA_FLAGS", "")
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms not in ("", "cpu") or (not platforms and _accelerated()):
        return
    if jax.__version__ in CPU_FLAG_VERSIONS and CPU_FLAG.split("=")[0] not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {CPU_FLAG}".strip()


def _accelerated():
    """Whether JAX will find something else than the CPU, asked without waking it."""
    plugins = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm7_plugin", "libtpu")
    return any(importlib.util.find_spec(name) for name in plugins)
