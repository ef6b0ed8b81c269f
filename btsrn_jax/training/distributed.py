"""Several processes of one run: how they find each other, and how one is lost."""

import os
import threading
from collections.abc import Mapping

import jax

from btsrn_jax import mesh
from btsrn_jax.errors import InputError
from btsrn_jax.progress import log_to_stderr, logger

JOIN_SECONDS = 300  # for all processes of a run to find each other
HEARTBEAT_SECONDS = 60  # a process silent for so long is dead: the others end
SHUTDOWN_SECONDS = 86400  # while the first process evaluates, the others wait
# What JAX's errors say where another process is gone: the coordination service's
# statuses, and the words of the libraries that carry the sums (gloo, NCCL, ICI).
LOST = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "CANCELLED", "Gloo", "NCCL")
LOST += ("onnection", "heartbeat", "another task", "barrier", "slice health")


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


def join(distributed: bool) -> None:
    """Joins the other processes of a run where there are any; sets the log up.

    Has to be called before anything else of JAX. A time-out that runs out ends the
    process with one message, since JAX itself would abort it with a stack of C++.
    BTSRN_JOIN_SECONDS and BTSRN_HEARTBEAT_SECONDS replace the time-outs.

    Args:
      distributed: there are others, also where the environment announces none.

    Raises:
      InputError: nothing says where the others are.
      NoDevices: this process finds no device.
    """
    if distributed or announced(os.environ):
        _initialize(os.environ)
    mesh.find_devices()
    log_to_stderr(jax.process_index(), jax.process_count())


def _initialize(env):
    seconds = int(env.get("BTSRN_JOIN_SECONDS", JOIN_SECONDS))
    address, process, count = _place(env)

    def give_up():
        logger.error(
            f"error: process {process} of {count}: the others did not all join at"
            f" {address} within {seconds} s; start all again"
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
            initialization_timeout=10 * seconds,  # the timer is earlier
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
    """Returns (address, process, count), as the environment tells, for messages."""
    address = env.get("JAX_COORDINATOR_ADDRESS") or env.get("SLURM_STEP_NODELIST")
    return (
        address or env.get("TPU_WORKER_HOSTNAMES") or "the coordinator",
        env.get("JAX_PROCESS_ID")
        or env.get("SLURM_PROCID")
        or env.get("TPU_WORKER_ID", "?"),
        env.get("JAX_NUM_PROCESSES") or env.get("SLURM_NTASKS", "?"),
    )


def lost_another(error: BaseException) -> bool:
    """Returns True for JAX's own errors about another process of the run being gone."""
    is_jaxs = isinstance(error, jax.errors.JaxRuntimeError)
    several = is_jaxs and jax.process_count() > 1
    return several and any(sign in str(error) for sign in LOST)


def wait_for_first() -> None:
    """Returns when the first process, too, has nothing left to do."""
    jax.distributed.shutdown()
