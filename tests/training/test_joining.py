"""Claims about joining other processes that need none of them."""

import socket

import jax
import pytest

from btsrn_jax import errors
from btsrn_jax.training import cluster, distributed


@pytest.mark.parametrize(
    ("env", "by"),
    [
        ({}, ""),
        ({"JAX_COORDINATOR_ADDRESS": "a:1"}, "JAX_COORDINATOR_ADDRESS"),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "TPU_WORKER_HOSTNAMES"),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, ""),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "2"}, ""),  # no step: no srun
        (
            {"SLURM_STEP_NODELIST": "a", "SLURM_PROCID": "0", "SLURM_NTASKS": "2"},
            "Slurm",
        ),
        ({"SLURM_STEP_NODELIST": "a", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, ""),
        ({"JAX_NUM_PROCESSES": "2"}, "JAX_NUM_PROCESSES"),
        ({"JAX_NUM_PROCESSES": "1"}, ""),
        ({"MEGASCALE_NUM_SLICES": "2"}, "MEGASCALE_NUM_SLICES"),
        ({"MEGASCALE_NUM_SLICES": "1"}, ""),
        ({"MEGASCALE_NUM_SLICES": ""}, ""),
        ({"TPU_PROCESS_ADDRESSES": "a:1,b:1"}, "TPU_PROCESS_ADDRESSES"),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, "Open MPI"),
        ({"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}, ""),
        ({"PMI_SIZE": "2", "PMI_RANK": "0"}, "MPI"),
        ({"MV2_COMM_WORLD_SIZE": "2", "MV2_COMM_WORLD_RANK": "0"}, "MVAPICH"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "torchrun"),
        ({"WORLD_SIZE": "2"}, ""),  # of somebody else
        (  # mpirun within a job: of Slurm's two tasks each starts two processes
            {
                "SLURM_STEP_NODELIST": "a,b",
                "SLURM_PROCID": "0",
                "SLURM_NTASKS": "2",
                "PMI_SIZE": "4",
                "PMI_RANK": "1",
            },
            "MPI",
        ),
        (  # a single task of Slurm that starts two
            {
                "SLURM_STEP_NODELIST": "a",
                "SLURM_PROCID": "0",
                "SLURM_NTASKS": "1",
                "OMPI_COMM_WORLD_SIZE": "2",
            },
            "Open MPI",
        ),
    ],
)
def test_several_processes_are_known_by_the_environment(env, by):
    assert cluster.announced(env) == by


@pytest.mark.parametrize(
    ("env", "place"),
    [
        ({}, (None, None, None)),
        ({"JAX_PROCESS_ID": "1", "JAX_NUM_PROCESSES": "3"}, (1, 3, None)),
        (
            {
                "OMPI_COMM_WORLD_SIZE": "4",
                "OMPI_COMM_WORLD_RANK": "3",
                "OMPI_COMM_WORLD_LOCAL_RANK": "1",
            },
            (3, 4, 1),
        ),
        ({"PMI_SIZE": "2", "PMI_RANK": "1", "JAX_PROCESS_ID": "0"}, (0, 2, None)),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"}, (1, 2, None)),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, (None, 2, None)),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, (0, 1, None)),
        ({"MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "1"}, (1, 2, None)),
        (  # the second host of the second slice
            {
                "MEGASCALE_NUM_SLICES": "2",
                "MEGASCALE_SLICE_ID": "1",
                "TPU_WORKER_HOSTNAMES": "c,d",
                "TPU_WORKER_ID": "1",
            },
            (3, 4, None),
        ),
    ],
)
def test_each_process_knows_its_place(env, place):
    assert cluster.place(env) == place


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({"MEGASCALE_NUM_SLICES": "two"}, "MEGASCALE_NUM_SLICES is 'two'"),
        ({"OMPI_COMM_WORLD_SIZE": "-2"}, "OMPI_COMM_WORLD_SIZE is '-2'"),
        ({"PMI_SIZE": "2", "PMI_RANK": "x"}, "PMI_RANK is 'x'"),
        ({"JAX_NUM_PROCESSES": "2.0"}, "JAX_NUM_PROCESSES is '2.0'"),
        (
            {"PMI_SIZE": "2", "PMI_RANK": "2", "JAX_COORDINATOR_ADDRESS": "a:1"},
            "process 2 of 2",
        ),
        ({"JAX_COORDINATOR_ADDRESS": "a"}, "JAX_COORDINATOR_ADDRESS is 'a'"),
        (
            {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "0"},
            "JAX_NUM_PROCESSES is 0",
        ),
        (
            {
                "JAX_COORDINATOR_ADDRESS": "a:70000",
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": "0",
            },
            "port 70000",
        ),
        (
            {"JAX_COORDINATOR_ADDRESS": "a:1", "BTSRN_JOIN_SECONDS": "soon"},
            "BTSRN_JOIN_SECONDS is 'soon'",
        ),
        (
            {"JAX_COORDINATOR_ADDRESS": "a:1", "BTSRN_HEARTBEAT_SECONDS": "0"},
            "BTSRN_HEARTBEAT_SECONDS is '0'",
        ),
    ],
)
def test_a_variable_that_makes_no_sense_is_one_line(monkeypatch, env, named):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(errors.InputError, match=r"^[^\n]*$") as caught:
        distributed.join(False)
    assert named in str(caught.value)


def test_a_port_that_is_in_use_is_one_line(monkeypatch):
    """JAX crashed there."""
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", f"localhost:{port}")
        monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
        monkeypatch.setenv("JAX_PROCESS_ID", "0")
        with pytest.raises(errors.InputError, match=f"port {port} is in use"):
            distributed.join(False)


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({}, ["JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"]),
        (
            {"PMI_SIZE": "2", "PMI_RANK": "1"},
            ["process 1 of 2", "JAX_COORDINATOR_ADDRESS=HOST:PORT", "unset PMI_SIZE"],
        ),
        (
            {"MEGASCALE_NUM_SLICES": "2"},
            ["one of 2 processes", "JAX_PROCESS_ID", "unset MEGASCALE_NUM_SLICES"],
        ),
    ],
)
def test_who_cannot_find_the_others_is_told_how_to_launch(env, named):
    text = cluster.how_to_launch(env)
    assert all(part in text for part in named), text


def test_only_jaxs_own_errors_of_a_lost_peer_are_told_in_one_line(monkeypatch):
    """A bug of ours, and an accelerator that is out of memory, keep their traceback."""
    closed = jax.errors.JaxRuntimeError("INTERNAL: Gloo: Connection closed by peer")
    full = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
    assert not distributed.lost_another(closed)  # one process alone
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert distributed.lost_another(closed)
    assert not distributed.lost_another(full)
    assert not distributed.lost_another(RuntimeError("Connection of ours"))
