"""Bicubic resizing: MATLAB's `imresize` in NumPy, and the network's skip in JAX.

Both use Keys' cubic with a = -0.5 and agree where both apply: enlarging by a whole
number. Super-resolution figures depend on this operator more than on anything else, so
`imresize` reproduces MATLAB's files value for value (tests/test_resize.py).
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import lax

# `upscale` reads this many LR pixels beyond each side of what it returns.
MARGIN = 2


def imresize(image: np.ndarray, scale: float) -> np.ndarray:
    """Resizes as MATLAB's `imresize(image, scale, 'bicubic')`.

    Args:
      image: (h, w) or (h, w, c); uint8, or float of any range.
      scale: the factor, such as 1/3 or 4. Shrinking is antialiased.

    Returns:
      (ceil(scale h), ceil(scale w)[, c]). uint8 stays uint8 and is rounded half up
      after *each* dimension, rows first, as MATLAB does; floats stay float64.
    """
    image = np.asarray(image)
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(f"imresize takes (h, w) or (h, w, c), not {image.shape}")
    if not (image.dtype == np.uint8 or np.issubdtype(image.dtype, np.floating)):
        raise ValueError(f"imresize takes uint8 or float images, not {image.dtype}")
    for axis in (0, 1):
        image = _resize_axis(image, axis, scale)
    return image


def cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel, a = -0.5, support [-2, 2]."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def _resize_axis(image, axis, scale):
    size = image.shape[axis]
    out_size = math.ceil(scale * size)
    index, weight = _contributions(size, out_size, scale)
    x = np.moveaxis(image, axis, 0)
    out = np.zeros((out_size, *x.shape[1:]))
    columns = (slice(None), *[None] * (x.ndim - 1))
    for k in range(index.shape[1]):
        out += weight[:, k][columns] * x[index[:, k]]
    if image.dtype == np.uint8:
        out = np.clip(np.floor(out + 0.5), 0, 255).astype(np.uint8)
    return np.moveaxis(out, 0, axis)


def _contributions(size, out_size, scale):
    """Source indices and weights per output position, both (out_size, taps)."""
    shrink = min(scale, 1.0)  # below 1 the kernel widens: antialiasing
    center = (np.arange(out_size) + 0.5) / scale - 0.5
    taps = math.ceil(4 / shrink) + 2
    first = np.floor(center - 2 / shrink)
    index = first[:, None] + np.arange(taps)
    weight = shrink * cubic(shrink * (center[:, None] - index))
    weight /= weight.sum(axis=1, keepdims=True)
    used = np.any(weight != 0, axis=0)
    return symmetric(index[:, used].astype(int), size), weight[:, used]


def symmetric(index, size):
    """Reflects indices outside [0, size) as SYMMETRIC padding does (edge repeated)."""
    index = index % (2 * size)
    return np.where(index < size, index, 2 * size - 1 - index)


def pad_symmetric(x: jnp.ndarray, border: int) -> jnp.ndarray:
    """SYMMETRIC padding of (B, h, w, c) by any border, also larger than the image.

    A gather, since `jnp.pad` refuses symbolic sizes and the image may be 1 x 1.
    """
    for axis in (1, 2):
        size = x.shape[axis]
        index = jnp.arange(-border, size + border) % (2 * size)
        x = jnp.take(x, jnp.where(index < size, index, 2 * size - 1 - index), axis)
    return x


def upscale(x: jnp.ndarray, scale: int) -> jnp.ndarray:
    """The network's bicubic skip: enlarges float images by 2, 3 or 4, VALID.

    Args:
      x: (B, h, w, c) float32, any range.
      scale: a whole number of at least 2.

    Returns:
      (B, scale (h - 4), scale (w - 4), c): what two real pixels beyond each side
      determine. Sums of products without a convolution, hence float32 on every device.
    """
    phase = np.arange(scale)
    offset = (phase + 0.5) / scale - 0.5
    weights = cubic(offset[:, None] - np.arange(-MARGIN, MARGIN + 1))  # (phase, tap)
    for axis in (1, 2):
        size = x.shape[axis] - 2 * MARGIN
        taps = [lax.slice_in_dim(x, k, k + size, axis=axis) for k in range(5)]
        rows = [
            sum(float(w) * tap for w, tap in zip(row, taps, strict=True) if w != 0)
            for row in weights
        ]
        x = jnp.stack(rows, axis=axis + 1)
        shape = [*x.shape[:axis], scale * size, *x.shape[axis + 2 :]]
        x = x.reshape(shape)
    return x
