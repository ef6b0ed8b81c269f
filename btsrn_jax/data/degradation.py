"""What photographs have gone through, done to the LR patches of a step.

Blur, then noise, then JPEG, each with a probability of its own. It is computed inside
the compiled step and is a function of seed and step alone, as the patches are. Patches
come with a margin, so that their own border is that of neither a blur nor a JPEG.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from btsrn_jax.data import jpeg_artefacts


@dataclasses.dataclass(frozen=True)
class Degradation:
    """What is done to LR patches: the section `data.degradation` of the config."""

    blur: float
    """Probability of a Gaussian blur."""

    blur_width: tuple[float, float]
    """Range of its standard deviation in LR pixels, drawn evenly."""

    blur_uneven: float
    """Share of blurs whose widths along two axes, turned at random, are two draws."""

    noise: float
    """Probability of noise."""

    noise_level: tuple[float, float]
    """Range of its standard deviation in grey levels, drawn evenly."""

    noise_shot: float
    """Share of noise whose variance grows with the value, as of photons: the level is
    that of a middle grey."""

    noise_grey: float
    """Share of noise that is the same in all channels."""

    jpeg: float
    """Probability of JPEG."""

    jpeg_quality: tuple[int, int]
    """Range of its quality as of libjpeg; the higher of two even draws is taken."""

    jpeg_subsampled: float
    """Share of JPEG with 4:2:0; the others have 4:4:4."""

    @property
    def radius(self) -> int:
        """Pixels that a blur reaches, three of the largest standard deviations."""
        return math.ceil(3 * self.blur_width[1]) if self.blur else 0

    def window(self, side: int) -> int:
        """Returns the side of what is saved as JPEG with a patch inside: whole blocks,
        wherever their grid lies, and a pixel more at each side of the patch, because
        4:2:0 mixes the colours of neighbours."""
        unit = jpeg_artefacts.UNIT
        return -(-(side + unit + 1) // unit) * unit if self.jpeg else side

    def first_place(self, side: int) -> int:
        """Returns the least offset of a patch in its window: of the 16 in a row that
        are drawn from, those in the middle."""
        if not self.jpeg:
            return 0
        return (self.window(side) - side - jpeg_artefacts.UNIT + 2) // 2

    def margin(self, side: int) -> int:
        """Returns the LR pixels that are needed around a patch of `side` pixels."""
        if not self.jpeg:
            return self.radius
        return self.radius + self.first_place(side) + jpeg_artefacts.UNIT - 1


class Draw(NamedTuple):
    """What is done to one patch, or to each of a batch."""

    place: jax.Array
    """(2,) int32: the patch's first row and column in its window."""

    kernel: jax.Array
    """(2 radius + 1, 2 radius + 1) float32 with the sum 1."""

    level: jax.Array
    """Standard deviation of the noise in grey levels; 0: none."""

    shot: jax.Array
    """bool: the noise depends on the value."""

    grey: jax.Array
    """bool: the noise is the same in all channels."""

    quality: jax.Array
    """int32 from 1 to 100; 0: no JPEG."""

    subsampled: jax.Array
    """bool: 4:2:0."""

    noise_key: jax.Array
    """From which the noise of each pixel is drawn."""


def from_config(section: Mapping) -> Degradation | None:
    """Returns what `data.degradation` asks for; None if all probabilities are 0."""
    names = [field.name for field in dataclasses.fields(Degradation)]
    values = {name: section[name] for name in names}
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    wanted = Degradation(**values)
    return wanted if wanted.blur or wanted.noise or wanted.jpeg else None


def degrade(
    patches: jax.Array,
    side: int,
    wanted: Degradation,
    key: jax.Array,
    divided: jax.sharding.Sharding | None = None,
) -> jax.Array:
    """Degrades the patches of a step and takes off their margin.

    Args:
      patches: (B, side + 2 margin, side + 2 margin, 3) uint8.
      side: of a patch without its margin.
      wanted: what is done, and how often.
      key: of the step.
      divided: sharding of the batch.

    Returns:
      (B, side, side, 3) uint8.
    """
    keys = jax.random.split(key, len(patches))
    if divided is not None:
        keys = jax.lax.with_sharding_constraint(keys, divided)
    drawn = jax.vmap(lambda key: draw(key, wanted, side))(keys)
    # What is compiled in between must not depend on where the patches came from, or
    # a device store and a host store might round differently.
    patches, drawn = jax.lax.optimization_barrier((patches, drawn))
    window, radius = wanted.window(side), wanted.radius
    corner = wanted.margin(side) - radius - drawn.place
    x = squares(patches, corner, window + 2 * radius).astype(jnp.float32)
    if wanted.blur:
        x = blur(x, drawn.kernel)
    if wanted.noise:
        x = add_noise(x, drawn)
    x = jnp.round(x).clip(0, 255).astype(jnp.int32)
    if wanted.jpeg:
        quality = jnp.maximum(drawn.quality, 1)
        saved = jpeg_artefacts.save_and_read(x, quality, drawn.subsampled)
        x = jnp.where((drawn.quality > 0)[:, None, None, None], saved, x)
    x = squares(x.astype(jnp.uint8), drawn.place, side)
    return jax.lax.optimization_barrier(x)


def squares(images: jax.Array, corners: jax.Array, side: int) -> jax.Array:
    """Cuts a square of `side` pixels from each image of a batch, at `corners` (B, 2):
    its first row and column."""

    def cut(image, corner):
        return jax.lax.dynamic_slice(image, (*corner, 0), (side, side, 3))

    return jax.vmap(cut)(images, corners)


def draw(key: jax.Array, wanted: Degradation, side: int) -> Draw:
    """Draws what is done to one patch of `side` pixels."""
    # One array of draws for all: each call of jax.random takes a while to compile.
    chances = iter(jax.random.uniform(jax.random.fold_in(key, 0), (16,)))

    def happens(probability):
        return next(chances) < probability

    def between(low, high):
        return low + next(chances) * (high - low)

    def whole(low, count):
        return low + jnp.floor(next(chances) * count).astype(jnp.int32)

    first, count = wanted.first_place(side), jpeg_artefacts.UNIT if wanted.jpeg else 1
    place = jnp.stack([whole(first, count) for _ in range(2)])
    blurred, uneven = happens(wanted.blur), happens(wanted.blur_uneven)
    widths = jnp.stack([between(*wanted.blur_width) for _ in range(2)])
    widths = jnp.where(uneven, widths, widths[0])
    kernel = gaussian(widths, between(0, math.pi), wanted.radius)
    noisy, level = happens(wanted.noise), between(*wanted.noise_level)
    low, high = wanted.jpeg_quality
    qualities = [whole(low, high - low + 1) for _ in range(2)]
    return Draw(
        place=place,
        kernel=jnp.where(blurred, kernel, gaussian(jnp.zeros(2), 0.0, wanted.radius)),
        level=jnp.where(noisy, level, 0.0),
        shot=happens(wanted.noise_shot),
        grey=happens(wanted.noise_grey),
        quality=jnp.where(happens(wanted.jpeg), jnp.maximum(*qualities), 0),
        subsampled=happens(wanted.jpeg_subsampled),
        noise_key=jax.random.fold_in(key, 1),
    )


def gaussian(widths: jax.Array, angle: jax.Array, radius: int) -> jax.Array:
    """Returns a Gaussian kernel, (2 radius + 1, 2 radius + 1) float32 with the sum 1.

    Args:
      widths: (2,), standard deviations in pixels along its two axes; 0 is no blur.
      angle: by which the first axis is turned from across to down, in radians.
      radius: pixels at each side of the middle.
    """
    steps = jnp.arange(-radius, radius + 1, dtype=jnp.float32)
    y, x = steps[:, None], steps
    along = jnp.cos(angle) * x + jnp.sin(angle) * y
    beside = jnp.cos(angle) * y - jnp.sin(angle) * x
    a, b = jnp.maximum(widths, 0.01)
    weights = jnp.exp(-((along / a) ** 2 + (beside / b) ** 2) / 2)
    return weights / weights.sum()


def blur(images: jax.Array, kernels: jax.Array) -> jax.Array:
    """Blurs each image of a batch with its own kernel.

    Args:
      images: (B, h + 2 radius, w + 2 radius, 3) float32.
      kernels: (B, 2 radius + 1, 2 radius + 1).

    Returns:
      (B, h, w, 3).
    """
    size = kernels.shape[1]
    h, w = (n - size + 1 for n in images.shape[1:3])

    def add_row(total, row):
        rows = jax.lax.dynamic_slice_in_dim(images, row, h, 1)
        weights = jax.lax.dynamic_index_in_dim(kernels, row, 1, keepdims=False)
        for i in range(size):
            total += weights[:, i, None, None, None] * rows[:, :, i : i + w]
        return total, None

    zeros = jnp.zeros((len(images), h, w, 3), images.dtype)
    return jax.lax.scan(add_row, zeros, jnp.arange(size))[0]


def add_noise(images: jax.Array, drawn: Draw) -> jax.Array:
    """Adds noise to images (B, h, w, 3) float32 in grey levels, each as drawn."""

    def one(image, d):
        noise = jax.random.normal(d.noise_key, image.shape)
        noise = jnp.where(d.grey, noise[..., :1], noise)
        brightness = jnp.where(d.shot, image.clip(0) / 127.5, 1.0)
        return image + d.level * jnp.sqrt(brightness) * noise

    return jax.vmap(one)(images, drawn)
