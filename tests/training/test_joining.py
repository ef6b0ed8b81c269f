"""Claims about joining other processes that need none of them."""

import jax
import pytest

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
    ],
)
def test_several_processes_are_known_by_the_environment(env, by):
    assert cluster.announced(env) == by


def test_only_jaxs_own_errors_of_a_lost_peer_are_told_in_one_line(monkeypatch):
    """A bug of ours, and an accelerator that is out of memory, keep their traceback."""
    closed = jax.errors.JaxRuntimeError("INTERNAL: Gloo: Connection closed by peer")
    full = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
    assert not distributed.lost_another(closed)  # one process alone
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert distributed.lost_another(closed)
    assert not distributed.lost_another(full)
    assert not distributed.lost_another(RuntimeError("Connection of ours"))
