"""Claims about where the time of a run goes."""

import time

import jax.numpy as jnp
import pytest

from btsrn_jax import mesh, training
from btsrn_jax.training import goodput, peak


def test_every_moment_belongs_to_one_part(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    split = goodput.TimeSplit()
    now[0] += 1  # images are read
    with split.part("restore"):
        now[0] += 2
    split.switch("steps")
    now[0] += 10
    with split.part("data_wait"):
        now[0] += 3
    assert split.training() == 13
    with split.part("checkpoint"):
        now[0] += 4
        with split.part("validation"):  # within it, and not counted twice
            now[0] += 5
        now[0] += 1
    now[0] += 20
    assert split.training() == 33
    expected = {"other": 1, "restore": 2, "steps": 30, "data_wait": 3, "compile": 0}
    assert split.seconds == expected | {"checkpoint": 5, "validation": 5}


def line(step, total, patches, used=None, **shares):
    values = {"step": step, "session_seconds": total, "patches_per_second": patches}
    values |= {f"share_{part}": share for part, share in shares.items()}
    return values if used is None else values | {"utilisation": used}


def test_sessions_are_read_back_and_summed():
    lines = [
        {"step": 5, "loss": 0.5},
        line(10, 100, 8, used=0.5, steps=0.5, compile=0.4, data_wait=0.1),
        {"step": 15, "loss": 0.2},
        line(20, 300, 4, used=0.2, steps=0.9, data_wait=0.1),
        line(30, 50, 2, steps=1.0),  # too short for a measurement
    ]
    first, second, third = training.read_sessions(lines)
    assert first.seconds["compile"] == 40
    assert first.patches == 8 * 60
    assert second.total == 300
    assert third.utilisation is None
    whole = training.together([first, second, third])
    assert whole.count == 3
    assert whole.total == 450
    assert whole.seconds["steps"] == 50 + 270 + 50
    assert whole.rate == (8 * 60 + 4 * 300 + 2 * 50) / (60 + 300 + 50)
    assert whole.utilisation == pytest.approx((0.5 * 60 + 0.2 * 300) / (60 + 300))
    assert training.read_sessions(lines[:1]) == []
    assert training.together([]) is None


def test_a_session_survives_metrics_and_is_told_in_one_line():
    seconds = dict.fromkeys(training.PARTS, 0.0) | {"steps": 75.0, "data_wait": 25.0}
    session = training.Session(seconds | {"compile": 300.0}, 1200, 0.25)
    (again,) = training.read_sessions([{"step": 1} | session.to_metrics()])
    assert again == session
    assert session.describe() == (
        "time: compile 75.0 %, steps 18.8 %, data wait 6.2 %; 12 patches/s,"
        " 25 % of what the devices can compute"
    )
    idle = training.Session(dict.fromkeys(training.PARTS, 0.0) | {"other": 2}, 0, None)
    assert "patches_per_second" not in idle.to_metrics()
    assert idle.describe() == "time: other 100.0 %"


@pytest.mark.parametrize(
    ("kind", "half", "single"),
    [
        ("TPU v4", 275, 275),
        ("TPU v5 lite", 197, 197),
        ("TPU v5e", 197, 197),
        ("TPU v5", 459, 459),
        ("TPU v5p", 459, 459),
        ("TPU v6 lite", 918, 918),
        ("TPU v6e", 918, 918),
        ("NVIDIA A100-SXM4-80GB", 312, 156),
        ("NVIDIA H100 80GB HBM3", 989, 495),
        ("NVIDIA H100 PCIe", 756, 378),
        ("NVIDIA H200", 989, 495),
        ("NVIDIA L4", 121, 60),
    ],
)
def test_the_peaks_of_known_devices_are_their_makers(kind, half, single):
    assert peak.stated_peak(kind, jnp.bfloat16) == half * 1e12
    assert peak.stated_peak(kind, jnp.float32) == single * 1e12


@pytest.mark.parametrize(
    "kind",
    ["cpu", "NVIDIA L40S", "NVIDIA A10G", "TPU v2", "NVIDIA A100-SXM4-40GB MIG 1g.5gb"],
)
def test_other_devices_have_no_stated_peak(kind):
    assert peak.stated_peak(kind, jnp.bfloat16) is None


def test_a_cpu_is_measured_only_where_that_is_asked_for():
    devices = mesh.make_mesh()
    assert peak.peak_of(devices, jnp.float32, measure=False) is None
    assert 1e8 < peak.peak_of(devices, jnp.float32) < 1e14
