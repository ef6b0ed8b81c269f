"""Claims about devices and hosts. Several processes: tests/system."""

import dataclasses
import math
import os

import jax
import numpy as np
from jax.sharding import AxisType

from btsrn_jax import mesh


def test_the_mesh_has_one_axis_over_all_devices():
    devices = mesh.make_mesh()
    assert devices.axis_names == ("data",)
    assert devices.size == 8
    # Explicit axes, JAX's default, refuse depth-to-space and vmapped crops.
    assert devices.axis_types == (AxisType.Auto,)


def test_slices_follow_one_another_along_the_axis():
    """Hosts with GPUs, too: JAX calls each of them a slice."""

    @dataclasses.dataclass(frozen=True)
    class Chip:
        id: int
        slice_index: int
        device_kind: str = "chip"
        platform: str = "gpu"

    chips = [Chip(i, i % 2) for i in range(5)]  # of one host three, of the other two
    devices = mesh.make_mesh(chips)
    assert [chip.id for chip in devices.devices] == [0, 2, 4, 1, 3]
    assert devices.axis_names == ("data",)
    assert devices.axis_types == (AxisType.Auto,)


def test_a_batch_is_divided_and_parameters_are_everywhere():
    devices, x = mesh.make_mesh(), np.arange(16)
    shards = jax.device_put(x, mesh.split(devices)).addressable_shards
    assert [list(s.data) for s in shards] == [[2 * i, 2 * i + 1] for i in range(8)]
    shards = jax.device_put(x, mesh.replicated(devices)).addressable_shards
    assert all(s.data.shape == (16,) for s in shards)


def test_what_a_process_gathers_alone_is_its_own():
    values = np.array([1.5, np.pi])
    np.testing.assert_array_equal(mesh.gather(values), [values])
    assert mesh.gather(True).any()


def test_settings_made_by_the_user_stay(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"{mesh.CPU_FLAG}=mine")
    mesh.prepare()
    assert os.environ["XLA_FLAGS"].endswith("=mine")
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    monkeypatch.setenv("XLA_FLAGS", "")
    mesh.prepare()
    assert os.environ["XLA_FLAGS"] == ""


def test_the_memory_of_a_device_is_asked_in_one_place():
    """Of an accelerator; of CPU devices, which share the machine's; of a topology."""

    class Accelerator:
        def memory_stats(self):
            return {"bytes_limit": 80e9, "bytes_in_use": 20e9}

    class Described:
        def memory_stats(self):
            raise NotImplementedError

    assert mesh.device_memory(Accelerator()) == (80e9, 60e9)
    assert mesh.device_memory(Described()) == (math.inf, math.inf)
    total, free = mesh.device_memory(jax.local_devices()[0])
    assert total == math.inf
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 1e7 < 8 * free < pages
