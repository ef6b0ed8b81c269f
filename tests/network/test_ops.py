"""Claims of ops.py: values, gradients of the CPU forms, and how they are called."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from btsrn_jax.network import ops

PLATFORMS = ("plain", "cpu")
HIGHEST = jax.lax.Precision.HIGHEST


def conv_reference(x, kernel, bias):
    """Convolves VALID in float64, one output pixel at a time."""
    size = kernel.shape[0]
    h, w = x.shape[1] - size + 1, x.shape[2] - size + 1
    out = np.empty((len(x), h, w, kernel.shape[3]))
    for y in range(h):
        for z in range(w):
            window = x[:, y : y + size, z : z + size].astype(np.float64)
            out[:, y, z] = np.tensordot(window, kernel.astype(np.float64), 3) + bias
    return out


def deconv_reference(x, kernel, bias, scale):
    """Lets each input pixel paint its own square of scale x scale, in float64."""
    batch, h, w, _ = x.shape
    out = np.empty((batch, scale * h, scale * w, kernel.shape[3]))
    for y in range(scale * h):
        for z in range(scale * w):
            pixel = x[:, y // scale, z // scale].astype(np.float64)
            out[:, y, z] = pixel @ kernel[y % scale, z % scale] + bias
    return out


def draw(*shapes, dtype=np.float32):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_convolutions_agree_with_a_numpy_loop(platform):
    x, pixel, window, bias = draw((2, 6, 7, 5), (1, 1, 5, 4), (3, 3, 5, 4), (4,))
    for op, kernel in ((ops.conv1x1, pixel), (ops.conv3x3, window)):
        y = op(x, kernel, bias, platform, HIGHEST)
        np.testing.assert_allclose(
            y, conv_reference(x, kernel, bias), rtol=1e-5, atol=1e-5
        )
        assert y.dtype == jnp.float32


@pytest.mark.parametrize("platform", PLATFORMS)
def test_conv3x3_counts_the_pixels_under_a_kernel_of_ones(platform):
    x = jnp.arange(12.0).reshape(1, 3, 4, 1)  # rows 0 1 2 3, 4 5 6 7, 8 9 10 11
    y = ops.conv3x3(x, jnp.ones((3, 3, 1, 1)), jnp.array([0.5]), platform)
    np.testing.assert_array_equal(y[0, :, :, 0], [[45.5, 54.5]])
    # Correlation, not convolution: the kernel is not turned.
    corner = jnp.zeros((3, 3, 1, 1)).at[0, 2].set(1.0)
    y = ops.conv3x3(x, corner, jnp.zeros(1), platform)
    np.testing.assert_array_equal(y[0, :, :, 0], [[2.0, 3.0]])


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("scale", [2, 3])
def test_deconv_agrees_with_a_numpy_loop(platform, scale):
    x, kernel, bias = draw((2, 3, 4, 5), (scale, scale, 5, 6), (6,))
    y = ops.deconv(x, kernel, bias, scale, platform, HIGHEST)
    np.testing.assert_allclose(
        y, deconv_reference(x, kernel, bias, scale), rtol=1e-5, atol=1e-5
    )


def test_deconv_of_one_pixel_paints_the_kernel():
    kernel = jnp.arange(4.0).reshape(2, 2, 1, 1)
    x = jnp.array([10.0, 20.0]).reshape(1, 1, 2, 1)
    y = ops.deconv(x, kernel, jnp.array([1.0]), 2)
    np.testing.assert_array_equal(y[0, :, :, 0], [[1, 11, 1, 21], [21, 31, 41, 61]])


def test_nearest_copies_and_crop_cuts():
    x = jnp.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 2, 1)
    y = ops.nearest(x, 2)
    np.testing.assert_array_equal(
        y[0, :, :, 0], [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    )
    np.testing.assert_array_equal(ops.crop(y, 1), x)
    np.testing.assert_array_equal(ops.crop(y, 0), y)


CASES = {
    "conv1x1": (ops.conv1x1, (3, 8, 9, 6), (1, 1, 6, 4), {}),
    "conv3x3": (ops.conv3x3, (3, 8, 9, 6), (3, 3, 6, 4), {}),
    "deconv": (ops.deconv, (3, 4, 5, 6), (2, 2, 6, 4), {"scale": 2}),
}


@pytest.fixture(params=CASES)
def case(request):
    """Gives an operation, (x, kernel, bias) drawn for it, and its other arguments."""
    op, x, kernel, rest = CASES[request.param]
    return op, draw(x, kernel, kernel[-1:]), rest


def test_value_and_gradients_of_the_cpu_form_are_those_of_the_plain_form(case):
    op, arrays, rest = case

    def loss(arrays, platform):
        y = op(*arrays, platform=platform, precision=HIGHEST, **rest)
        return jnp.mean(jnp.sin(y)), y

    value_and_grad = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)
    (_, y), gradients = value_and_grad(arrays, "cpu")
    (_, y_plain), gradients_plain = value_and_grad(arrays, "plain")
    np.testing.assert_allclose(y, y_plain, rtol=1e-5, atol=1e-6)
    for ours, plain in zip(gradients, gradients_plain, strict=True):
        assert ours.shape == plain.shape
        np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-7)


def test_inside_a_scan_the_cpu_gradients_keep_the_order_that_xla_runs_fast():
    x, kernel, bias = draw((4, 1, 8, 9, 6), (3, 3, 6, 4), (4,))

    def loss(arrays, image):
        return jnp.sum(ops.conv3x3(image, *arrays, "cpu") ** 2)

    def accumulate(arrays, images):
        def add(total, image):
            gradient = jax.grad(loss)(arrays, image)
            return jax.tree.map(jnp.add, total, gradient), None

        return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, arrays), images)[0]

    compiled = jax.jit(accumulate).lower((kernel, bias), x).compile()
    orders = set(re.findall(r"dim_labels=(\S+?),", compiled.as_text()))
    assert orders == {"b01f_01io->b01f"}
    whole = jax.grad(loss)((kernel, bias), x.reshape(4, 8, 9, 6))
    for ours, plain in zip(compiled((kernel, bias), x), whole, strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_leading_axis_of_views_may_be_vmapped(case, platform):
    op, (x, kernel, bias), rest = case
    views = jnp.stack([x, x[::-1]])

    def loss(x, kernel):
        return jnp.sum(op(x, kernel, bias, platform=platform, **rest) ** 2)

    gradient = jax.grad(loss, argnums=(0, 1))
    stacked = jax.jit(jax.vmap(gradient, in_axes=(0, None)))(views, kernel)
    for i, view in enumerate(views):
        for ours, single in zip(stacked, gradient(view, kernel), strict=True):
            np.testing.assert_allclose(ours[i], single, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_bfloat16_stays_bfloat16_under_a_float32_bias(case, platform):
    op, (x, kernel, bias), rest = case
    low = [jnp.asarray(a, jnp.bfloat16) for a in (x, kernel)]

    def mean(x, kernel):
        y = op(x, kernel, bias, platform=platform, **rest)
        assert y.dtype == jnp.bfloat16
        return jnp.mean(y.astype(jnp.float32)), y

    (_, y), gradients = jax.value_and_grad(mean, (0, 1), has_aux=True)(*low)
    assert all(g.dtype == jnp.bfloat16 for g in gradients)
    exact = op(x, kernel, bias, **rest)
    np.testing.assert_allclose(y.astype(jnp.float32), exact, rtol=0.02, atol=0.1)


def test_bfloat16_products_round_what_the_plain_form_gives_in_float32(case):
    op, arrays, rest = case
    low = [jnp.asarray(a, jnp.bfloat16) for a in arrays]
    weights = draw(jax.eval_shape(lambda *a: op(*a, **rest), *arrays).shape)[0]

    def loss(arrays, platform):
        y = op(*arrays, platform=platform, precision=HIGHEST, **rest)
        return jnp.sum(y * jnp.asarray(weights, jnp.bfloat16).astype(y.dtype)), y

    value_and_grad = jax.value_and_grad(loss, has_aux=True)
    (_, y), gradients = value_and_grad(low, "cpu")
    exact = [a.astype(jnp.float32) for a in low]
    (_, y_exact), gradients_exact = value_and_grad(exact, "plain")
    for ours, plain in zip((y, *gradients), (y_exact, *gradients_exact), strict=True):
        assert ours.shape == plain.shape
        largest = jnp.abs(plain).max()  # half a unit in the last of 8 bits, twice
        np.testing.assert_allclose(ours, plain, rtol=2**-8, atol=2**-8 * largest)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_sharded_batch_needs_no_communication_forward(case, platform):
    op, (x, kernel, bias), rest = case
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    batch = jax.device_put(np.repeat(x[:1], 8, 0), NamedSharding(mesh, P("data")))
    kernel, bias = jax.device_put((kernel, bias), NamedSharding(mesh, P()))

    def apply(x, kernel, bias):
        return op(x, kernel, bias, platform=platform, **rest)

    compiled = jax.jit(apply).lower(batch, kernel, bias).compile()
    assert not any(
        word in compiled.as_text()
        for word in ("all-reduce", "all-gather", "all-to-all", "collective-permute")
    )
    y = compiled(batch, kernel, bias)
    assert y.sharding.is_equivalent_to(batch.sharding, y.ndim)
    np.testing.assert_allclose(
        y[5], op(x[:1], kernel, bias, **rest)[0], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_sharded_batch_gives_the_gradient_of_the_whole_batch(case, platform):
    op, (x, kernel, bias), rest = case
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    x = np.concatenate([x, x, x[:2]])
    batch = jax.device_put(x, NamedSharding(mesh, P("data")))

    def loss(kernel, x, platform):
        return jnp.mean(op(x, kernel, bias, platform=platform, **rest) ** 2)

    gradient = jax.jit(jax.grad(loss), static_argnums=2)
    np.testing.assert_allclose(
        gradient(kernel, batch, platform),
        gradient(kernel, x, "plain"),
        rtol=1e-5,
        atol=1e-6,
    )


def test_the_plain_forms_export_with_symbolic_sizes(case):
    op, (x, kernel, bias), rest = case
    b, h, w = jax.export.symbolic_shape("b, h, w", constraints=["h >= 3", "w >= 3"])
    spec = jax.ShapeDtypeStruct((b, h, w, x.shape[3]), jnp.float32)

    def apply(x):
        y = op(x, kernel, bias, **rest)
        return ops.nearest(ops.crop(y, 0), 2)

    exported = jax.export.export(jax.jit(apply), platforms=("cpu", "cuda", "tpu"))(spec)
    np.testing.assert_allclose(exported.call(x), apply(x), rtol=1e-5, atol=1e-5)
