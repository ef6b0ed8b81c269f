"""Claims of bench.py and worker.py: what is counted, compared and said."""

import json

import jax
import jax.numpy as jnp
import pytest
from helpers import tiny

from btsrn_jax import cli, mesh
from btsrn_jax.benchmark import bench
from btsrn_jax.errors import InputError
from btsrn_jax.network import btsrn as network
from btsrn_jax.network import cost
from btsrn_jax.training import step as train

SMALL = {"features": 32, "bottleneck": 16, "low_blocks": 2, "high_blocks": 1}


@pytest.mark.parametrize(
    ("scale", "fields"),
    [
        (2, {}),
        (3, {"block": "pixelcnn"}),
        (4, {"mid_blocks": 1}),
        (2, {"block": "gated_pp"}),
    ],
)
def test_forward_flops_are_what_xla_counts(scale, fields):
    model = network.BTSRN(scale=scale, **SMALL | fields)
    lr = jax.ShapeDtypeStruct((1, 20, 20, 3), jnp.float32)
    variables = jax.eval_shape(lambda: network.init(model, jax.random.key(0)))
    lowered = jax.jit(lambda v, x: model.apply(v, x)).lower(variables, lr)
    counted = lowered.cost_analysis()["flops"]
    # XLA counts biases and activations as well: some operations a pixel and channel.
    assert 0.95 * counted < cost.forward_flops(model, 20) < counted


def test_forward_flops_of_one_block_by_hand():
    model = network.BTSRN(
        scale=2, features=8, bottleneck=4, low_blocks=1, high_blocks=0
    )
    # 5 x 5 pixels: 3 -> 8, 8 -> 4; 3 x 3 pixels of 9 * 4 * 8; 6 x 6 of 8 * 8, 8 -> 3.
    expected = 25 * (24 + 32) + 9 * 288 + 36 * (64 + 24)
    assert cost.forward_flops(model, 5) == 2 * expected
    assert cost.train_flops(model, 5) == 6 * expected - 2 * 25 * 24


def test_train_flops_are_what_xla_counts_and_divide_over_devices():
    counted = {}
    for count in (2, 4, 8):
        config = tiny.config(batch_size=8, patch=40)
        config.model.features, config.model.bottleneck = 32, 16
        devices = mesh.make_mesh(jax.devices()[:count])
        recipe = train.make_recipe(config, devices)
        state = jax.eval_shape(lambda r=recipe, d=devices: train.create_state(r, d))
        step = train.compile_step(recipe, devices).lower(state, tiny.store())
        counted[count] = count * step.compile().cost_analysis()["flops"]
    formula = 8 * cost.train_flops(recipe.model, recipe.side)
    # Beside the products there is the optimiser, done by every device.
    assert 0.75 * counted[2] < formula < counted[2]
    assert counted[8] < 1.25 * counted[2]


def test_median_ratio_and_quartiles_by_hand():
    assert bench.spread([3.0, 1.0, 2.0, 9.0]) == {
        "seconds": 2.5,
        "fastest": 1.0,
        "slowest": 9.0,
        "repetitions": 4,
    }
    found = bench.compared([2.0, 2.0, 4.0], [3.0, 4.0, 4.0])
    assert found["ratio"] == 2.0  # 4 over 2
    assert found["ratio_range"] == [1.0, 2.0]  # of 1.5, 2 and 1


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    """The processes that measure have not the eight devices of the tests."""
    jax.devices()  # this process has them from here on
    monkeypatch.setenv("XLA_FLAGS", "")


def test_training_is_measured_and_written(tmp_path, capfd):
    spec = bench.Spec("train", 2, batch=2, patch=24, **SMALL, loop=True)
    path = tmp_path / "bench.json"
    lines = []
    bench.run_benchmark([spec], None, 3, path, lines.append)
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
    assert "| x2 | 2 | 24 |" in capfd.readouterr().out


def test_inference_is_measured_beside_the_peer(tmp_path, monkeypatch):
    """The peer's place is taken by another process of ours."""
    monkeypatch.setattr(
        bench, "find_peer", lambda name: ["-m", "btsrn_jax.benchmark.worker"]
    )
    spec = bench.Spec("infer", 3, side=40, frames=(), **SMALL)
    bench.run_benchmark([spec], "torch", 5, tmp_path / "bench.json", print)
    report = json.loads((tmp_path / "bench.json").read_text())
    (result,) = report["results"]
    peer, ours = result["peer"]["seconds"], result["ours"]["seconds"]
    assert report["ratio"] == pytest.approx(peer / ours)
    low, high = result["ratio_range"]
    assert low <= high
    assert result["ensemble_ratio"] > 1
    assert result["megapixels_per_second"] == pytest.approx(120**2 / 1e6 / ours)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["train", "--peer", "torch"], "tests/peer/worker.py"),
        (["train", "--batch", "3,x"], "--batch '3,x'"),
        (["infer", "--side", "0"], "--side '0'"),
        (["infer", "--side", "3", "--scale", "4"], "--side"),
        (["train", "--repeats", "2"], "--repeats 2: at least 3"),
        (["train", "--json", "nowhere/bench.json"], "nowhere"),
        (["train", "--scale", "2", "--patch", "32"], "patch"),
    ],
)
def test_mistakes_are_one_line(args, words, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tiny.ROOT))
    with pytest.raises(SystemExit) as end:
        cli.main(["bench", *args])
    out, err = capfd.readouterr()
    assert end.value.code == 2
    assert not out
    error = [line for line in err.splitlines() if not line.startswith("x2 train")]
    assert len(error) == 1
    assert error[0].startswith("error: ")
    assert words in error[0]


def test_without_torch_the_peer_says_what_to_install(monkeypatch):
    monkeypatch.chdir(tiny.ROOT)
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install -e '\.\[peer\]'"):
        bench.find_peer("torch")


def test_a_worker_that_dies_is_reported(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text("raise SystemExit(7)")
    with pytest.raises(RuntimeError, match="exit code 7"):
        bench.Worker([str(script)], bench.Spec("train", 2))
