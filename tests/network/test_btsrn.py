"""Claims of btsrn.py, cost.py and geometry.py: a NumPy reference, parameters and
operations, halos and sizes, and how a network starts."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import reference

from btsrn_jax.errors import InputError
from btsrn_jax.network import btsrn, choices, cost
from btsrn_jax.network.btsrn import BTSRN, Compute
from btsrn_jax.network.onnx_graph import build_onnx
from btsrn_jax.resize import imresize

EXACT = Compute(precision=jax.lax.Precision.HIGHEST)
CPU = EXACT._replace(platform="cpu")
SCALES = (2, 3, 4)
SMALL = {"features": 8, "bottleneck": 4, "compute": EXACT}

super_resolve = jax.jit(btsrn.super_resolve, static_argnums=0)
train = jax.jit(functools.partial(btsrn.super_resolve, train=True), static_argnums=0)
residual_of = jax.jit(lambda model, *args: model.apply(*args), static_argnums=0)


def images(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


def shapes_of(model):
    """Returns the shapes of fresh variables; nothing is computed."""
    return jax.eval_shape(lambda: btsrn.init(model, jax.random.key(0)))


def random_variables(model, seed=1):
    """Draws values for every leaf, biases and the last layer included.

    Kernels shrink their inputs a little, so that sums over many blocks stay near 1.
    """
    rng = np.random.default_rng(seed)

    def draw(leaf):
        spread = math.prod(leaf.shape[:-1]) ** -0.5 if leaf.ndim == 4 else 0.1
        return (spread * rng.standard_normal(leaf.shape)).astype(np.float32)

    return jax.tree.map(draw, shapes_of(model))


def kernels_of(params):
    """Returns the path and the kernel of each convolution."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    named = ((jax.tree_util.keystr(path), leaf) for path, leaf in leaves)
    return [(path, leaf) for path, leaf in named if path.endswith("['kernel']")]


# --- against the reference


def check_against_reference(model, lr):
    variables = random_variables(model)
    residual = residual_of(model, variables, jnp.asarray(lr))
    counts = (model.low_blocks, model.mid_blocks, model.high_blocks)
    for image, value in zip(lr, residual, strict=True):
        expected = reference.forward(
            variables["params"],
            image,
            model.scale,
            *counts,
            model.activation,
            model.block,
        )
        assert value.shape == expected.shape
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
@pytest.mark.parametrize(("scale", "mid"), [(2, 0), (3, 0), (4, 0), (4, 1)])
def test_the_network_agrees_with_the_reference(scale, mid, activation):
    model = BTSRN(
        scale,
        low_blocks=2,
        mid_blocks=mid,
        high_blocks=3,
        activation=activation,
        **SMALL,
    )
    check_against_reference(model, images(2, 9, 8, 3))


@pytest.mark.parametrize("compute", [EXACT, CPU], ids=["plain", "cpu"])
def test_the_papers_network_agrees_with_the_reference(compute):
    check_against_reference(BTSRN(2, compute=compute), images(1, 18, 17, 3))


@pytest.mark.parametrize("kind", ["pixelcnn", "gated", "gated_pp"])
def test_the_other_blocks_agree_with_the_reference(kind):
    model = BTSRN(3, low_blocks=2, high_blocks=1, block=kind, **SMALL)
    check_against_reference(model, images(1, 7, 8, 3))


@pytest.mark.parametrize(
    ("scale", "low", "high"), [(2, 1, 3), (4, 2, 0), (3, 0, 1), (2, 0, 4)]
)
def test_the_result_is_the_bicubic_skip_plus_the_residual(scale, low, high):
    # What the network loses on each side, and the two LR pixels that the skip loses.
    lost, border = scale * low + high, max(scale * low + high, 2 * scale)
    model = BTSRN(scale, low_blocks=low, high_blocks=high, **SMALL)
    variables = random_variables(model)
    lr = images(1, 9, 8, 3)
    residual = reference.forward(variables["params"], lr[0], scale, low, 0, high)
    expected = imresize(lr[0], scale)[border:-border, border:-border]
    inside = border - lost
    expected += residual[inside : len(residual) - inside, inside : -inside or None]
    sr, _ = super_resolve(model, variables, lr)
    assert sr.shape == (1, *expected.shape)
    np.testing.assert_allclose(sr[0], expected, rtol=1e-5, atol=1e-5)


def test_mid_blocks_are_between_two_upsamplings_or_nowhere():
    for scale in (2, 3):
        without, given = (BTSRN(scale, mid_blocks=n) for n in (0, 1))
        assert shapes_of(without) == shapes_of(given)
        assert cost.parameter_count(without) == cost.parameter_count(given)
        assert cost.multiply_adds(without) == cost.multiply_adds(given)
        assert without.halo == given.halo
        assert without.output_size(40) == given.output_size(40)


# --- by hand


def one_channel_block(center, neighbour):
    """Returns the parameters of a block of one channel: `down` is 2 x + 1, and `conv`
    weighs a pixel and its right neighbour, with a bias of 0.5."""
    kernel = np.zeros((3, 3, 1, 1), np.float32)
    kernel[1, 1], kernel[1, 2] = center, neighbour
    return {
        "down": {"kernel": np.full((1, 1, 1, 1), 2.0), "bias": np.ones(1)},
        "conv": {"kernel": kernel, "bias": np.full(1, 0.5)},
    }


def test_a_block_and_an_upsampler_by_hand():
    # `in` sums red, green and blue minus a half each: the grey 0.5 + v / 3 gives v.
    params = {
        "in": {"kernel": np.ones((1, 1, 3, 1)), "bias": np.zeros(1)},
        "low0": one_channel_block(10, 1),
        "up0": {
            "kernel": np.array([1.0, 2, 3, 4]).reshape(2, 2, 1, 1),
            "bias": np.full(1, 0.25),
        },
        "out": {
            "kernel": np.array([1.0, -1, 2]).reshape(1, 1, 1, 3),
            "bias": np.ones(3),
        },
    }
    params["out"]["bias"] = np.array([0.0, 5, 0])
    variables = {"params": jax.tree.map(jnp.float32, params)}
    v = np.zeros((1, 3, 4, 1), np.float32)
    v[0, 1, :, 0] = [9, 2, -1, 3]
    lr = np.repeat(0.5 + v / 3, 3, axis=3)
    model = BTSRN(
        2, features=1, bottleneck=1, low_blocks=1, high_blocks=0, compute=EXACT
    )
    residual = residual_of(model, variables, lr)[0]
    # relu(2 relu(v) + 1) is 5, 1, 7 at v = 2, -1, 3;
    # the block: 2 + 10 * 5 + 1 + 0.5 = 53.5 and -1 + 10 * 1 + 7 + 0.5 = 16.5;
    # the upsampler: v + (1, 2, 3, 4) v + 0.25.
    up = np.array(
        [[107.25, 160.75, 33.25, 49.75], [214.25, 267.75, 66.25, 82.75]], np.float32
    )
    expected = np.stack([up, 5 - up, 2 * up], axis=2)
    np.testing.assert_allclose(residual, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "branch"),
    [
        # 3x3: the centre, 1, and the right neighbour, relu(2 * 4 - 5) = 3, times 0.25:
        # act(1.75), doubled, and 0.5.
        ("pixelcnn", 4.0),
        # Its halves are a = ln 2 * 1 and b = ln 3 * 1: tanh(ln 2) = (4 - 1) / (4 + 1),
        # sigmoid(ln 3) = 3 / 4.
        ("gated", 0.6 * 0.75),
        ("gated_pp", math.log(2) * 0.75),
    ],
)
def test_the_other_blocks_by_hand(kind, branch):
    down = {"kernel": np.full((1, 1, 1, 1), 2.0), "bias": np.full(1, -5.0)}
    kernel = np.zeros((3, 3, 1, 1 if kind == "pixelcnn" else 2))
    layers = {
        "down": down,
        "conv": {"kernel": kernel, "bias": np.zeros(kernel.shape[3])},
    }
    if kind == "pixelcnn":
        kernel[1, 1], kernel[1, 2] = 1, 0.25
        layers["up"] = {"kernel": np.full((1, 1, 1, 1), 2.0), "bias": np.full(1, 0.5)}
    else:
        kernel[1, 1] = math.log(2), math.log(3)
    x = np.full((1, 3, 3, 1), -9.0)  # closed by the first activation
    x[0, 1, 1:, 0] = 3, 4
    block = btsrn.Block(
        kind,
        1,
        lambda x, name: jax.nn.relu(x),
        functools.partial(btsrn.Conv, compute=EXACT),
    )
    params = jax.tree.map(jnp.float32, {"params": layers})
    y = block.apply(params, jnp.float32(x))
    np.testing.assert_allclose(y, [[[[3 + branch]]]], rtol=1e-5)


def test_an_unknown_block_is_refused_and_never_taken_for_another():
    model = BTSRN(2, low_blocks=1, high_blocks=0, block="resnet", **SMALL)
    with pytest.raises(ValueError, match="'resnet': one of pconv, pixelcnn, gated"):
        shapes_of(model)


@pytest.mark.parametrize(
    ("field", "value"),
    [("block", "resnet"), ("norm", "group"), ("activation", "gelu")],
)
def test_a_part_without_nodes_is_refused_by_the_onnx_graph(field, value):
    variables = random_variables(BTSRN(2, low_blocks=1, high_blocks=0, **SMALL))
    model = BTSRN(2, low_blocks=1, high_blocks=0, **SMALL | {field: value})
    with pytest.raises(InputError, match=f"no ONNX form of {field} {value}"):
        build_onnx(model, variables, {})


@pytest.mark.parametrize(
    ("activation", "copies"), [("relu", -2.0), ("leaky_relu", -2.0 - 0.4)]
)
def test_the_skip_of_the_upsampler_is_not_activated(activation, copies):
    # v = -2 everywhere: nearest gives -2, the deconvolution of ones act(-2).
    params = {
        "in": {"kernel": np.ones((1, 1, 3, 1)), "bias": np.full(1, -2)},
        "up0": {"kernel": np.ones((3, 3, 1, 1)), "bias": np.full(1, 4)},
        "out": {"kernel": np.ones((1, 1, 1, 3)), "bias": np.zeros(3)},
    }
    variables = {"params": jax.tree.map(jnp.float32, params)}
    model = BTSRN(
        3,
        features=1,
        bottleneck=1,
        low_blocks=0,
        high_blocks=0,
        activation=activation,
        compute=EXACT,
    )
    residual = residual_of(model, variables, jnp.full((1, 2, 1, 3), 0.5))
    np.testing.assert_allclose(residual, np.full((1, 6, 3, 3), 4 + copies), rtol=1e-6)


# --- counts


@functools.cache
def started(scale, mid):
    """Returns fresh parameters of the paper's network, made once for all tests."""
    return btsrn.init(BTSRN(scale, mid_blocks=mid), jax.random.key(0))["params"]


@pytest.mark.parametrize(
    ("scale", "mid", "count"),
    [(2, 0, 887_683), (3, 0, 969_603), (4, 0, 953_347), (4, 1, 1_035_459)],
)
def test_the_papers_networks_have_their_parameters(scale, mid, count):
    leaves = jax.tree.leaves(started(scale, mid))
    assert sum(leaf.size for leaf in leaves) == count
    assert cost.parameter_count(BTSRN(scale, mid_blocks=mid)) == count


def test_each_layer_has_the_papers_parameters():
    def counts(model):
        tree = shapes_of(model)["params"]
        return {
            name: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(layer))
            for name, layer in tree.items()
        }

    blocks = {
        f"{stage}{i}": 82_112
        for stage, n in (("low", 6), ("high", 4))
        for i in range(n)
    }
    ends = {"in": 512, "out": 387}
    assert counts(BTSRN(2)) == blocks | ends | {"up0": 65_664}
    assert counts(BTSRN(3)) == blocks | ends | {"up0": 147_584}
    assert counts(BTSRN(4)) == blocks | ends | {"up0": 65_664, "up1": 65_664}


@pytest.mark.parametrize("kind", choices.BLOCKS)
@pytest.mark.parametrize("norm", choices.NORMS)
def test_the_parameter_count_holds_for_every_variant(kind, norm):
    for scale, (low, mid, high) in itertools.product(SCALES, [(2, 1, 3), (0, 0, 0)]):
        model = BTSRN(
            scale,
            features=10,
            bottleneck=6,
            low_blocks=low,
            mid_blocks=mid,
            high_blocks=high,
            block=kind,
            norm=norm,
        )
        leaves = jax.tree.leaves(shapes_of(model)["params"])
        count = sum(math.prod(leaf.shape) for leaf in leaves)
        assert cost.parameter_count(model) == count, model


@pytest.mark.parametrize(
    ("scale", "per_hr_pixel", "per_lr_pixel"),
    [(2, 467_424, 1.87e6), (3, 399_104, 3.59e6), (4, 379_288, 6.07e6)],
)
def test_the_papers_networks_have_their_multiply_adds(
    scale, per_hr_pixel, per_lr_pixel
):
    # x2: (384 + 6 * 81,920) / 4 + 16,384 + 4 * 81,920 + 384.
    value = cost.multiply_adds(BTSRN(scale))
    assert value == pytest.approx(per_hr_pixel, rel=1e-9)
    assert value * scale**2 == pytest.approx(per_lr_pixel, abs=0.005e6)


def test_a_mid_block_costs_a_quarter_of_an_hr_block():
    with_mid, without = (BTSRN(4, mid_blocks=n) for n in (1, 0))
    more = cost.multiply_adds(with_mid) - cost.multiply_adds(without)
    assert more == pytest.approx(81_920 / 4)


def test_720p_at_x2_costs_431_g():
    assert cost.multiply_adds(BTSRN(2)) * 1280 * 720 == pytest.approx(431e9, abs=5e8)


def test_training_memory_bears_out_the_papers_claims_on_blocks():
    """Figure 4, 128/32: gated blocks take nearly double time and memory, PConv takes
    less memory than PixelCNN."""

    def costs(kind, batch=32):
        model = BTSRN(2, bottleneck=32, block=kind)
        kept = cost.kept_for_gradient(model, batch, 54)
        return kept, cost.multiply_adds(model)

    (gated, gated_adds), (pconv, adds) = costs("gated_pp"), costs("pconv")
    assert 1.7 < gated / pconv < 2
    assert 1.7 < gated_adds / adds < 2
    assert pconv < 0.9 * costs("pixelcnn")[0]
    # What goes into the convolutions of the ten blocks, and into the activations before
    # them, at the blocks' input sizes.
    lr_sides, hr_sides = range(54, 42, -2), range(84, 76, -2)
    pixels = sum(n**2 for n in (*lr_sides, *hr_sides))
    assert 1 < pconv / (32 * 4 * (128 + 32) * pixels) < 3
    assert costs("pconv", 64)[0] == pytest.approx(2 * pconv, rel=0.01)


# --- sizes and halos


@pytest.mark.parametrize(
    ("scale", "mid", "side", "expected"),
    [(2, 0, 54, 76), (3, 0, 36, 64), (4, 0, 27, 52), (4, 1, 27, 48)],
)
def test_a_patch_of_108_gives_the_papers_output(scale, mid, side, expected):
    model = BTSRN(scale, mid_blocks=mid)
    assert model.output_size(side) == expected
    lr = jax.ShapeDtypeStruct((32, side, side, 3), jnp.float32)
    sr, _ = jax.eval_shape(
        functools.partial(btsrn.super_resolve, model), shapes_of(model), lr
    )
    assert sr.shape == (32, expected, expected, 3)
    assert sr.dtype == jnp.float32


@pytest.mark.parametrize(
    ("scale", "mid", "expected"), [(2, 0, 8), (3, 0, 8), (4, 0, 7), (4, 1, 8)]
)
def test_halos_of_the_papers_networks(scale, mid, expected):
    model = BTSRN(scale, mid_blocks=mid)
    assert model.halo == expected
    # Of a tile of t + 2 halo pixels s t are wanted; so many more are left on each side.
    spare = 2 if mid else {2: 0, 3: 2, 4: 0}[scale]
    assert model.output_size(10 + 2 * expected) == 10 * scale + 2 * spare


BLOCKS_AT = [
    *itertools.product(SCALES, [(6, 0, 4), (1, 0, 5), (0, 0, 0)]),
    (4, (6, 1, 4)),
    (4, (1, 2, 1)),
]


@pytest.mark.parametrize(("scale", "blocks"), BLOCKS_AT)
def test_an_hr_pixel_sees_its_halo_and_nothing_beyond(scale, blocks):
    low, mid, high = blocks
    model = BTSRN(
        scale,
        features=4,
        bottleneck=4,
        low_blocks=low,
        mid_blocks=mid,
        high_blocks=high,
        compute=EXACT,
    )
    # With nothing negative, no activation closes a path and no path cancels another.
    variables = jax.tree.map(np.abs, random_variables(model))
    halo = model.halo
    side = 2 * halo + 3  # one more than the halo on each side of the centre
    center = halo + 1
    changes = [(center, 0), (0, center), (0, 0), (-1, -1)]  # beyond
    changes += [(center, 1), (1, center), (1, 1), (-2, -2), (1, -2), (center, -2)]
    lr = np.repeat(0.5 + images(1, side, side, 3), len(changes) + 1, axis=0)
    for image, (y, x) in zip(lr[1:], changes, strict=True):
        image[y, x] += 1e6  # against a corner's weight, a product of ten small ones
    sr, _ = super_resolve(model, variables, lr)
    assert sr.shape[1] == sr.shape[2] == model.output_size(side)
    start = scale * center - (scale * side - sr.shape[1]) // 2
    pixel = np.asarray(sr)[:, start : start + scale, start : start + scale]
    assert pixel.shape[1:] == (scale, scale, 3)
    changed = [(image != pixel[0]).any() for image in pixel[1:]]
    assert changed == [False] * 4 + [True] * 6


@pytest.mark.parametrize(("scale", "mid"), [(2, 0), (3, 0), (4, 0), (4, 1)])
def test_a_crop_of_the_input_gives_a_crop_of_the_output(scale, mid):
    model = BTSRN(scale, low_blocks=1, mid_blocks=mid, high_blocks=2, **SMALL)
    variables = random_variables(model)
    lr = images(1, 14, 15, 3)
    whole, _ = super_resolve(model, variables, lr)
    part, _ = super_resolve(model, variables, lr[:, 2:13, 3:15])
    h, w = part.shape[1:3]
    inside = whole[:, 2 * scale : 2 * scale + h, 3 * scale : 3 * scale + w]
    np.testing.assert_allclose(part, inside, rtol=1e-5, atol=1e-5)


# --- how it starts


@pytest.mark.parametrize(("scale", "mid"), [(2, 0), (3, 0), (4, 0), (4, 1)])
def test_an_untrained_network_is_bicubic(scale, mid):
    model = BTSRN(scale, low_blocks=3, mid_blocks=mid, high_blocks=2, **SMALL)
    variables = btsrn.init(model, jax.random.key(3))
    lr = images(1, 13, 12, 3)
    sr, state = super_resolve(model, variables, lr)
    assert state == {}
    enlarged = imresize(lr[0], scale)
    lost = [(enlarged.shape[axis] - sr.shape[axis + 1]) // 2 for axis in (0, 1)]
    assert lost[0] == lost[1] > 0
    inside = enlarged[lost[0] : -lost[0], lost[1] : -lost[1]]
    np.testing.assert_allclose(sr[0], inside, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "norm"),
    [
        ("pconv", "batch"),
        ("pixelcnn", "weight"),
        ("gated", "none"),
        ("gated_pp", "none"),
    ],
)
def test_an_untrained_network_predicts_a_residual_of_zero(kind, norm):
    model = BTSRN(2, low_blocks=1, high_blocks=1, block=kind, norm=norm, **SMALL)
    variables = btsrn.init(model, jax.random.key(0))
    residual = residual_of(model, variables, images(1, 6, 6, 3))
    np.testing.assert_array_equal(residual, np.zeros((1, 6, 6, 3)))


def test_a_network_without_blocks_is_cut_to_the_two_pixels_of_the_skip():
    model = BTSRN(3, low_blocks=0, high_blocks=1, **SMALL)
    variables = btsrn.init(model, jax.random.key(3))
    lr = images(1, 6, 7, 3)
    sr, _ = super_resolve(model, variables, lr)
    assert sr.shape == (1, 6, 9, 3)
    np.testing.assert_allclose(sr[0], imresize(lr[0], 3)[6:-6, 6:-6], atol=1e-6)


@pytest.mark.parametrize(("scale", "mid"), [(2, 0), (3, 0), (4, 1)])
def test_kernels_start_glorot_uniform_biases_and_the_last_layer_zero(scale, mid):
    params = started(scale, mid)
    for path, kernel in kernels_of(params):
        if "'out'" in path:
            assert not kernel.any()
            continue
        height, width, fan_in, fan_out = kernel.shape
        bound = math.sqrt(6 / (height * width * (fan_in + fan_out)))
        largest = np.abs(kernel).max()
        assert 0.95 * bound < largest <= bound * (1 + 1e-6), path
        # Uniform in [-b, b]: mean 0, standard deviation b / sqrt(3).
        many = 6 / math.sqrt(kernel.size)
        assert kernel.std() == pytest.approx(bound / math.sqrt(3), rel=many), path
        assert abs(kernel.mean()) < bound * many, path
    leaves = jax.tree_util.tree_leaves_with_path(params)
    biases = [leaf for path, leaf in leaves if path[-1].key == "bias"]
    assert len(biases) == len(kernels_of(params)) == len(leaves) // 2
    assert not any(bias.any() for bias in biases)


def test_layers_start_different_and_keys_decide():
    model = BTSRN(2, low_blocks=2, high_blocks=1, **SMALL)
    first, same, other = (btsrn.init(model, jax.random.key(n)) for n in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, same)
    kernel = first["params"]["low0"]["conv"]["kernel"]
    assert (kernel != other["params"]["low0"]["conv"]["kernel"]).all()
    assert (kernel != first["params"]["low1"]["conv"]["kernel"]).all()


def test_weight_normalisation_changes_nothing_at_the_start():
    plain, normed = (
        BTSRN(2, low_blocks=1, high_blocks=1, norm=norm, **SMALL)
        for norm in ("none", "weight")
    )
    variables = random_variables(plain)
    params = {"params": _with_lengths(variables["params"])}
    lr = images(1, 8, 8, 3)
    np.testing.assert_allclose(
        residual_of(normed, params, lr),
        residual_of(plain, variables, lr),
        rtol=1e-5,
        atol=1e-5,
    )
    started = btsrn.init(normed, jax.random.key(0))["params"]
    for name in ("in", "up0"):
        kernel = np.asarray(started[name]["kernel"], np.float64)
        norm = np.sqrt((kernel**2).sum(axis=(0, 1, 2)))
        np.testing.assert_allclose(started[name]["length"], norm, rtol=1e-6)


def _with_lengths(tree):
    if "kernel" not in tree:
        return {name: _with_lengths(value) for name, value in tree.items()}
    length = np.sqrt((tree["kernel"] ** 2).sum(axis=(0, 1, 2)))
    # The direction's own length does not matter.
    return {**tree, "kernel": 3 * tree["kernel"], "length": length}


def test_batch_normalisation_learns_statistics_in_training_alone():
    model = BTSRN(2, low_blocks=1, high_blocks=0, norm="batch", **SMALL)
    variables = btsrn.init(model, jax.random.key(0))
    lr = images(2, 6, 6, 3)
    before = variables["batch_stats"]
    _, state = train(model, variables, lr)
    _, unchanged = super_resolve(model, variables, lr)
    assert jax.tree.structure(state["batch_stats"]) == jax.tree.structure(before)
    assert unchanged == {}
    moved = jax.tree.map(
        lambda a, b: bool((a != b).any()), state["batch_stats"], before
    )
    assert all(jax.tree.leaves(moved))


def test_training_of_a_network_without_statistics_has_no_state():
    model = BTSRN(2, low_blocks=1, high_blocks=0, **SMALL)
    variables = btsrn.init(model, jax.random.key(0))
    assert set(variables) == {"params"}
    _, state = train(model, variables, images(1, 6, 6, 3))
    assert state == {}


# --- precision


def test_bfloat16_keeps_parameters_skip_and_result_in_float32():
    model = BTSRN(
        2,
        features=8,
        bottleneck=4,
        low_blocks=1,
        high_blocks=1,
        compute=Compute(dtype=jnp.bfloat16),
    )
    started = btsrn.init(model, jax.random.key(0))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(started))
    lr = images(1, 8, 8, 3)
    sr, _ = super_resolve(model, started, lr)
    assert sr.dtype == jnp.float32
    # The skip is float32: bfloat16 would be 0.002 off.
    np.testing.assert_allclose(sr[0], imresize(lr[0], 2)[4:-4, 4:-4], atol=1e-6)

    variables = random_variables(model)
    rough = residual_of(model, variables, lr)
    fine = residual_of(model.clone(compute=EXACT), variables, lr)
    assert rough.dtype == jnp.float32
    difference = np.abs(rough - fine).max() / np.abs(fine).max()
    assert 1e-4 < difference < 0.05


def test_gradients_of_bfloat16_are_float32():
    model = BTSRN(
        2,
        features=8,
        bottleneck=4,
        low_blocks=1,
        high_blocks=1,
        compute=Compute(dtype=jnp.bfloat16, platform="cpu"),
    )
    variables = random_variables(model)
    lr = images(1, 8, 8, 3)

    def loss(params):
        sr, _ = btsrn.super_resolve(model, {"params": params}, lr)
        return jnp.mean(sr**2)

    gradients = jax.jit(jax.grad(loss))(variables["params"])
    leaves = jax.tree.leaves(gradients)
    assert all(leaf.dtype == jnp.float32 and leaf.any() for leaf in leaves)


def test_a_config_section_builds_the_network_but_for_its_dtype():
    section = {
        "features": 32,
        "bottleneck": 16,
        "low_blocks": 3,
        "mid_blocks": 1,
        "high_blocks": 2,
        "block": "gated",
        "norm": "weight",
        "activation": "leaky_relu",
        "dtype": "bfloat16",
    }
    model = btsrn.build(section, 4, EXACT)
    assert (model.scale, model.compute) == (4, EXACT)
    for name in section.keys() - {"dtype"}:
        assert getattr(model, name) == section[name]
