"""Several processes of one run: how they find each other, and how one is lost."""

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

import jax

from btsrn_jax import lock, mesh
from btsrn_jax.errors import InputError
from btsrn_jax.progress import log_to_stderr, logger
from btsrn_jax.training import cluster

JOIN_SECONDS = 300  # for all processes of a run to find each other
HEARTBEAT_SECONDS = 60  # a process silent for so long is dead: the others end
SHUTDOWN_SECONDS = 86400  # while the first process evaluates, the others wait
# What JAX's errors say where another process is gone: the coordination service's
# statuses, and the words of the libraries that carry the sums (gloo, NCCL, ICI).
LOST = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "CANCELLED", "Gloo", "NCCL")
LOST += ("onnection", "heartbeat", "another task", "barrier", "slice health")


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
    if distributed or cluster.announced(os.environ):
        _initialize(os.environ)
    mesh.find_devices()
    log_to_stderr(jax.process_index(), jax.process_count())


def _initialize(env):
    seconds = int(env.get("BTSRN_JOIN_SECONDS", JOIN_SECONDS))
    address, process, count = cluster.place(env)

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


def lost_another(error: BaseException) -> bool:
    """Returns True for JAX's own errors about another process of the run being gone."""
    is_jaxs = isinstance(error, jax.errors.JaxRuntimeError)
    several = is_jaxs and jax.process_count() > 1
    return several and any(sign in str(error) for sign in LOST)


@contextlib.contextmanager
def hold_run(workdir: Any) -> Iterator[None]:
    """Keeps other runs out of a run directory; collective. The first process does.

    Raises:
      InputError: in every process, where the first one is refused.
    """
    with contextlib.ExitStack() as stack:
        error = None
        if mesh.is_first():
            try:
                stack.enter_context(lock.hold(workdir, "run"))
            except (InputError, OSError) as caught:
                error = caught
        if mesh.gather(error is not None).any():
            jax.distributed.shutdown()  # all know: none is lost for another one
            raise error or InputError(f"{workdir}: refused by the first process")
        yield


def wait_for_first() -> None:
    """Returns when the first process, too, has nothing left to do."""
    jax.distributed.shutdown()
