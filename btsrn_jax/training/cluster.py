"""What the environment says of the processes of a run. Loads no JAX."""

from collections.abc import Mapping
from typing import NamedTuple

from btsrn_jax.errors import InputError

SLICES = "MEGASCALE_NUM_SLICES"  # TPU slices that work on one run over the network
HOSTS = "TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES"  # of one slice, by commas


class Launcher(NamedTuple):
    """The variables by which a launcher tells each process its place."""

    name: str
    """The launcher, as people know it."""

    count: str
    """How many processes there are."""

    process: str
    """The number of this one among them."""

    local: str
    """Its number among those of its host: the number of its GPU."""

    needs: tuple[str, ...] = ()
    """What else has to be there: the other variables may be left from elsewhere."""


# The first that tells of several processes counts. MPI comes before Slurm: within a
# Slurm job `mpirun` starts daemons by `srun`, and its processes inherit their place.
LAUNCHERS = (
    Launcher(
        "Open MPI",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_LOCAL_RANK",
    ),
    Launcher(
        "MVAPICH",
        "MV2_COMM_WORLD_SIZE",
        "MV2_COMM_WORLD_RANK",
        "MV2_COMM_WORLD_LOCAL_RANK",
    ),
    Launcher("MPI", "PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID"),
    Launcher(
        "Slurm",
        "SLURM_NTASKS",
        "SLURM_PROCID",
        "SLURM_LOCALID",
        # An allocation alone does not count: a step of it does.
        needs=("SLURM_STEP_NODELIST", "SLURM_PROCID"),
    ),
    Launcher("torchrun", "WORLD_SIZE", "RANK", "LOCAL_RANK", needs=("RANK",)),
)


class Place(NamedTuple):
    """Where a process belongs, as far as the environment tells."""

    process: int | None
    """The number of this process."""

    count: int | None
    """How many there are."""

    local: int | None
    """The number of this process on its host, where the launcher says so."""


def announced(env: Mapping[str, str]) -> str:
    """Returns what in the environment says that this is one process of several; "" if
    nothing does.

    Raises:
      InputError: a variable that has to be a number is none.
    """
    if "JAX_COORDINATOR_ADDRESS" in env:
        return "JAX_COORDINATOR_ADDRESS"
    if (_number(env, "JAX_NUM_PROCESSES") or 1) > 1:
        return "JAX_NUM_PROCESSES"
    if launcher := _launcher(env):
        return launcher.name
    if (_number(env, SLICES) or 1) > 1:
        return SLICES
    return next((name for name in HOSTS if "," in env.get(name, "")), "")


def place(env: Mapping[str, str]) -> Place:
    """Returns the place of this process: JAX's own variables win over a launcher's.

    Raises:
      InputError: a variable that has to be a number is none.
    """
    if launcher := _launcher(env):
        found = (launcher.process, launcher.count, launcher.local)
        process, count, local = (_number(env, name) for name in found)
    else:
        process, count, local = *_place_on_tpus(env), None
    ours = _number(env, "JAX_PROCESS_ID"), _number(env, "JAX_NUM_PROCESSES")
    process = process if ours[0] is None else ours[0]
    return Place(process, count if ours[1] is None else ours[1], local)


def _place_on_tpus(env):
    """Returns (process, count) as JAX counts the hosts of slices: slice by slice."""
    listed = next((env[name] for name in HOSTS if name in env), None)
    slices = _number(env, SLICES)
    if listed is None and slices is None:
        return None, None
    hosts = len((listed or "").split(","))
    host = _number(env, "TPU_WORKER_ID") if hosts > 1 else 0
    slice_ = _number(env, "MEGASCALE_SLICE_ID") if (slices or 1) > 1 else 0
    known = host is not None and slice_ is not None
    return slice_ * hosts + host if known else None, (slices or 1) * hosts


def how_to_launch(env: Mapping[str, str]) -> str:
    """Returns what to do where processes are announced but cannot find each other."""
    several, (process, count, _) = announced(env), place(env)
    if several in ("", "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES"):
        return (
            "Set JAX_COORDINATOR_ADDRESS (HOST:PORT of process 0), JAX_NUM_PROCESSES"
            " and JAX_PROCESS_ID, or start by Slurm, by Open MPI 4 or on TPUs"
        )
    launcher = _launcher(env)
    variable = launcher.count if launcher else several
    address = "JAX_COORDINATOR_ADDRESS=HOST:PORT"
    which = f"process {process} of {count}"
    if process is None:
        which = f"one of {count} processes"
        address += ", JAX_NUM_PROCESSES and JAX_PROCESS_ID"
    return (
        f"This is {which} by {variable}, and nothing says where process 0 is. Set"
        f" {address} in all of them, HOST being that of process 0; or unset {variable}"
        " to train alone"
    )


def address(env: Mapping[str, str]) -> str:
    """Returns where the processes meet, in words for messages."""
    names = ("JAX_COORDINATOR_ADDRESS", "SLURM_STEP_NODELIST")
    names += ("MEGASCALE_COORDINATOR_ADDRESS", *HOSTS)
    return next((env[name] for name in names if env.get(name)), "the coordinator")


def _launcher(env):
    for launcher in LAUNCHERS:
        known = {launcher.count, *launcher.needs} <= env.keys()
        if known and (_number(env, launcher.count) or 1) > 1:
            return launcher
    return None


def _number(env, name):
    """Returns a variable as a whole number; None where it is not set, or empty."""
    text = env.get(name, "").strip()
    if not text:
        return None
    if not text.isdecimal():
        raise InputError(f"{name} is {text!r} in the environment: a whole number")
    return int(text)
