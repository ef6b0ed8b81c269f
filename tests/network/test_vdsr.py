"""Claims of vdsr.py: a NumPy reference, its counts and sizes, and that it trains."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import reference, tiny

from btsrn_jax import config as schema
from btsrn_jax import main, mesh, metrics
from btsrn_jax.errors import InputError
from btsrn_jax.evaluation import evaluate, figures
from btsrn_jax.inference import cutting, models
from btsrn_jax.inference import tiling as inference
from btsrn_jax.network import btsrn as network
from btsrn_jax.network import cost, vdsr
from btsrn_jax.network.btsrn import Compute
from btsrn_jax.resize import imresize
from btsrn_jax.training import step as train

EXACT = Compute(precision=jax.lax.Precision.HIGHEST)
SECTION = schema.defaults().model.to_dict() | {"name": "vdsr"}

super_resolve = jax.jit(network.super_resolve, static_argnums=0)


def build(scale=2, features=64, compute=EXACT):
    return network.build(SECTION | {"features": features}, scale, compute)


def init(model):
    return network.init(model, jax.random.key(0))


def random_variables(model, seed=0):
    """Draws values that keep the features near 1 through twenty layers."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: network.init(model, jax.random.key(0)))

    def draw(leaf):
        spread = (2 / math.prod(leaf.shape[:-1])) ** 0.5 if leaf.ndim == 4 else 0.1
        return (spread * rng.standard_normal(leaf.shape)).astype(np.float32)

    return jax.tree.map(draw, shapes)


def images(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


def luminance(image):
    """Returns MATLAB's luminance of values in [0, 1]."""
    return metrics.luminance(255 * np.asarray(image, np.float64)) / 255


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("platform", ["plain", "cpu"])
def test_it_adds_what_twenty_convolutions_give_to_the_luminance(scale, platform):
    model = build(scale, 4, EXACT._replace(platform=platform))
    variables = random_variables(model)
    lr = images(1, 27, 26, 3)
    enlarged = imresize(lr[0], scale)[2 * scale : -2 * scale, 2 * scale : -2 * scale]
    # The network has the luminance without its offset of 16.
    x = (luminance(enlarged) - 16 / 255 - 0.5)[..., None]
    params = variables["params"]
    for i in range(20):
        layer = {"kernel": params[f"kernel{i}"], "bias": params[f"bias{i}"]}
        x = reference.convolve(reference.relu(x) if i else x, layer)
    sr, state = super_resolve(model, variables, lr)
    assert state == {}
    assert sr.shape == (1, *x.shape[:2], 3)
    skip = enlarged[20:-20, 20:-20]
    assert np.abs(x).max() > 0.1
    np.testing.assert_allclose(luminance(sr[0]), luminance(skip) + x[..., 0], atol=2e-5)
    change = np.asarray(sr[0]) - skip  # the colours stay: all channels change alike
    np.testing.assert_allclose(change, change[..., :1].repeat(3, 2), atol=1e-6)


def test_it_has_the_published_number_of_parameters():
    # 576 + 18 * 36,864 + 576 weights, 19 * 64 + 1 biases: the 665 K of the literature.
    model = build()
    params = jax.eval_shape(lambda: network.init(model, jax.random.key(0)))["params"]
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    assert count == cost.parameter_count(model) == 665_921
    assert cost.multiply_adds(model) == 664_704
    assert model.multiply_adds == 664_704


@pytest.mark.parametrize("platform", ["plain", "cpu"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_its_operations_are_those_of_twenty_convolutions(platform, dtype):
    model = build(compute=Compute(jnp.dtype(dtype), platform))
    # 30 LR pixels, enlarged by 2 without the two that the skip reads on each side.
    sides = [2 * (30 - 4) - 2 * i for i in range(1, 21)]
    weights = [9 * 64, *[9 * 64 * 64] * 18, 9 * 64]
    products = [side**2 * n for side, n in zip(sides, weights, strict=True)]
    assert cost.forward_flops(model, 30) == 2 * sum(products)
    # Forward, the kernel's gradient, and the input's but for the first layer.
    assert cost.train_flops(model, 30) == 2 * (3 * sum(products) - products[0])


@pytest.mark.parametrize(
    ("scale", "halo", "side", "size"), [(2, 12, 54, 60), (3, 9, 36, 56), (4, 7, 27, 52)]
)
def test_halo_and_output_size_of_each_scale(scale, halo, side, size):
    model = build(scale, 2)
    assert model.halo == halo == math.ceil(20 / scale) + 2
    assert model.output_size(side) == size
    lr = jax.ShapeDtypeStruct((8, side, side, 3), jnp.float32)
    shapes = jax.eval_shape(lambda: network.init(model, jax.random.key(0)))
    sr, _ = jax.eval_shape(functools.partial(network.super_resolve, model), shapes, lr)
    assert sr.shape == (8, size, size, 3)


@pytest.mark.parametrize("scale", [2, 3])
def test_an_untrained_network_is_bicubic_and_tiles_are_seamless(scale):
    model = build(scale, 4).clone(layers=5)  # fewer layers compile sooner
    lr = (255 * images(21, 30, 3)).astype(np.uint8)
    one = mesh.make_mesh(jax.devices()[:1])
    small, large = (
        inference.TiledUpscaler(model, one, cutting.Plan(n, 1, 1)) for n in (10, 32)
    )
    enlarged = small(init(model), lr)
    wanted = np.floor(imresize(lr / 255.0, scale).clip(0, 1) * 255 + 0.5)
    assert np.abs(enlarged - wanted).max() <= 1  # rounding of float32
    assert (enlarged != wanted).mean() < 0.01

    variables = random_variables(model)
    in_tiles, whole = (enlarge(variables, lr) for enlarge in (small, large))
    assert (in_tiles != enlarged).any()
    assert np.abs(in_tiles.astype(int) - whole).max() <= 1
    assert (in_tiles != whole).mean() < 0.01


def test_its_loss_sees_luminance_alone():
    model = build(2, 2)
    hr = images(1, 4, 4, 3)
    # 65.481 red against 24.966 blue: the luminance is the same.
    other = hr + np.float32([0.1, 0, -0.1 * 65.481 / 24.966])
    assert np.abs(model.loss_difference(other, hr)).max() < 1e-6
    brighter = model.loss_difference(hr + np.float32(0.1), hr)
    np.testing.assert_allclose(brighter, np.full((1, 4, 4, 1), 21.9 / 255), rtol=1e-4)
    btsrn = network.build(schema.defaults().model, 2)
    np.testing.assert_array_equal(btsrn.loss_difference(other, hr), other - hr)


def test_kernels_start_as_he_has_it_so_that_twenty_layers_do_not_fade():
    params = init(build(2, 16))["params"]
    for i in range(19):
        kernel = np.asarray(params[f"kernel{i}"])
        fan_in = 9 * (16 if i else 1)
        many = 4 / math.sqrt(kernel.size)
        assert kernel.std() == pytest.approx(math.sqrt(2 / fan_in), rel=many)
    assert not params["kernel19"].any()
    assert not any(params[f"bias{i}"].any() for i in range(20))


def test_a_field_that_it_does_not_take_is_refused():
    config = schema.defaults()
    config.model.name = "vdsr"
    schema.validate(config)
    config.model.features = 64
    schema.validate(config)
    config.model.high_blocks = 5
    with pytest.raises(
        InputError, match=r"config\.model\.high_blocks is 5: vdsr takes"
    ):
        schema.validate(config)


def test_a_run_from_before_the_field_goes_on():
    config = tiny.config().to_dict()
    saved = config | {
        "model": {k: v for k, v in config["model"].items() if k != "name"}
    }
    assert schema.contradictions(saved, config) == []
    config["model"]["name"] = "vdsr"
    assert schema.contradictions(saved, config) == [
        "config.model.name was 'btsrn', now 'vdsr'"
    ]


def test_it_trains_is_evaluated_and_opened_by_the_same_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tiny.ROOT)
    fewer = functools.partial(vdsr.VDSR, layers=3)  # they compile sooner
    monkeypatch.setattr(vdsr, "VDSR", fewer)
    photos = tiny.write_photos(tmp_path / "photos", ((64, 72), (60, 60)))
    run = tmp_path / "run"
    row = ["main", "--config", "configs/ablation.py:vdsr-x2,small", f"--workdir={run}"]
    fields = {
        "data.source": "folder",
        "data.hr_dir": photos,
        "eval.sets": repr((str(photos),)),
        "eval.tile": 16,
        "model.features": 4,
        "train.batch_size": 8,
        "train.patch": 56,
        "train.warmup_steps": 0,
        "train.steps": 3,
    }
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    assert main.run([*row, *flags]) == 0
    rows = figures.read_csv(run / "validation.csv")
    assert {r.model for r in rows} == {"bicubic", "vdsr"}
    model = models.load_model(str(run), runtime="jax")
    assert model.scale == 2
    assert model(np.zeros((5, 7, 3), np.uint8)).shape == (10, 14, 3)
    assert train.make_recipe(tiny.config(), mesh.make_mesh()).model.norm == "none"
    assert evaluate.mean_row([r for r in rows if r.image != "mean"], "ntire").psnr > 5
