"""What a device can compute at most: from a table, or measured by a matrix product."""

import re
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import DTypeLike

from btsrn_jax import mesh

# Dense operations a second of one JAX device, in 1e12, as its maker states them: in
# bfloat16, and of float32 arrays with XLA's own settings. These are TF32 on GPUs, and
# products in bfloat16 on TPUs. The first name that fits a whole `device_kind` counts.
PEAKS = {
    "TPU v4": (275, 275),
    "TPU v5 lite|TPU v5e": (197, 197),
    "TPU v5|TPU v5p": (459, 459),
    "TPU v6 lite|TPU v6e": (918, 918),
    "NVIDIA A100.*": (312, 156),
    "NVIDIA H100 PCIe": (756, 378),
    "NVIDIA H[12]00 NVL": (835, 418),
    "NVIDIA (H100|H200|GH200).*": (989, 495),
    "NVIDIA L4": (121, 60),
}


def stated_peak(kind: str, dtype: DTypeLike) -> float | None:
    """Returns the operations per second that a device's maker states; None for a device
    that is not in the table, and for a part of one (MIG).

    Args:
      kind: its `device_kind`.
      dtype: of the arrays that are multiplied.
    """
    for name, (half, single) in PEAKS.items():
        if re.fullmatch(name, kind) and "MIG" not in kind:
            return 1e12 * (half if jnp.dtype(dtype) == jnp.bfloat16 else single)
    return None


def matmul_rate(dtype: DTypeLike, size: int = 0) -> float:
    """Returns the operations per second of a large matrix product: the most that can be
    hoped for.

    Args:
      dtype: of the matrices.
      size: their side; by default 2048 on a CPU, 8192 elsewhere.
    """
    n = size or (2048 if jax.default_backend() == "cpu" else 8192)
    a = jnp.ones((n, n), dtype)
    product = jax.jit(lambda a: a @ a).lower(a).compile()
    timed(product, a)
    return 2 * n**3 / min(timed(product, a) for _ in range(5))


def timed(function: Callable, *args: Any) -> float:
    """Returns the seconds until the result of a call is there."""
    start = time.perf_counter()
    jax.block_until_ready(function(*args))
    return time.perf_counter() - start


def peak_of(devices: Mesh, dtype: DTypeLike, measure: bool = True) -> float | None:
    """Returns the operations per second of all devices of a mesh; None where they are
    not in the table, and cannot be measured.

    Args:
      devices: the mesh.
      dtype: of the arrays that are multiplied.
      measure: False to go by the table alone; a measurement takes a fraction of a
        second.
    """
    kind = devices.devices.flat[0].device_kind
    if stated := stated_peak(kind, dtype):
        return stated * devices.size
    if not measure:
        return None
    on_cpu = mesh.platform(devices) == "cpu"
    try:
        rate = matmul_rate(dtype, 1024 if on_cpu else 4096)
    except jax.errors.JaxRuntimeError:  # no memory is left
        return None
    # The devices of a CPU share its cores.
    return rate * (mesh.process_count() if on_cpu else devices.size)
