"""Claims of runtimes.py and graphs.py: other runtimes give what JAX gives."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from helpers import runs

import btsrn_jax
from btsrn_jax import machine
from btsrn_jax.errors import InputError
from btsrn_jax.export import write as export
from btsrn_jax.inference import cutting, graphs, models, runtimes, weights
from btsrn_jax.network import onnx_graph

OTHERS = ("openvino", "onnxruntime")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of noise at each scale, and exports of them; x2 with its ONNX files."""
    root = tmp_path_factory.mktemp("runtimes")
    for scale in (2, 3, 4):
        runs.make(root / f"run{scale}", scale=scale, mid_blocks=int(scale == 4))
        formats = ["safetensors", "onnx"] if scale == 2 else ["safetensors"]
        out = root / f"x{scale}"
        export.export_model(str(root / f"run{scale}"), out, formats, log=str)
    return root


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BTSRN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def noise(h, w, dtype=np.uint8, seed=0):
    """Half of it black or white, so that what the network gives leaves [0, 1]."""
    values = np.random.default_rng(seed).uniform(-0.5, 1.5, (h, w, 3)).clip(0, 1)
    if dtype == np.float32:
        return values.astype(np.float32)
    return np.round(values * np.iinfo(dtype).max).astype(dtype)


def message(function, *args, **kwargs):
    with pytest.raises(InputError) as error:
        function(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_every_runtime_gives_what_jax_gives(folder, cache, scale, ensemble):
    source = str(folder / f"run{scale}")
    ours = models.open_model(source, scale, ensemble)
    assert "by JAX" in ours.about
    for name in OTHERS:
        model = models.open_model(source, scale, ensemble, runtime=name)
        assert f"on the CPU by {runtimes.TITLES[name]} " in model.about
        assert (model.halo, model.scale) == (ours.halo, scale)
        for h, w in ((1, 1), (7, 19), (33, 50)):  # tiles are of 16 pixels
            lr = noise(h, w, np.float32)
            expected = ours.upscale(lr)
            np.testing.assert_allclose(model.upscale(lr), expected, atol=1e-4, rtol=0)
            # 1e-4 of 65535 is 7.
            dtype, most = (np.uint8, 1) if ensemble else (np.uint16, 7)
            lr = noise(h, w, dtype)
            sr = model(lr)
            assert sr.dtype == dtype
            assert np.abs(sr.astype(int) - ours(lr)).max() <= most
    assert expected.max() > 1  # or clipping would be untested
    assert expected.min() < 0


def test_a_graph_is_made_once_and_used_without_onnx(folder, cache, monkeypatch):
    lr = noise(20, 13)
    first = btsrn_jax.load_model(str(folder / "x3"), runtime="openvino")(lr)
    (kept,) = (cache / graphs.FOLDER).iterdir()
    monkeypatch.setitem(sys.modules, "onnx", None)  # as if it were not installed
    for source in ("x3", "run3", "x3/model.safetensors"):
        model = btsrn_jax.load_model(str(folder / source))
        assert "by OpenVINO" in model.about
        np.testing.assert_array_equal(model(lr), first)
    # One that is damaged is not used, and another network has another one.
    for damaged in (kept.read_bytes()[:-1], b""):
        kept.write_bytes(damaged)
        text = message(models.open_model, str(folder / "x3"), 3, False, 0.0, "openvino")
        assert "pip install 'btsrn-jax[cpu]'" in text
    assert "by JAX" in btsrn_jax.load_model(str(folder / "x3")).about
    monkeypatch.undo()
    monkeypatch.setenv("BTSRN_CACHE", str(cache))
    np.testing.assert_array_equal(btsrn_jax.load_model(str(folder / "x3"))(lr), first)
    btsrn_jax.load_model(str(folder / "x2"), ensemble=True)
    assert len(list((cache / graphs.FOLDER).iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_no_error(folder, monkeypatch):
    monkeypatch.setenv("BTSRN_CACHE", "/proc/cache")
    assert "by OpenVINO" in btsrn_jax.load_model(str(folder / "x3")).about


def test_an_export_brings_its_graph(folder, cache, tmp_path, monkeypatch):
    """But not for the ensemble, since it is clipped, nor damaged, nor in float16."""
    monkeypatch.setitem(sys.modules, "onnx", None)
    own, lr = str(folder / "x2"), noise(9, 21)
    model = btsrn_jax.load_model(own, runtime="onnxruntime")
    expected = btsrn_jax.load_model(own, runtime="jax")(lr)
    assert np.abs(model(lr).astype(int) - expected).max() <= 1
    assert not cache.exists()
    assert "by JAX" in btsrn_jax.load_model(own, ensemble=True).about
    damaged = shutil.copytree(own, tmp_path / "damaged")
    file = damaged / graphs.TILE
    file.write_bytes(file.read_bytes()[:-9] + b"123456789")
    monkeypatch.undo()
    monkeypatch.setenv("BTSRN_CACHE", str(cache))
    half = tmp_path / "half"
    formats = ["safetensors", "onnx"]
    export.export_model(str(folder / "run2"), half, formats, half=True, log=str)
    for exported in (damaged, half):
        config = weights.read_config(exported)
        assert graphs.find_graph(exported, config, ensemble=False) is None


def test_damaged_weights_are_named_by_every_runtime(folder, cache, tmp_path):
    broken = shutil.copytree(folder / "x2", tmp_path / "broken")
    file = broken / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"1234")
    for name in runtimes.NAMES:
        text = message(btsrn_jax.load_model, str(broken), runtime=name)
        assert "damaged or was changed" in text


def test_a_network_without_an_onnx_form_is_left_to_jax(
    folder, cache, monkeypatch, caplog
):
    monkeypatch.setitem(onnx_graph.FORMS, "block", ())
    source = str(folder / "run2")
    text = message(btsrn_jax.load_model, source, runtime="openvino")
    assert "no ONNX form of block pconv" in text
    assert "--runtime jax" in text
    assert "by JAX" in btsrn_jax.load_model(source).about
    assert "OpenVINO is not used" in caplog.text


def test_a_runtime_that_is_not_here_says_what_to_install(monkeypatch):
    assert "one of auto, jax" in message(runtimes.choose_runtime, "tensorrt")
    assert runtimes.choose_runtime("auto") == "openvino"
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert "'btsrn-jax[cpu]'" in message(runtimes.choose_runtime, "openvino")
    assert runtimes.choose_runtime("auto") == "onnxruntime"
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "'btsrn-jax[onnx]'" in message(runtimes.choose_runtime, "onnxruntime")
    assert runtimes.choose_runtime("auto") == "jax"


def test_a_graph_that_a_runtime_refuses_is_one_line():
    for name in OTHERS:
        text = message(runtimes.open_runtime, name, b"no graph")
        assert text.startswith(f"--runtime {name}: ")
        assert text.endswith("--runtime jax does without")


def test_an_accelerator_is_a_package_and_its_device(tmp_path, monkeypatch):
    devices = tmp_path / "dev [1]"
    devices.mkdir()
    packages = tmp_path / "packages"
    (packages / "jax_cuda13_plugin").mkdir(parents=True)
    monkeypatch.setenv("JAX_PLATFORMS", "")
    (devices / "nvidia0").touch()
    assert not machine.has_accelerator(devices)
    monkeypatch.syspath_prepend(packages)
    assert machine.has_accelerator(devices)
    (devices / "nvidia0").rename(devices / "nvidiactl")
    assert not machine.has_accelerator(devices)
    (devices / "kfd").touch()  # of another kind
    assert not machine.has_accelerator(devices)
    (devices / "nvidia1").touch()
    for named, expected in (("cpu", False), ("cpu,cuda", False), ("cuda,cpu", True)):
        monkeypatch.setenv("JAX_PLATFORMS", named)
        assert machine.has_accelerator(devices) == expected


def test_the_memory_bounds_the_tile_and_running_out_of_it_halves_the_tile(caplog):
    config = runs.build()[0] | {"eval": {"tile": 128, "memory_gb": 1}}
    asked = []

    def run(lr):
        asked.append(lr.shape[2:])
        if lr.shape[2] > 40:
            raise RuntimeError("Check failed: std::bad_alloc")
        side = [2 * (n - 2 * upscaler.halo) for n in lr.shape[2:]]
        return np.zeros((1, 3, *side), np.float32)

    runtime = runtimes.Runtime("the CPU", "a runtime", run)
    upscaler = runtimes.GraphUpscaler(config, lambda streams: runtime, False)
    assert upscaler.plan.tile == 128
    sr = upscaler(noise(70, 60))
    assert sr.shape == (140, 120, 3)
    assert "going on with tiles of 36 pixels" in caplog.text
    assert asked[0][0] == 72 + 2 * upscaler.halo  # no more than the picture needs
    small = config | {"eval": {"tile": 128, "memory_gb": 0.001}}
    upscaler = runtimes.GraphUpscaler(small, lambda streams: runtime, False)
    assert cutting.SMALLEST_TILE <= upscaler.plan.tile < 128
    failing = runtimes.Runtime("the CPU", "a runtime", lambda lr: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        runtimes.GraphUpscaler(config, lambda streams: failing, False)(noise(9, 9))


TOGETHER = """
import os, sys, threading
import openvino
from onnx import TensorProto, helper
from btsrn_jax.inference import runtimes
value = helper.make_tensor_value_info
lr, sr = (value(name, TensorProto.FLOAT, [1]) for name in ("lr", "sr"))
graph = helper.make_graph([helper.make_node("Relu", ["lr"], ["sr"])], "g", [lr], [sr])
opsets = [helper.make_opsetid("", 17)]
made = helper.make_model(graph, opset_imports=opsets, ir_version=8)
runtimes.open_runtime("openvino", made.SerializeToString(), 4)
sys.setswitchinterval(1e-6)
start, found = threading.Barrier(4), []
def work():
    start.wait()
    found.append(openvino.Type.f32.to_dtype())  # as every inference does
threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(30)
os._exit(len(found) != 4)
"""


@pytest.mark.parametrize("attempt", range(4))
def test_threads_that_use_openvino_first_at_once_do_not_wait_for_ever(attempt):
    """Before, about half of such processes hung."""
    pytest.importorskip("openvino")
    pytest.importorskip("onnx")
    subprocess.run([sys.executable, "-c", TOGETHER], check=True, timeout=60)
