"""The operations whose best formulation depends on the backend.

All arrays are NHWC, all kernels HWIO, every convolution is VALID. `platform` names the
formulation: "cpu" the ones that XLA's CPU backend runs fast, anything else the plain
ones. It is an argument, and never looked up here, because an exported function is
lowered for platforms other than the one that traces it.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax


def conv1x1(x, kernel, bias, platform="plain", precision=None):
    """Mixes the channels of each pixel.

    Args:
      x: (B, h, w, i), any float dtype.
      kernel: (1, 1, i, o), dtype of `x`.
      bias: (o,), any float dtype; added in that of `x`.
      platform: the formulation; both are the same here.
      precision: a `jax.lax.Precision`, or None for the backend's default.

    Returns:
      (B, h, w, o), dtype of `x`.
    """
    del platform  # a matrix product is fast everywhere
    y = lax.dot_general(x, kernel[0, 0], (((3,), (0,)), ((), ())), precision=precision)
    return y + bias.astype(x.dtype)


def conv3x3(x, kernel, bias, platform="plain", precision=None):
    """Convolves with 3 x 3 pixels, without padding.

    Args:
      x: (B, h, w, i), any float dtype, h and w at least 3.
      kernel: (3, 3, i, o), dtype of `x`.
      bias: (o,), any float dtype; added in that of `x`.
      platform: "cpu" for gradients in the forms that are fast there.
      precision: a `jax.lax.Precision`, or None for the backend's default.

    Returns:
      (B, h - 2, w - 2, o), dtype of `x`.
    """
    convolve = _convolve_cpu if platform == "cpu" else _convolve
    return convolve(x, kernel, precision) + bias.astype(x.dtype)


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
    return _convolve(x, kernel, precision), (x, kernel)


def _convolve_cpu_backward(precision, residuals, g):
    # Both gradients are convolutions again, with explicit transposes to NHWC and HWIO:
    # XLA's CPU backend has its fast routine for that order only, and brings others into
    # it at a program's top level but not inside `lax.scan`, where they run ten times
    # slower.
    x, kernel = residuals
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    dx = _convolve(g, turned, precision, padding=2)
    # x becomes i images of B channels, g the large kernel that slides over them to nine
    # places. The same sums by the stock rule run at a tenth of the speed.
    dkernel = _convolve(x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3), precision)
    return dx, dkernel.transpose(1, 2, 0, 3)


_convolve_cpu.defvjp(_convolve_cpu_forward, _convolve_cpu_backward)


def deconv(x, kernel, bias, scale, platform="plain", precision=None):
    """Transposed convolution with kernel = stride = `scale`, so that none overlap.

    Args:
      x: (B, h, w, i), any float dtype.
      kernel: (scale, scale, i, o), dtype of `x`.
      bias: (o,), any float dtype; added in that of `x`.
      scale: pixels out per pixel in, along each side.
      platform: the formulation; both are the same here.
      precision: a `jax.lax.Precision`, or None for the backend's default.

    Returns:
      (B, scale * h, scale * w, o), dtype of `x`, where
      out[b, scale * y + a, scale * x + c] = x[b, y, x] @ kernel[a, c] + bias.
    """
    del platform  # a matrix product and a depth-to-space are fast everywhere
    batch, h, w, i = x.shape
    o = kernel.shape[3]
    columns = kernel.transpose(2, 0, 1, 3).reshape(i, scale * scale * o)
    y = lax.dot_general(x, columns, (((3,), (0,)), ((), ())), precision=precision)
    y = y.reshape(batch, h, w, scale, scale, o).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(batch, scale * h, scale * w, o) + bias.astype(x.dtype)


def nearest(x, scale):
    """Copies each pixel `scale` x `scale` times: (B, h, w, c) -> (B, s h, s w, c)."""
    batch, h, w, channels = x.shape
    y = jnp.broadcast_to(x[:, :, None, :, None], (batch, h, scale, w, scale, channels))
    return y.reshape(batch, scale * h, scale * w, channels)


def crop(x, border):
    """Cuts `border` pixels off each side: (B, h, w, c) -> (B, h - 2b, w - 2b, c)."""
    return x[:, border : x.shape[1] - border, border : x.shape[2] - border]
