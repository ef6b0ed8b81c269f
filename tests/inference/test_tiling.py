"""Claims of inference.py: tiles and the ensemble are exact; memory is bounded."""

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import reference

from btsrn_jax import mesh, resize
from btsrn_jax.inference import tiling as inference
from btsrn_jax.network import btsrn as network

TILE = 12
# (scale, mid_blocks)
NETWORKS = [(2, 0), (3, 0), (4, 0), (4, 1)]
# From one pixel on: smaller than a tile, one tile, odd, prime, many tiles.
SIZES = [(1, 1), (1, 5), (2, 1), (7, 12), (12, 12), (13, 24), (31, 17), (29, 37)]


@functools.cache
def tiny(scale, mid_blocks=0, features=8, **fields):
    """A small network whose every layer counts."""
    fields = {"low_blocks": 2, "high_blocks": 1, "bottleneck": features // 2} | fields
    model = network.BTSRN(
        scale,
        features,
        mid_blocks=mid_blocks,
        compute=network.Compute(jnp.float32, "cpu", jax.lax.Precision.HIGHEST),
        **fields,
    )
    shapes = jax.eval_shape(lambda: network.init(model, jax.random.key(0)))
    rng = np.random.default_rng(scale)

    def draw(leaf):
        inputs = max(1, np.prod(leaf.shape[:-1]))
        return rng.standard_normal(leaf.shape, np.float32) / np.sqrt(inputs)

    variables = jax.tree.map(draw, shapes)
    return model, variables


def devices(count):
    return mesh.make_mesh(jax.devices()[:count])


@functools.cache
def enlarger(scale, mid_blocks, ensemble):
    model, variables = tiny(scale, mid_blocks)
    enlarge = inference.TiledUpscaler(model, devices(2), TILE, ensemble)
    return functools.partial(enlarge, variables)


def photo(h, w, dtype=np.float32, seed=0):
    values = np.random.default_rng(seed).random((h, w, 3), np.float32)
    if dtype == np.float32:
        return values
    return np.round(values * np.iinfo(dtype).max).astype(dtype)


def whole(lr, scale, mid_blocks):
    """The network on a whole image at once, in NumPy, float64."""
    _, variables = tiny(scale, mid_blocks)
    pad = [(10, 10), (10, 10), (0, 0)]
    padded = np.pad(lr.astype(np.float64), pad, mode="symmetric")
    residual = reference.forward(variables["params"], padded, scale, 2, mid_blocks, 1)
    h, w = scale * lr.shape[0], scale * lr.shape[1]
    top, left = (
        (big - small) // 2 for big, small in zip(residual.shape, (h, w), strict=False)
    )
    return resize.imresize(lr, scale) + residual[top : top + h, left : left + w]


def naive_ensemble(lr, scale, mid_blocks):
    total = 0
    for flip in (False, True):
        for quarters in range(4):
            view = np.rot90(lr[:, ::-1] if flip else lr, quarters)
            sr = np.rot90(whole(view, scale, mid_blocks), -quarters)
            total = total + (sr[:, ::-1] if flip else sr)
    return total / 8


@pytest.mark.parametrize(("scale", "mid_blocks"), NETWORKS)
def test_tiles_give_the_pixels_of_the_whole_image(scale, mid_blocks):
    enlarge = enlarger(scale, mid_blocks, False)
    for h, w in SIZES:
        lr = photo(h, w)
        sr = enlarge(lr)
        assert sr.shape == (scale * h, scale * w, 3)
        np.testing.assert_allclose(sr, whole(lr, scale, mid_blocks), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("scale", "mid_blocks"), NETWORKS)
def test_the_ensemble_is_the_mean_over_eight_whole_images(scale, mid_blocks):
    enlarge = enlarger(scale, mid_blocks, True)
    for h, w in SIZES:
        lr = photo(h, w)
        expected = naive_ensemble(lr, scale, mid_blocks)
        np.testing.assert_allclose(enlarge(lr), expected, atol=1e-5, rtol=0)
    assert np.abs(expected - whole(lr, scale, mid_blocks)).max() > 1e-3


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("ensemble", [False, True])
def test_integers_are_rounded_once_and_clipped(dtype, ensemble):
    lr = photo(17, 9, dtype)
    levels = np.iinfo(dtype).max
    sr = enlarger(2, 0, ensemble)(lr)
    assert sr.dtype == dtype
    exact = (naive_ensemble if ensemble else whole)(lr / levels, 2, 0)
    assert exact.min() < 0  # or clipping would be untested
    assert exact.max() > 1
    # Half a level of rounding, and 1e-5 of arithmetic.
    assert np.abs(sr - exact.clip(0, 1) * levels).max() <= 0.5 + 1e-5 * levels


def test_images_of_different_sizes_cost_one_compilation():
    compilations = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compilations.append(duration)

    model, variables = tiny(2, features=6)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        enlarge = inference.TiledUpscaler(model, devices(8), TILE, True)
        for h, w in SIZES:
            enlarge(variables, photo(h, w, np.uint8))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert len(compilations) == 1


@pytest.mark.parametrize("ensemble", [False, True])
def test_eight_devices_share_the_work(ensemble):
    """The views of one tile divide as well as eight tiles do."""
    model, variables = tiny(2, features=32)
    flops = {}
    for count in (1, 8):
        enlarge = inference.TiledUpscaler(model, devices(count), TILE, ensemble)
        side = TILE + 2 * model.halo
        tiles = jnp.zeros((enlarge.batch, side, side, 3), jnp.uint8)
        compiled = enlarge.compiled.lower(variables, tiles).compile()
        units = enlarge.batch * (8 if ensemble else 1)
        # A loop's body is counted once: one device computes its units one by one.
        loops = units // count
        flops[count] = compiled.cost_analysis()["flops"] * loops / units
    assert flops[8] == pytest.approx(flops[1] / 8, rel=0.1)


def test_eight_devices_give_what_one_gives():
    model, variables = tiny(3)
    lr = photo(31, 17, np.uint16)
    one, eight = (
        inference.TiledUpscaler(model, devices(n), TILE, True)(variables, lr)
        for n in (1, 8)
    )
    assert np.abs(one.astype(int) - eight).max() <= 1


def test_progress_counts_every_pixel_and_never_goes_back():
    model, variables = tiny(2)
    seen = []
    inference.TiledUpscaler(model, devices(2), TILE)(
        variables, photo(30, 25), lambda *values: seen.append(values)
    )
    done = [value for value, _ in seen]
    assert {total for _, total in seen} == {750}
    assert done == sorted(set(done))
    assert done[-1] == 750


@pytest.mark.parametrize(
    "fields",
    [
        {"scale": 2},
        {"scale": 3, "block": "gated"},
        {"scale": 4, "mid_blocks": 1, "block": "pixelcnn"},
    ],
    ids=str,
)
def test_the_memory_of_a_tile_is_known_beforehand(fields):
    model, variables = tiny(features=32, low_blocks=3, high_blocks=2, **fields)
    enlarge = inference.TiledUpscaler(model, devices(1), 48)
    side = 48 + 2 * model.halo
    compiled = enlarge.compiled.lower(variables, np.zeros((1, side, side, 3), np.uint8))
    used = compiled.compile().memory_analysis().temp_size_in_bytes
    assert used <= inference.unit_bytes(model, 48) <= 2.5 * used


def test_tiles_follow_the_memory_budget():
    model, _ = tiny(2, features=32)
    plain = model.clone(compute=network.Compute())  # as on an accelerator
    unit = inference.unit_bytes(plain, 64) / 1e9

    def chosen(model, memory_gb, ensemble=False):
        enlarge = inference.TiledUpscaler(model, devices(2), 64, ensemble, memory_gb)
        return enlarge.tile, enlarge.group, enlarge.batch

    assert chosen(plain, 5 * unit) == (64, 4, 8)
    assert chosen(plain, 5 * unit, ensemble=True) == (64, 4, 1)
    assert chosen(plain, 1.1 * unit, ensemble=True) == (64, 1, 1)
    assert chosen(plain, 0.5 * unit) == (32, 1, 2)
    assert chosen(plain, 1e-9)[0] == inference.SMALLEST_TILE
    assert chosen(plain, 0.0)[1] > 1  # from the machine's own free memory
    assert chosen(model, 5 * unit) == (64, 1, 2)  # a CPU: one at a time


OUT_OF_MEMORY = """
import resource, sys
import jax, numpy as np
from btsrn_jax import mesh
from btsrn_jax.inference import tiling as inference
from btsrn_jax.network import btsrn as network

tile, memory_gb = int(sys.argv[1]), float(sys.argv[2])
model = network.BTSRN(2, 32, bottleneck=16, low_blocks=1, high_blocks=1)
variables = network.init(model, jax.random.key(0))
lr = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
devices = mesh.make_mesh()
expected = inference.TiledUpscaler(model, devices, 16, log=print)(variables, lr)
enlarge = inference.TiledUpscaler(model, devices, tile, False, memory_gb, log=print)
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
limit = used + 1_400_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
assert np.abs(enlarge(variables, lr).astype(int) - expected).max() <= 1
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize(
    ("tile", "memory_gb", "said"),
    [
        (1024, 5, "tiles of 512 pixels"),
        (512, 5, "2 tiles of 512 pixels at a time"),
    ],
)
def test_out_of_memory_halves_what_is_done_at_once(tile, memory_gb, said):
    """A real allocation fails: 1.9 GB where 1.4 are left, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY, str(tile), str(memory_gb)],
        capture_output=True,
        text=True,
        env=os.environ | {"XLA_FLAGS": ""},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()[0]
    assert first == f"out of memory on the device: going on with {said}"
