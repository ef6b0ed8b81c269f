"""The eight flips and rotations of an image, numbered the one way for all."""

import numbers
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import jax
    import numpy as np

Array = TypeVar("Array", "np.ndarray", "jax.Array")


def turn(x: Array, k: "int | jax.Array") -> Array:
    """Returns view `k` of images.

    Bit 0 of `k` flips left-right, then bit 1 flips top-bottom, then bit 2 transposes.
    View 0 is the image itself.

    Args:
      x: (..., h, w, c), of any dtype.
      k: 0..7. It may be a traced scalar of JAX, as under `jax.vmap`, if h = w: shapes
        cannot depend on it.
    """
    x = _choose(k & 1, x[..., ::-1, :], x)
    x = _choose(k & 2, x[..., ::-1, :, :], x)
    return _choose(k & 4, x.swapaxes(-3, -2), x)


def turn_back(x: Array, k: "int | jax.Array") -> Array:
    """Returns the images whose view `k` is `x`; arguments as of `turn`."""
    x = _choose(k & 4, x.swapaxes(-3, -2), x)
    x = _choose(k & 2, x[..., ::-1, :, :], x)
    return _choose(k & 1, x[..., ::-1, :], x)


def _choose(bit, turned, x):
    if isinstance(bit, numbers.Integral):
        return turned if bit else x
    # A bit of JAX brings jax.numpy along: upscaling without JAX does not load it.
    return bit.__array_namespace__().where(bit != 0, turned, x)
