"""Claims about devices and hosts. Several processes: see processes.py."""

import os

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from btsrn_jax import mesh


def test_the_mesh_has_one_axis_over_all_devices():
    devices = mesh.make_mesh()
    assert devices.axis_names == ("data",)
    assert devices.size == 8
    # Explicit axes, JAX's default, refuse depth-to-space and vmapped crops.
    assert devices.axis_types == (AxisType.Auto,)


def test_a_batch_is_divided_and_parameters_are_everywhere():
    devices, x = mesh.make_mesh(), np.arange(16)
    shards = jax.device_put(x, mesh.split(devices)).addressable_shards
    assert [list(s.data) for s in shards] == [[2 * i, 2 * i + 1] for i in range(8)]
    shards = jax.device_put(x, mesh.replicated(devices)).addressable_shards
    assert all(s.data.shape == (16,) for s in shards)


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
    assert mesh.announced(env) == by


def test_what_a_process_gathers_alone_is_its_own():
    values = np.array([1.5, np.pi])
    np.testing.assert_array_equal(mesh.gather(values), [values])
    assert mesh.gather(True).any()


def test_settings_made_by_the_user_stay(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"{mesh.CPU_FLAG.split('=')[0]}=mine")
    mesh.prepare()
    assert os.environ["XLA_FLAGS"].endswith("=mine")
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    monkeypatch.setenv("XLA_FLAGS", "")
    mesh.prepare()
    assert os.environ["XLA_FLAGS"] == ""
