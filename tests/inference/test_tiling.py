"""Claims of tiling.py: tiles and the ensemble are exact; memory is bounded."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import reference
from jax.extend import core

from btsrn_jax import config as schema
from btsrn_jax import mesh, resize
from btsrn_jax.inference import cutting, tiling
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


def make(model, count=2, tile=TILE, ensemble=False):
    """A `TiledUpscaler` on so many devices, one tile at a time on each."""
    chosen = cutting.plan(model, count, 1e9, tile, ensemble)
    return tiling.TiledUpscaler(model, devices(count), chosen, ensemble)


@functools.cache
def upscaler(scale, mid_blocks, ensemble):
    model, variables = tiny(scale, mid_blocks)
    return functools.partial(make(model, ensemble=ensemble), variables)


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
    upscale = upscaler(scale, mid_blocks, False)
    for h, w in SIZES:
        lr = photo(h, w)
        sr = upscale(lr)
        assert sr.shape == (scale * h, scale * w, 3)
        np.testing.assert_allclose(sr, whole(lr, scale, mid_blocks), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("scale", "mid_blocks"), NETWORKS)
def test_the_ensemble_is_the_mean_over_eight_whole_images(scale, mid_blocks):
    upscale = upscaler(scale, mid_blocks, True)
    for h, w in SIZES:
        lr = photo(h, w)
        expected = naive_ensemble(lr, scale, mid_blocks)
        np.testing.assert_allclose(upscale(lr), expected, atol=1e-5, rtol=0)
    assert np.abs(expected - whole(lr, scale, mid_blocks)).max() > 1e-3


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("ensemble", [False, True])
def test_integers_are_rounded_once_and_clipped(dtype, ensemble):
    lr = photo(17, 9, dtype)
    levels = np.iinfo(dtype).max
    sr = upscaler(2, 0, ensemble)(lr)
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
        upscale = make(model, 8, ensemble=True)
        for h, w in SIZES:
            upscale(variables, photo(h, w, np.uint8))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert len(compilations) == 1


@pytest.mark.parametrize("ensemble", [False, True])
def test_eight_devices_share_the_work(ensemble):
    """The views of one tile divide as well as eight tiles do."""
    model, variables = tiny(2, features=32)
    flops = {}
    for count in (1, 8):
        upscale = make(model, count, ensemble=ensemble)
        side = TILE + 2 * model.halo
        tiles = jnp.zeros((upscale.plan.batch, side, side, 3), jnp.uint8)
        compiled = upscale.compiled.lower(variables, tiles).compile()
        units = upscale.plan.batch * (8 if ensemble else 1)
        # A loop's body is counted once: one device computes its units one by one.
        loops = units // count
        flops[count] = compiled.cost_analysis()["flops"] * loops / units
    assert flops[8] == pytest.approx(flops[1] / 8, rel=0.1)


def test_eight_devices_give_what_one_gives():
    model, variables = tiny(3)
    lr = photo(31, 17, np.uint16)
    one, eight = (make(model, count, ensemble=True)(variables, lr) for count in (1, 8))
    assert np.abs(one.astype(int) - eight).max() <= 1


def test_progress_counts_every_pixel_and_never_goes_back():
    model, variables = tiny(2)
    seen = []
    make(model)(variables, photo(30, 25), lambda *values: seen.append(values))
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
    side = 48 + 2 * model.halo
    tiles = np.zeros((1, side, side, 3), np.uint8)
    compiled = make(model, 1, 48).compiled.lower(variables, tiles).compile()
    used = compiled.memory_analysis().temp_size_in_bytes
    assert used <= cutting.unit_bytes(model, 48) <= 2.5 * used


def test_the_plan_follows_the_memory_and_measures_nothing():
    model, _ = tiny(2, features=32)
    unit = cutting.unit_bytes(model, 64)

    def plan(memory, ensemble=False, most=cutting.LARGEST_GROUP):
        return cutting.plan(model, 2, memory, 64, ensemble, most)

    assert plan(5 * unit) == (64, 4, 8)
    assert plan(5 * unit, ensemble=True) == (64, 4, 1)
    assert plan(1.1 * unit, ensemble=True) == (64, 1, 1)
    assert plan(0.5 * unit) == (32, 1, 2)
    assert plan(1).tile == cutting.SMALLEST_TILE
    assert plan(1e15).group == cutting.LARGEST_GROUP
    assert plan(5 * unit, most=1) == (64, 1, 2)  # a CPU: one at a time


def test_a_smaller_plan_has_fewer_tiles_at_once_then_smaller_ones():
    assert cutting.smaller(cutting.Plan(64, 4, 8), 2, False) == (64, 2, 4)
    assert cutting.smaller(cutting.Plan(64, 4, 1), 2, True) == (64, 2, 1)
    assert cutting.smaller(cutting.Plan(64, 1, 2), 2, False) == (32, 1, 2)
    assert cutting.smaller(cutting.Plan(24, 1, 2), 2, False) == (16, 1, 2)
    with pytest.raises(MemoryError, match="not even tiles of 16 pixels"):
        cutting.smaller(cutting.Plan(16, 1, 2), 2, False)


def test_the_memory_is_the_configs_or_half_of_what_the_machine_has(monkeypatch):
    monkeypatch.setattr(mesh, "platform", lambda devices: "plain")
    config = {"scale": 2, "model": schema.defaults().to_dict()["model"]}
    unit = cutting.unit_bytes(network.build(config["model"], 2), 64)
    for memory_gb, free, group in ((0, 5 * unit, 2), (5 * unit / 1e9, 1, 4)):
        monkeypatch.setattr(tiling, "free_memory", lambda devices, free=free: free)
        settings = {"eval": {"memory_gb": memory_gb, "tile": 64}}
        made = tiling.tiled_upscaler(config | settings, devices(2), False)
        assert made.plan[:2] == (64, group)
    monkeypatch.undo()
    assert tiling.free_memory(devices(2)) > 1e6


def count(name, jaxpr):
    """How many operations of that name a jaxpr holds, in whatever depth."""
    inner = [j for e in jaxpr.eqns for j in core.jaxprs_in_params(e.params)]
    here = sum(equation.primitive.name == name for equation in jaxpr.eqns)
    return here + sum(count(name, jaxpr) for jaxpr in inner)


def test_the_eight_views_are_mapped_by_vmap_not_written_out():
    """The traced ensemble holds the network once, as a single pass does, and each of
    the two flips once on the way in and once on the way back."""
    model, variables = tiny(2)
    model = model.clone(compute=network.Compute())
    side = TILE + 2 * model.halo
    tiles = np.zeros((1, side, side, 3), np.uint8)
    single, ensemble = (
        tiling.TiledUpscaler(model, devices(1), cutting.Plan(TILE, 1, 1), ensemble)
        .compiled.trace(variables, tiles)
        .jaxpr
        for ensemble in (False, True)
    )
    for name, added in (("conv_general_dilated", 0), ("rev", 4), ("concatenate", 0)):
        assert count(name, ensemble) == count(name, single) + added
    assert count("conv_general_dilated", single) == 3  # one for each block
