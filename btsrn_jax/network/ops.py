"""The networks' operations, each in the formulation that its backend runs fast.

All arrays are NHWC, all kernels HWIO, and every convolution is VALID. `platform` names
the formulation: "cpu" stands for those that XLA's CPU backend runs fast, any other name
for the plain ones. It is an argument and is never looked up here, because an exported
function is lowered for other platforms than the one that traces it.

On a CPU, arrays in bfloat16 take matrix products that accumulate in float32, and so do
their gradients: on CPUs with matrix units (AMX) only products reach these units.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from btsrn_jax.network.geometry import SKIP_MARGIN
from btsrn_jax.resize import cubic


def conv1x1(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    platform: str = "plain",
    precision: jax.lax.Precision | None = None,
) -> jax.Array:
    """Mixes the channels of each pixel.

    Args:
      x: (B, h, w, i), any float dtype.
      kernel: (1, 1, i, o), dtype of `x`.
      bias: (o,), any float dtype; it is added in the dtype of `x`.
      platform: the formulation, also of the gradients.
      precision: a `jax.lax.Precision`, or None for the backend's default.

    Returns:
      (B, h, w, o), dtype of `x`.
    """
    return _shift(_mix(x, kernel[0, 0], platform, precision), bias, platform)


def conv3x3(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    platform: str = "plain",
    precision: jax.lax.Precision | None = None,
) -> jax.Array:
    """Convolves with 3 x 3 pixels, without padding.

    Args:
      x: (B, h, w, i), any float dtype, h and w at least 3.
      kernel: (3, 3, i, o), dtype of `x`.
      bias: (o,), any float dtype; it is added in the dtype of `x`.
      platform: the formulation, also of the gradients.
      precision: a `jax.lax.Precision`, or None for the backend's default.

    Returns:
      (B, h - 2, w - 2, o), dtype of `x`.
    """
    if _by_products(x, platform):
        y = _convolve_products(x, kernel)
    else:
        convolve = _convolve_cpu if platform == "cpu" else _convolve
        y = convolve(x, kernel, precision)
    return _shift(y, bias, platform)


def _convolve(x, kernel, precision, padding=0):
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1, 1),
        padding=[(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve_cpu(x, kernel, precision):
    return _convolve(x, kernel, precision)


def _convolve_cpu_forward(x, kernel, precision):
    return _convolve_cpu(x, kernel, precision), (x, kernel)


def _convolve_cpu_backward(precision, residuals, g):
    # Both gradients are convolutions again, with explicit transposes to NHWC and HWIO.
    # XLA's CPU backend has its fast routine for that order only. It brings other orders
    # into it at a program's top level, but not inside `lax.scan`, where they run ten
    # times slower.
    x, kernel = residuals
    dx = _convolve(g, _turned(kernel), precision, padding=2)
    # x becomes i images of B channels, and g a large kernel that slides over them to
    # nine places. By JAX's own rule the same sums run at a tenth of the speed.
    dkernel = _convolve(x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3), precision)
    return dx, dkernel.transpose(1, 2, 0, 3)


_convolve_cpu.defvjp(_convolve_cpu_forward, _convolve_cpu_backward)


def _turned(kernel):
    """Returns the kernel that carries a gradient from a convolution's result to its
    input."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _by_products(x, platform):
    """Returns True if `x` takes the products that reach AMX."""
    return platform == "cpu" and x.dtype == jnp.bfloat16


def _product(a, b):
    """Returns a @ b over the last axis of `a`, accumulated in float32."""
    contract = ((a.ndim - 1,), (0,))
    return lax.dot_general(a, b, (contract, ((), ())), preferred_element_type="float32")


@jax.custom_vjp
def _convolve_products(x, kernel):
    """Convolves by one product for each row of the kernel, whose three columns lie side
    by side."""
    h, w = x.shape[1] - 2, x.shape[2] - 2
    wide = jnp.concatenate([x[:, :, c : c + w] for c in range(3)], axis=3)
    rows = kernel.reshape(3, -1, kernel.shape[3])
    y = sum(_product(wide[:, a : a + h], rows[a]) for a in range(3))
    return y.astype(x.dtype)


def _convolve_products_backward(residuals, g):
    x, kernel = residuals
    padded = jnp.pad(g, ((0, 0), (2, 2), (2, 2), (0, 0)))
    dx = _convolve_products(padded, _turned(kernel))
    return dx, _kernel_gradient_products(x, g)


_convolve_products.defvjp(
    lambda x, kernel: (_convolve_products(x, kernel), (x, kernel)),
    _convolve_products_backward,
)


def _kernel_gradient_products(x, g):
    """Returns the kernel's gradient, by one product for each row of the kernel.

    With all images laid out as one line of pixels, a place of the kernel is a distance
    along that line.
    """
    w, i, o = *x.shape[2:], g.shape[3]
    g = jnp.pad(g, ((0, 0), (0, 2), (0, 2), (0, 0))).reshape(-1, o)
    x = jnp.pad(x.reshape(-1, i).T, ((0, 0), (0, 2)))
    wide = jnp.concatenate([x[:, c : c + len(g)] for c in range(3)])
    last = len(g) - 2 * w
    rows = [_product(wide[:, a * w : a * w + last], g[:last]) for a in range(3)]
    return jnp.stack(rows).reshape(3, 3, i, o).astype(x.dtype)


def _mix(x, kernel, platform, precision):
    """Returns (B, h, w, i) times (i, o)."""
    if _by_products(x, platform):
        return _mix_products(x, kernel)
    return lax.dot_general(x, kernel, (((3,), (0,)), ((), ())), precision=precision)


@jax.custom_vjp
def _mix_products(x, kernel):
    return _product(x, kernel).astype(x.dtype)


def _mix_products_backward(residuals, g):
    x, kernel = residuals
    dkernel = _product(x.reshape(-1, x.shape[3]).T, g.reshape(-1, g.shape[3]))
    return _product(g, kernel.T).astype(x.dtype), dkernel.astype(x.dtype)


_mix_products.defvjp(
    lambda x, kernel: (_mix_products(x, kernel), (x, kernel)), _mix_products_backward
)


def _shift(x, bias, platform):
    add = _shift_products if _by_products(x, platform) else jnp.add
    return add(x, bias.astype(x.dtype))


@jax.custom_vjp
def _shift_products(x, bias):
    return x + bias


def _shift_products_backward(_, g):
    rows = g.reshape(-1, g.shape[3])
    total = _product(jnp.ones((1, len(rows)), g.dtype), rows)[0]
    return g, total.astype(g.dtype)


_shift_products.defvjp(lambda x, bias: (x + bias, None), _shift_products_backward)


def deconv(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    scale: int,
    platform: str = "plain",
    precision: jax.lax.Precision | None = None,
) -> jax.Array:
    """Upsamples by a transposed convolution whose kernel is as large as its stride.

    No two pixels overlap, so that there are no checkerboard artefacts (docs/paper.md,
    section 1).

    Args:
      x: (B, h, w, i), any float dtype.
      kernel: (scale, scale, i, o), dtype of `x`.
      bias: (o,), any float dtype; it is added in the dtype of `x`.
      scale: number of output pixels per input pixel, along each side.
      platform: the formulation, also of the gradients.
      precision: a `jax.lax.Precision`, or None for the backend's default.

    Returns:
      (B, scale * h, scale * w, o), dtype of `x`, where
      out[b, scale * y + a, scale * x + c] = x[b, y, x] @ kernel[a, c] + bias.
    """
    batch, h, w, i = x.shape
    o = kernel.shape[3]
    columns = kernel.transpose(2, 0, 1, 3).reshape(i, scale * scale * o)
    y = _mix(x, columns, platform, precision)
    y = y.reshape(batch, h, w, scale, scale, o).transpose(0, 1, 3, 2, 4, 5)
    return _shift(y.reshape(batch, scale * h, scale * w, o), bias, platform)


def nearest(x: jax.Array, scale: int) -> jax.Array:
    """Copies each pixel `scale` x `scale` times: (B, h, w, c) -> (B, s h, s w, c)."""
    batch, h, w, channels = x.shape
    y = jnp.broadcast_to(x[:, :, None, :, None], (batch, h, scale, w, scale, channels))
    return y.reshape(batch, scale * h, scale * w, channels)


def crop(x: jax.Array, border: int) -> jax.Array:
    """Cuts `border` pixels off each side: (B, h, w, c) -> (B, h - 2b, w - 2b, c)."""
    return x[:, border : x.shape[1] - border, border : x.shape[2] - border]


def pad_symmetric(x: jax.Array, border: int) -> jax.Array:
    """Pads (B, h, w, c) on each side with its mirror image; the edge is repeated.

    The border may be larger than the image, which may be as small as 1 x 1.
    """
    # A gather, because `jnp.pad` refuses symbolic sizes.
    for axis in (1, 2):
        size = x.shape[axis]
        index = jnp.arange(-border, size + border) % (2 * size)
        x = jnp.take(x, jnp.where(index < size, index, 2 * size - 1 - index), axis)
    return x


def bicubic_weights(scale: int) -> np.ndarray:
    """Returns Keys' weights of five LR pixels in a row, (scale, 5) float64: a row for
    each of the `scale` HR pixels that lie on the middle one."""
    offset = (np.arange(scale) + 0.5) / scale - 0.5
    places = np.arange(-SKIP_MARGIN, SKIP_MARGIN + 1)
    return cubic(offset[:, None] - places)


def bicubic_skip(x: jax.Array, scale: int) -> jax.Array:
    """Enlarges float images by Keys' bicubic kernel, VALID: the network's skip.

    Args:
      x: (B, h, w, c) float32, any range.
      scale: a whole number of at least 2.

    Returns:
      (B, scale (h - 4), scale (w - 4), c): the pixels that have two real LR pixels
      beyond them on each side.
    """
    weights = bicubic_weights(scale)
    # Sums of products, because accelerators would round what a convolution reads.
    for axis in (1, 2):
        size = x.shape[axis] - 2 * SKIP_MARGIN
        taps = [lax.slice_in_dim(x, k, k + size, axis=axis) for k in range(5)]
        rows = [
            sum(float(w) * tap for w, tap in zip(row, taps, strict=True) if w != 0)
            for row in weights
        ]
        x = jnp.stack(rows, axis=axis + 1)
        shape = [*x.shape[:axis], scale * size, *x.shape[axis + 2 :]]
        x = x.reshape(shape)
    return x
