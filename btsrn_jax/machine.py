"""What this machine has: an accelerator, free memory, a folder for caches.

Nothing is woken for the answers, and no JAX is loaded.
"""

import contextlib
import glob
import hashlib
import importlib.util
import os
import pathlib
import platform
import sys

from btsrn_jax import storage
from btsrn_jax.errors import InputError

# The packages by which JAX reaches an accelerator, and the device nodes of its kind.
ACCELERATORS = (
    (
        ("jax_cuda12_plugin", "jax_cuda13_plugin"),
        ("nvidia[0-9]*", "nvgpu*", "nvhost-gpu", "dxg"),  # dxg: WSL
    ),
    (("jax_rocm60_plugin", "jax_rocm7_plugin"), ("kfd",)),
    # libtpu alone is no sign: `btsrn info --topology` uses it where there is no TPU.
    (("libtpu",), ("accel[0-9]*", "vfio/[0-9]*")),
)


def has_accelerator(devices: str | os.PathLike = "/dev") -> bool:
    """Returns True where JAX will compute on more than the CPU, or was told to.

    JAX_PLATFORMS decides if it is set, by the first platform that it names. Otherwise
    both a package of ACCELERATORS and a device node of its kind have to be there.

    Args:
      devices: the folder of device nodes.
    """
    named = os.environ.get("JAX_PLATFORMS", "").split(",")[0].strip()
    if named:
        return named != "cpu"
    return any(
        any(glob.glob(os.path.join(glob.escape(devices), node)) for node in nodes)
        and any(importlib.util.find_spec(name) for name in packages)
        for packages, nodes in ACCELERATORS
    )


def cores() -> int:
    """Returns how many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory() -> float:
    """Returns the bytes of memory that new work can have."""
    try:
        with open("/proc/meminfo") as file:
            fields = dict(line.split(":") for line in file)
        return 1024 * int(fields["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):  # not Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2


def processor_digest() -> str:
    """Returns a name for programs that this user compiled here: another processor,
    which may share the home directory, might not run them."""
    about = [sys.platform, platform.machine(), str(os.getuid())]
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        kinds = ("model", "cpu family", "flags", "Features", "CPU ")
        about += sorted({line for line in file if line.startswith(kinds)})
    return hashlib.sha256("".join(about).encode()).hexdigest()[:16]


def cache_dir() -> pathlib.Path | None:
    """Returns BTSRN_CACHE, or the folder btsrn in XDG_CACHE_HOME or ~/.cache.

    None if there is no home directory: then nothing is cached.

    Raises:
      InputError: one of the variables names a home directory that is not known.
    """
    for name, folder in (("BTSRN_CACHE", ""), ("XDG_CACHE_HOME", "btsrn")):
        if place := os.environ.get(name):
            return storage.local(place) / folder
    try:
        return storage.local("~/.cache/btsrn")
    except InputError:
        return None
