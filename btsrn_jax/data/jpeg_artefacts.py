"""What saving a picture as JPEG does to it, as libjpeg does it, in JAX.

All arithmetic is of whole numbers, so that the result is the same on every platform.
It follows libjpeg's defaults, the DCT "islow" and the "fancy" upsampling, bit for bit.
"""

import jax
import jax.numpy as jnp
import numpy as np

from btsrn_jax import images

UNIT = 16  # pixels a side of what 4:2:0 codes together; 8 at 4:4:4

# The DCT of 8 values, pixels by coefficients, 8192 times the root of 8 of it: what the
# factors of libjpeg's jfdctint.c and jidctint.c come to.
_HALF = """
    8192  11363  10703   9633  8192   6437   4433   2260
    8192   9633   4433  -2259 -8192 -11362 -10704  -6436
    8192   6437  -4433 -11362 -8192   2261  10704   9633
    8192   2260 -10703  -6436  8192   9633  -4433 -11363"""
_DCT = np.array(_HALF.split(), np.int32).reshape(4, 8)
_DCT = np.concatenate([_DCT, _DCT[::-1] * np.array([1, -1] * 4, np.int32)])


def save_and_read(
    pixels: jax.Array, quality: jax.Array, subsampled: jax.Array
) -> jax.Array:
    """Returns pictures as they are after being saved as JPEG and read again.

    Args:
      pixels: (B, h, w, 3) integers from 0 to 255, RGB; h and w are multiples of `UNIT`,
        and the grid of blocks begins at the first pixel.
      quality: (B,) int32 from 1 to 100, as of libjpeg and Pillow.
      subsampled: (B,) bool: 4:2:0 where True, 4:4:4 where False.

    Returns:
      (B, h, w, 3) int32 from 0 to 255.
    """
    planes = _to_ycc(pixels.astype(jnp.int32))  # (B, 3, h, w)
    steps = jnp.asarray(images.JPEG_TABLES[:, (0, 1, 1)])[quality - 1]  # (B, 3, 64)
    full = _quantise(planes, steps)
    half = _enlarge(_quantise(_halve(planes[:, 1:]), steps[:, 1:]))
    colours = jnp.where(subsampled[:, None, None, None], half, full[:, 1:])
    return _to_rgb(full[:, 0], colours[:, 0], colours[:, 1])


def _to_ycc(pixels):
    r, g, b = (pixels[..., i] for i in range(3))
    y = (19595 * r + 38470 * g + 7471 * b + 32768) >> 16
    middle = (128 << 16) + 32767
    cb = (-11059 * r - 21709 * g + 32768 * b + middle) >> 16
    cr = (32768 * r - 27439 * g - 5329 * b + middle) >> 16
    return jnp.stack([y, cb, cr], 1)


def _to_rgb(y, cb, cr):
    cb, cr = cb - 128, cr - 128
    r = y + ((91881 * cr + 32768) >> 16)
    g = y + ((-22554 * cb - 46802 * cr + 32768) >> 16)
    b = y + ((116130 * cb + 32768) >> 16)
    return jnp.stack([r, g, b], -1).clip(0, 255)


def _halve(planes):
    """Returns means of 2 x 2 pixels; halves are rounded down and up in turn."""
    *lead, h, w = planes.shape
    sums = planes.reshape(*lead, h // 2, 2, w // 2, 2).sum((-3, -1))
    return (sums + 1 + jnp.arange(w // 2) % 2) >> 2


def _enlarge(planes):
    """Returns planes of twice the size: 3 parts of the nearest sample and 1 of the
    next, down and across."""
    *lead, h, w = planes.shape
    above, below = _neighbours(planes, -2)
    tall = jnp.stack([3 * planes + above, 3 * planes + below], -2)
    tall = tall.reshape(*lead, 2 * h, w)
    left, right = _neighbours(tall, -1)
    wide = jnp.stack([3 * tall + left + 8, 3 * tall + right + 7], -1) >> 4
    return wide.reshape(*lead, 2 * h, 2 * w)


def _neighbours(x, axis):
    """Returns for each value the one before it and the one after it; at the border
    that is the value itself."""
    count = x.shape[axis]
    places = np.arange(count)
    before, after = np.maximum(places - 1, 0), np.minimum(places + 1, count - 1)
    return jnp.take(x, before, axis), jnp.take(x, after, axis)


def _quantise(planes, steps):
    """Rounds the DCT of 8 x 8 blocks to multiples of their steps, and goes back.

    Args:
      planes: (B, c, h, w) from 0 to 255.
      steps: (B, c, 64).
    """
    b, c, h, w = planes.shape
    blocks = planes.reshape(b, c, h // 8, 8, w // 8, 8).swapaxes(3, 4) - 128
    # Rows, then columns, and back the other way round: so libjpeg's sums are rounded.
    rows = _product(blocks, _DCT, 11)  # (..., y, u)
    eighths = _product(rows.swapaxes(4, 5), _DCT, 15)  # (..., u, v)
    steps = steps.reshape(b, c, 1, 1, 8, 8).swapaxes(4, 5)
    counts = (jnp.abs(eighths) + 4 * steps) // (8 * steps)
    columns = _product(jnp.sign(eighths) * counts * steps, _DCT.T, 11)  # (..., u, y)
    blocks = _product(columns.swapaxes(4, 5), _DCT.T, 18)  # (..., y, x)
    return (blocks + 128).clip(0, 255).swapaxes(3, 4).reshape(planes.shape)


def _product(blocks, matrix, bits):
    return (jnp.matmul(blocks, matrix) + (1 << (bits - 1))) >> bits
