"""Several processes of one run: how they find each other, and how one is lost."""

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import jax

from btsrn_jax import lock, mesh
from btsrn_jax.errors import InputError, first_line
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
      InputError: nothing says where the others are, or a variable makes no sense.
      NoDevices: this process finds no device.
    """
    if distributed or cluster.announced(os.environ):
        _initialize(os.environ)
    mesh.find_devices()
    log_to_stderr(jax.process_index(), jax.process_count())


def _initialize(env):
    seconds = _seconds(env, "BTSRN_JOIN_SECONDS", JOIN_SECONDS)
    heartbeat = _seconds(env, "BTSRN_HEARTBEAT_SECONDS", HEARTBEAT_SECONDS)
    given = _given(env)
    process, count, _ = cluster.place(env)
    if process == 0:
        _check_port(env)

    def give_up():
        who = [_known(process), _known(count), cluster.address(env)]
        logger.error(
            "error: process {} of {}: the others did not all join at {} within"
            " {} s; start all again".format(*who, seconds)
        )
        os._exit(1)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            **given,
            initialization_timeout=10 * seconds,  # the timer is earlier
            heartbeat_timeout_seconds=heartbeat,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        )
    except jax.errors.JaxRuntimeError:
        raise  # of the network
    except (ValueError, LookupError, RuntimeError) as error:  # JAX finds no launcher
        by = cluster.announced(env) or "--distributed"
        reason = first_line(error)
        if "coordinator_address" in reason:  # what JAX calls it, and nobody else
            reason = "the other processes cannot be found."
        raise InputError(f"{by}: {reason} {cluster.how_to_launch(env)}") from None
    finally:
        timer.cancel()


def _given(env):
    """Returns what JAX is told of this process's place; it finds the rest itself."""
    by = cluster.announced(env)
    address = env.get("JAX_COORDINATOR_ADDRESS", "")
    if address and not address.rpartition(":")[2].isdecimal():
        raise InputError(
            f"JAX_COORDINATOR_ADDRESS is {address!r} in the environment: HOST:PORT of"
            " process 0"
        )
    if by in ("", cluster.SLICES, *cluster.HOSTS):
        return {}  # on TPUs JAX asks the machine
    process, count, local = cluster.place(env)
    if count == 0:
        raise InputError("JAX_NUM_PROCESSES is 0 in the environment: at least 1")
    if None not in (process, count) and process >= count:
        raise InputError(f"{by}: process {process} of {count}: they count from 0")
    given = {"process_id": process, "num_processes": count}
    if local is not None and "JAX_LOCAL_DEVICE_IDS" not in env:
        given["local_device_ids"] = [local]  # of GPUs each process takes one
    return {name: value for name, value in given.items() if value is not None}


def _check_port(env):
    """Raises InputError where another program listens at the port of process 0, this
    one: JAX would crash."""
    port = env.get("JAX_COORDINATOR_ADDRESS", "").rpartition(":")[2]
    if not port or "JAX_COORDINATOR_BIND_ADDRESS" in env:
        return
    try:
        with socket.socket(socket.AF_INET6) as ours:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            ours.bind(("::", int(port)))
    except (OSError, OverflowError) as error:
        if getattr(error, "errno", errno.EADDRINUSE) == errno.EADDRINUSE:
            raise InputError(
                f"JAX_COORDINATOR_ADDRESS: port {port} is in use on this machine, or"
                " out of range; take another one, in all processes"
            ) from None


def _seconds(env, name, default):
    text = env.get(name, str(default))
    if not text.isdecimal() or not int(text):
        raise InputError(f"{name} is {text!r} in the environment: seconds, at least 1")
    return int(text)


def _known(number):
    return "?" if number is None else number


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
