"""Claims of `btsrn bench` and `btsrn info` that need processes of their own."""

import importlib.util
import json
import os
import subprocess
import sys

import jax
import pytest
from helpers import tiny

from btsrn_jax import cli
from btsrn_jax.benchmark import bench, protocol

SMALL = {"features": 32, "bottleneck": 16, "low_blocks": 2, "high_blocks": 1}


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    """The processes that measure have one device, and compile quickly."""
    jax.devices()  # this process keeps the eight of the tests
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")


def test_training_is_measured_and_written(tmp_path, capfd, caplog):
    spec = protocol.Spec("train", 2, batch=2, patch=24, **SMALL, loop=True)
    path = tmp_path / "bench.json"
    caplog.set_level("INFO", "btsrn")
    bench.run_benchmark([spec], None, 3, path)
    lines = [record.message for record in caplog.records if record.name == "btsrn"]
    report = json.loads(path.read_text())
    (result,) = report["results"]
    ours = result["ours"]
    assert "ratio" not in report
    assert ours["repetitions"] == 3
    assert 0 < ours["fastest"] <= ours["seconds"] <= ours["slowest"]
    assert result["patches_per_second"] == pytest.approx(2 / ours["seconds"])
    assert result["input_share"] == ours["input"]["seconds"] / ours["seconds"]
    assert result["loop_ratio"] == ours["loop"]["seconds"] / ours["seconds"]
    rate = result["utilisation"] * ours["matmul"]
    assert rate == pytest.approx(ours["flops"] / ours["seconds"])
    assert 1e8 < ours["peak_bytes"] < 4e9
    assert result["fits_8gb"]
    assert "step 3 of 3: ours" in lines[3]
    assert "| x2    | 2     | 24    |" in capfd.readouterr().out


def test_inference_is_measured_beside_the_peer(tmp_path, monkeypatch):
    """Another process of ours takes the peer's place."""
    monkeypatch.setattr(
        bench, "find_peer", lambda name: ["-m", "btsrn_jax.benchmark.worker"]
    )
    spec = protocol.Spec("infer", 3, side=40, frames=(), **SMALL)
    bench.run_benchmark([spec], "torch", 5, tmp_path / "bench.json")
    report = json.loads((tmp_path / "bench.json").read_text())
    (result,) = report["results"]
    peer, ours = result["peer"]["seconds"], result["ours"]["seconds"]
    assert report["ratio"] == pytest.approx(peer / ours)
    low, high = result["ratio_range"]
    assert low <= high
    assert result["ensemble_ratio"] > 1
    assert result["megapixels_per_second"] == pytest.approx(120**2 / 1e6 / ours)


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="the extra [peer] is not installed",
)
@pytest.mark.parametrize("mode", ["train", "infer"])
def test_bench_measures_the_two_in_turns(mode, tmp_path, monkeypatch):
    monkeypatch.chdir(tiny.ROOT)
    monkeypatch.setenv("XLA_FLAGS", "")
    spec = protocol.Spec(mode, 2, batch=2, patch=48, side=20, frames=(), **SMALL)
    bench.run_benchmark([spec], "torch", 3, tmp_path / "bench.json")
    report = json.loads((tmp_path / "bench.json").read_text())
    (result,) = report["results"]
    peer = result["peer"]
    assert report["ratio"] == peer["seconds"] / result["ours"]["seconds"]
    assert len(peer["tried"]) >= 2
    assert peer["setting"] == min(peer["tried"], key=peer["tried"].get)


def test_what_only_a_worker_finds_wrong_is_one_line(capfd):
    with pytest.raises(SystemExit) as end:
        cli.main(["bench", "train", "--scale", "2", "--patch", "32"])
    out, err = capfd.readouterr()
    assert end.value.code == 2
    assert not out
    error = [line for line in err.splitlines() if not line.startswith("x2 train")]
    assert len(error) == 1
    assert error[0].startswith("error: ")
    assert "patch" in error[0]


def test_a_worker_that_dies_is_reported(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text("raise SystemExit(7)")
    with pytest.raises(RuntimeError, match="exit code 7"):
        protocol.Worker([str(script)], protocol.Spec("train", 2))


# --- btsrn info


def btsrn(*args, **environment):
    return subprocess.run(
        [sys.executable, "-m", "btsrn_jax.cli", "info", *args],
        cwd=tiny.ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | environment,
    )


def told(text):
    return dict(line.split(": ", 1) for line in text.splitlines())


def test_info_takes_no_device_and_no_data_and_five_seconds_of_work():
    """JAX would raise when asked for a device of that platform."""
    begun = os.times()
    done = btsrn("--config", "configs/x4.py", JAX_PLATFORMS="nonesuch")
    ended = os.times()
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = told(done.stdout)
    assert found["parameters"].split()[0] == "953347"  # PAPER, section 1
    assert found["multiply-adds per HR pixel"] == "0.379 M"
    assert found["patch"] == "27 x 27 LR -> 52 x 52 HR pixels of loss"
    assert found["steps"] == found["decay steps"] == "from data"
    worked = ended.children_user - begun.children_user
    assert worked + ended.children_system - begun.children_system < 5


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu, of the [tpu] extra, is not installed",
)
def test_training_and_evaluation_compile_for_a_slice_that_is_not_here():
    small = ["--config.model.low_blocks=1", "--config.model.high_blocks=1"]
    done = btsrn("--config", "configs/x2.py", "--topology", "v5e:2x4", "--", *small)
    assert done.returncode == 0, done.stderr
    found = told(done.stdout)
    assert found["devices"].startswith("8 x TPU v5")
    assert found["training"].startswith("fits: ")
    assert found["evaluation"].startswith("fits: ")
    # One of all gradients, in bfloat16, and one of the loss, a float32.
    assert found["training, collectives"] == "2 all-reduce"
