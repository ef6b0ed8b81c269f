"""What the environment says of the processes of a run. Loads no JAX."""

from collections.abc import Mapping


def announced(env: Mapping[str, str]) -> str:
    """Returns what in the environment says that this is one process of several.

    "" if nothing does. A Slurm allocation alone does not count: a Slurm step of several
    tasks does.
    """
    if "JAX_COORDINATOR_ADDRESS" in env:
        return "JAX_COORDINATOR_ADDRESS"
    if {"SLURM_STEP_NODELIST", "SLURM_PROCID"} <= env.keys():
        return "Slurm" if int(env.get("SLURM_NTASKS", "1")) > 1 else ""
    if "," in env.get("TPU_WORKER_HOSTNAMES", ""):
        return "TPU_WORKER_HOSTNAMES"
    return ""


def place(env: Mapping[str, str]) -> tuple[str, str, str]:
    """Returns (address, process, count), as the environment tells, for messages."""
    address = env.get("JAX_COORDINATOR_ADDRESS") or env.get("SLURM_STEP_NODELIST")
    return (
        address or env.get("TPU_WORKER_HOSTNAMES") or "the coordinator",
        env.get("JAX_PROCESS_ID")
        or env.get("SLURM_PROCID")
        or env.get("TPU_WORKER_ID", "?"),
        env.get("JAX_NUM_PROCESSES") or env.get("SLURM_NTASKS", "?"),
    )
