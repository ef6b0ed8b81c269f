"""Draws, cuts and turns the patches of a batch, a function of seed and step alone.

Decoded images stay in one array on the device, and the compiled step cuts its patches
from it, so that data costs no time on the host. Indices come from integer arithmetic on
threefry bits: they are the same on every platform and number of devices.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from btsrn_jax import images
from btsrn_jax.data.degradation import Degradation, degrade
from btsrn_jax.resize import symmetric


class Index(NamedTuple):
    """Where the images lie in a store; all fields are (images,)."""

    offset: jax.Array
    """The first LR row of an image, int32."""

    height: jax.Array
    """Of the LR image, int32."""

    width: jax.Array
    """Of the LR image, int32."""

    threshold: jax.Array
    """uint32: the first image is drawn whose threshold is above 32 random bits, so that
    images are drawn in proportion to their pixels."""


class Store(NamedTuple):
    """Decoded images below each other, as rows of RGB.

    Rows are as long as the widest image needs, filled up to a multiple of 128 bytes.
    """

    lr: jax.Array
    """(rows, 3 width) uint8."""

    hr: jax.Array
    """(scale rows, 3 scale width) uint8."""

    index: Index
    """Where each image lies."""


class Patches(NamedTuple):
    """Squares that the host has cut already, not yet turned."""

    lr: jax.Array
    """(B, side + 2 margin, side + 2 margin, 3) uint8; the margin is 0 but for patches
    that are to be degraded."""

    hr: jax.Array
    """(B, target, target, 3) uint8."""

    turn: jax.Array
    """(B,) int32: the view of each, 0..7, as of `images.turn`."""


class Draw(NamedTuple):
    """Which patches one step takes; all fields are (batch,) int32."""

    image: jax.Array
    """Which image of the store."""

    top: jax.Array
    """The first row, in LR pixels of the image."""

    left: jax.Array
    """The first column, in LR pixels of the image."""

    turn: jax.Array
    """The view, 0..7, as of `images.turn`."""


def make_store(pairs: list[tuple[np.ndarray, np.ndarray]], scale: int) -> Store:
    """Packs images into a store of NumPy arrays.

    Args:
      pairs: (lr, hr), (h, w, 3) and (scale h, scale w, 3) uint8.
      scale: of the pairs.
    """
    heights = np.array([lr.shape[0] for lr, _ in pairs])
    widths = np.array([lr.shape[1] for lr, _ in pairs])
    offsets = np.concatenate([[0], np.cumsum(heights)[:-1]])
    lr_shape, hr_shape = store_shapes(heights.sum(), widths.max(), scale)
    lr_rows, hr_rows = np.zeros(lr_shape, np.uint8), np.zeros(hr_shape, np.uint8)
    for (lr, hr), offset in zip(pairs, offsets, strict=True):
        for store, image, top in ((lr_rows, lr, offset), (hr_rows, hr, scale * offset)):
            h, w, _ = image.shape
            store[top : top + h, : 3 * w] = image.reshape(h, 3 * w)
    return Store(lr_rows, hr_rows, make_index(heights, widths))


def store_shapes(rows: int, width: int, scale: int) -> tuple[tuple, tuple]:
    """Returns the shapes of a store's two arrays, of `rows` and `width` LR pixels."""
    return (
        (int(rows), _columns(width)),
        (scale * int(rows), _columns(scale * width)),
    )


def _columns(width):
    """Returns the bytes of a row of `width` pixels, a multiple of 128.

    A TPU keeps an array with other rows transposed in memory, and would copy the whole
    store at every step to gather rows from it.
    """
    return -(-3 * int(width) // 128) * 128


def make_index(heights: np.ndarray, widths: np.ndarray) -> Index:
    """Returns the index of LR images of these sizes, as NumPy."""
    heights, widths = (np.asarray(a, np.int64) for a in (heights, widths))
    offsets = np.concatenate([[0], np.cumsum(heights)[:-1]])
    share = np.cumsum(heights * widths) / np.sum(heights * widths)
    threshold = np.floor(share * 2.0**32).clip(0, 2**32 - 1).astype(np.uint32)
    offsets, heights, widths = (a.astype(np.int32) for a in (offsets, heights, widths))
    return Index(offsets, heights, widths, threshold)


def draw(index: Index, seed: int, step: jax.Array, batch_size: int, side: int) -> Draw:
    """Draws the patches of one step, uniform in position and view.

    Args:
      index: of the store.
      seed: of the run.
      step: counted from 0; it may be traced.
      batch_size: how many patches.
      side: of a patch, in LR pixels.
    """
    key = jax.random.fold_in(jax.random.key(seed), step)
    keys = jax.random.split(key, 4)
    shape = (batch_size,)
    bits = jax.random.bits(keys[0], shape, jnp.uint32)
    # Without the last threshold, so that the last image takes what rounding left over.
    image = jnp.searchsorted(index.threshold[:-1], bits, side="right")
    top = jax.random.randint(keys[1], shape, 0, index.height[image] - side + 1)
    left = jax.random.randint(keys[2], shape, 0, index.width[image] - side + 1)
    return Draw(image, top, left, jax.random.randint(keys[3], shape, 0, 8))


def most_detailed(
    drawn: Draw,
    lr: jax.Array | np.ndarray,
    candidates: int,
    scale: int,
    target: int,
) -> Draw:
    """Returns, of every `candidates` draws in a row, the one with most detail.

    Smooth patches have little to teach. Detail is the sum of absolute differences of
    neighbours, down and across; in whole numbers, so that JAX and NumPy choose alike.
    Of equals the first is taken.

    Args:
      drawn: fields of (candidates * B,).
      lr: (candidates * B, side, side, 3) uint8, the patches of `drawn`.
      candidates: how many there are to choose from.
      scale: of the images.
      target: HR pixels a side that the loss sees; LR pixels wholly outside of them do
        not count.

    Returns:
      Fields of (B,).
    """
    np_or_jnp = lr.__array_namespace__()
    side = lr.shape[1]
    border = (scale * side - target) // (2 * scale)
    end = side - border
    x = lr[:, border:end, border:end].astype("int32")
    down, across = abs(x[:, 1:] - x[:, :-1]), abs(x[:, :, 1:] - x[:, :, :-1])
    detail = down.sum((1, 2, 3)) + across.sum((1, 2, 3))
    best = detail.reshape(-1, candidates).argmax(1)[:, None]

    def take(field):
        rows = field.reshape(-1, candidates)
        return np_or_jnp.take_along_axis(rows, best, 1)[:, 0]

    return Draw(*map(take, drawn))


def cut(
    store: Store, drawn: Draw, side: int, target: int, margin: int = 0
) -> tuple[jax.Array, jax.Array]:
    """Cuts the patches of a draw from a store on the device, not yet turned.

    Returns:
      lr: (B, side + 2 margin, side + 2 margin, 3) uint8. Beyond the border of an image
        lies its mirror image.
      hr: (B, target, target, 3) uint8, the centre of the enlarged patch.
    """
    scale = store.hr.shape[0] // store.lr.shape[0]
    border = (scale * side - target) // 2
    top = store.index.offset[drawn.image] + drawn.top
    if margin:
        lr = _with_margin(store, drawn, side, margin)
    else:
        lr = _squares(store.lr, top, drawn.left, side)
    top, left = scale * top + border, scale * drawn.left + border
    return lr, _squares(store.hr, top, left, target)


def _squares(rows, top, left, side):
    # First whole rows, then columns: one slice of both made XLA copy the store.
    bands = rows[top[:, None] + jnp.arange(side)]  # (B, side, 3 width)

    def columns(band, start):
        return jax.lax.dynamic_slice_in_dim(band, 3 * start, 3 * side, axis=1)

    squares = jax.vmap(columns)(bands, left)
    return squares.reshape(-1, side, side, 3)


def _with_margin(store, drawn, side, margin):
    index = store.index
    places = jnp.arange(-margin, side + margin)
    tops, lefts = drawn.top[:, None] + places, drawn.left[:, None] + places
    rows = symmetric(tops, index.height[drawn.image][:, None])
    columns = symmetric(lefts, index.width[drawn.image][:, None])
    bands = store.lr[index.offset[drawn.image][:, None] + rows]  # (B, side, 3 width)
    columns = (3 * columns[:, :, None] + jnp.arange(3)).reshape(len(columns), -1)
    squares = jnp.take_along_axis(bands, columns[:, None], 2)
    return squares.reshape(*rows.shape, -1, 3)


def batch(
    source: Store | Patches,
    seed: int,
    step: jax.Array,
    batch_size: int,
    side: int,
    target: int,
    divided: jax.sharding.Sharding | None = None,
    candidates: int = 1,
    degradation: Degradation | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Returns the batch of a step, float32 in [0, 1] and turned.

    Args:
      source: a store to cut from; or the step's patches, cut by the host.
      seed, step, batch_size, side: as of `draw`.
      target: as of `cut`.
      divided: sharding of the batch. Without it every device would cut all patches.
      candidates: patches drawn for each that is taken, see `most_detailed`.
      degradation: what is done to LR, after the turn; None: nothing.

    Returns:
      lr: (B, side, side, 3).
      hr: (B, target, target, 3).
    """
    margin = degradation.margin(side) if degradation else 0
    if isinstance(source, Patches):
        lr, hr, turns = source
    else:
        drawn = draw(source.index, seed, step, candidates * batch_size, side)
        if divided is not None:
            drawn = jax.lax.with_sharding_constraint(drawn, divided)
        if candidates > 1:
            scale = source.hr.shape[0] // source.lr.shape[0]
            lr, _ = cut(
                source, drawn, side, target
            )  # HR is not used here, so XLA drops it
            drawn = most_detailed(drawn, lr, candidates, scale, target)
        lr, hr = cut(source, drawn, side, target, margin)
        turns = drawn.turn
    turn = jax.vmap(images.turn)
    lr = turn(lr, turns)
    if degradation:
        # `draw` takes the first four keys of a step.
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), 4)
        lr = degrade(lr, side, degradation, key, divided)
    return _as_float(lr), _as_float(turn(hr, turns))


def _as_float(pixels):
    return pixels.astype(jnp.float32) / 255


def steps_per_pass(sizes: list[tuple[int, int]], batch_size: int) -> int:
    """Returns the steps of one pass, as the paper's released code counts them.

    It takes patches on a grid of stride 84, twice: upright and turned
    (docs/paper.md, section 2).

    Args:
      sizes: (height, width) of every HR image.
      batch_size: patches in a step.
    """
    patches = sum(2 * _grid(h) * _grid(w) for h, w in sizes)
    return max(1, patches // batch_size)


def _grid(side):
    return max(1, (side - 24 - 108) // 84 + 1)
