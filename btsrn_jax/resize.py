"""Bicubic resizing: MATLAB's `imresize` in NumPy.

Super-resolution figures depend on this operator more than on anything else, so
`imresize` reproduces MATLAB's files value for value (tests/test_resize.py). The kernel
is Keys' cubic with a = -0.5. In enlarging floats by a whole number it agrees with the
network's bicubic skip (`network/ops.py`).
"""

import math
from typing import Any

import numpy as np


def imresize(image: np.ndarray, scale: float | tuple[int, int]) -> np.ndarray:
    """Resizes an image as MATLAB's `imresize(image, scale, 'bicubic')` does.

    Args:
      image: (h, w) or (h, w, c); uint8, or float of any range.
      scale: the factor, such as 1/3 or 4; or (rows, columns) of the output. Shrinking
        is antialiased.

    Returns:
      (ceil(scale h), ceil(scale w)[, c]), or (rows, columns[, c]). For uint8 input it
      is uint8, rounded half up after *each* dimension, rows first, as MATLAB does. For
      floats it is float64, neither rounded nor clipped.

    Raises:
      ValueError: if the image has another shape or dtype, or no pixels.
    """
    image = np.asarray(image)
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(f"imresize takes (h, w) or (h, w, c), not {image.shape}")
    if not (image.dtype == np.uint8 or np.issubdtype(image.dtype, np.floating)):
        raise ValueError(f"imresize takes uint8 or float images, not {image.dtype}")
    for axis in (0, 1):
        size = image.shape[axis]
        if isinstance(scale, tuple):
            image = _resize_axis(image, axis, scale[axis] / size, scale[axis])
        else:
            image = _resize_axis(image, axis, scale, math.ceil(scale * size))
    return image


def cubic(x: np.ndarray) -> np.ndarray:
    """Returns Keys' cubic convolution kernel with a = -0.5 at distances `x` in pixels;
    it is 0 from 2 on."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def _resize_axis(image, axis, scale, out_size):
    """Returns the image with one axis resized; uint8 is rounded."""
    size = image.shape[axis]
    index, weight = _contributions(size, out_size, scale)
    out = np.zeros((*image.shape[:axis], out_size, *image.shape[axis + 1 :]))
    along_axis = (slice(None), *[None] * (image.ndim - 1 - axis))
    for k in range(index.shape[1]):
        out += weight[:, k][along_axis] * np.take(image, index[:, k], axis)
    if image.dtype == np.uint8:
        out = np.clip(np.floor(out + 0.5), 0, 255).astype(np.uint8)
    return out


def _contributions(size, out_size, scale):
    """Returns the source indices and weights of each output position, both
    (out_size, taps)."""
    shrink = min(scale, 1.0)  # below 1 the kernel widens, which is antialiasing
    center = (np.arange(out_size) + 0.5) / scale - 0.5
    taps = math.ceil(4 / shrink) + 2
    first = np.floor(center - 2 / shrink)
    index = first[:, None] + np.arange(taps)
    weight = shrink * cubic(shrink * (center[:, None] - index))
    weight /= weight.sum(axis=1, keepdims=True)
    used = np.any(weight != 0, axis=0)
    return symmetric(index[:, used].astype(int), size), weight[:, used]


def symmetric(index: Any, size: Any) -> Any:
    """Reflects indices outside of [0, size) as SYMMETRIC padding does; the edge is
    repeated.

    Args:
      index: whole numbers, of NumPy or of JAX.
      size: a number, or as many as `index` takes.
    """
    index = index % (2 * size)
    return index.__array_namespace__().minimum(index, 2 * size - 1 - index)
