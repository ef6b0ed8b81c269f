"""Devices and hosts: one mesh with one axis, `data`.

Parameters are replicated (0.9 M of them), batches are split along the axis; what must
be summed over devices follows from the mean over the batch.
"""

import glob
import importlib.util
import os
import sys
import threading
from collections.abc import Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from btsrn_jax.errors import InputError

# Multiplies as fast as the machine's matrix products allow. An unknown flag would
# abort the process, hence only versions that were tried.
CPU_FLAG = "--xla_cpu_experimental_ynn_fusion_type=individual_dot"
CPU_FLAG_VERSIONS = ("0.10.2",)

JOIN_SECONDS = 300  # for all processes of a run to find each other
HEARTBEAT_SECONDS = 60  # a process silent for so long is dead: the others end
SHUTDOWN_SECONDS = 86400  # while the first process evaluates, the others wait


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
    """Such as "1 x cpu (2 cores)" or "8 x NVIDIA H100"."""
    kind = mesh.devices.flat[0].device_kind
    return f"{mesh.size} x {kind}" + f" ({os.cpu_count()} cores)" * (kind == "cpu")


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
    """Whether JAX will find something else than the CPU, asked without waking it.
    libtpu is also installed where there is no TPU, for `btsrn info --topology`."""
    plugins = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm7_plugin")
    if any(importlib.util.find_spec(name) for name in plugins):
        return True
    chips = glob.glob("/dev/accel*") + glob.glob("/dev/vfio/[0-9]*")
    return bool(chips) and importlib.util.find_spec("libtpu") is not None


def announced(env: Mapping[str, str]) -> str:
    """What in the environment says that this is one process of several; "" if nothing
    does. An allocation alone does not count: a Slurm step of several tasks does."""
    if "JAX_COORDINATOR_ADDRESS" in env:
        return "JAX_COORDINATOR_ADDRESS"
    if {"SLURM_STEP_NODELIST", "SLURM_PROCID"} <= env.keys():
        return "Slurm" if int(env.get("SLURM_NTASKS", "1")) > 1 else ""
    if "," in env.get("TPU_WORKER_HOSTNAMES", ""):
        return "TPU_WORKER_HOSTNAMES"
    return ""


def start(distributed: bool) -> None:
    """Joins the other processes of a run, where the flag or the environment says that
    there are any. To be called before anything else of JAX.

    BTSRN_JOIN_SECONDS and BTSRN_HEARTBEAT_SECONDS replace the time-outs. One that runs
    out ends the process with a message: JAX itself would abort.
    """
    env = os.environ
    if not (distributed or announced(env)):
        return
    seconds = int(env.get("BTSRN_JOIN_SECONDS", JOIN_SECONDS))
    address, process, count = _place(env)

    def give_up():
        print(
            f"error: process {process} of {count}: the others did not all join at"
            f" {address} within {seconds} s; start all again",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    given = {}
    if "JAX_PROCESS_ID" in env:
        given["process_id"] = int(env["JAX_PROCESS_ID"])
    if "JAX_NUM_PROCESSES" in env:
        given["num_processes"] = int(env["JAX_NUM_PROCESSES"])
    try:
        jax.distributed.initialize(
            **given,
            initialization_timeout=10 * seconds,
            heartbeat_timeout_seconds=int(
                env.get("BTSRN_HEARTBEAT_SECONDS", HEARTBEAT_SECONDS)
            ),
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        )
    except ValueError as error:
        raise InputError(
            f"--distributed: {error} Set JAX_COORDINATOR_ADDRESS (HOST:PORT of process"
            " 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID, or start by Slurm or on TPUs"
        ) from None
    finally:
        timer.cancel()


def _place(env):
    """(address, process, count) as far as the environment tells, for messages."""
    address = env.get("JAX_COORDINATOR_ADDRESS") or env.get("SLURM_STEP_NODELIST")
    return (
        address or env.get("TPU_WORKER_HOSTNAMES") or "the coordinator",
        env.get("JAX_PROCESS_ID")
        or env.get("SLURM_PROCID")
        or env.get("TPU_WORKER_ID", "?"),
        env.get("JAX_NUM_PROCESSES") or env.get("SLURM_NTASKS", "?"),
    )


def local() -> Mesh:
    """A mesh over this process's own devices."""
    return make_mesh(jax.local_devices())


def process_count() -> int:
    """How many processes work on this run together."""
    return jax.process_count()


def is_first() -> bool:
    """Whether this process writes what one process writes for all."""
    return jax.process_index() == 0


def wait_for_first() -> None:
    """Returns when the first process, too, has nothing left to do."""
    jax.distributed.shutdown()


def gather(values: np.ndarray) -> np.ndarray:
    """The arrays (of equal shape and dtype) of all processes: (processes, ...)."""
    values = np.atleast_1d(values)
    if jax.process_count() == 1:
        return values[None]
    # As bytes: JAX would make float32 of float64.
    found = multihost_utils.process_allgather(values.reshape(-1).view(np.uint8))
    return np.asarray(found).view(values.dtype).reshape(-1, *values.shape)
