"""Claims of the benchmark: what is counted, compared and said."""

import sys

import jax
import jax.numpy as jnp
import pytest

from btsrn_jax import cli
from btsrn_jax.benchmark import bench, peers
from btsrn_jax.errors import InputError
from btsrn_jax.network import btsrn as network
from btsrn_jax.network import cost

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


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["train", "--batch", "3,x"], "--batch '3,x'"),
        (["infer", "--side", "0"], "--side '0'"),
        (["infer", "--side", "3", "--scale", "4"], "--side"),
        (["train", "--repeats", "2"], "--repeats 2: at least 3"),
        (["train", "--json", "nowhere/bench.json"], "nowhere"),
        (["infer", "--peer", "openvino,tensorrt"], "--peer 'tensorrt': one or several"),
        (["train", "--peer", "openvino"], "--peer openvino: it does not train"),
    ],
)
def test_mistakes_are_one_line(args, words, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        cli.main(["bench", *args])
    out, err = capfd.readouterr()
    assert end.value.code == 2
    assert not out
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert words in err


def test_without_torch_the_peer_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"pip install 'btsrn-jax\[peer\]'"):
        peers.find_peers(["torch"], "infer")
