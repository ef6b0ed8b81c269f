"""batch = f(seed, step): patches and their augmentation.

Images stay decoded in one array on the device, and the patches are cut inside the
compiled step, so that the input pipeline costs no host time. Indices come from integer
arithmetic on threefry bits: the same on every platform, topology and host.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from btsrn_jax import images


class Index(NamedTuple):
    """Where the images lie in a store; all (images,).

    offset: first LR row, int32. height, width: of the LR image, int32.
    threshold: an image is drawn where the bits fall below it (and not below the one
      before), uint32: images are drawn in proportion to their pixels.
    """

    offset: jax.Array
    height: jax.Array
    width: jax.Array
    threshold: jax.Array


class Store(NamedTuple):
    """Decoded images below each other. lr: (rows, 3 width) uint8, hr: (scale rows,
    3 scale width) uint8, rows filled up to a multiple of 128 bytes; narrower images
    leave the right part unused. Whole rows are gathered, then columns sliced: one slice
    of both was seen to copy the store."""

    lr: jax.Array
    hr: jax.Array
    index: Index


class Patches(NamedTuple):
    """Squares that the host has cut already: lr (B, side, side, 3) and hr (B, target,
    target, 3), uint8, not yet turned; turn (B,) int32."""

    lr: jax.Array
    hr: jax.Array
    turn: jax.Array


class Draw(NamedTuple):
    """What one step takes; all (batch,) int32. turn: 0..7, one of the eight flips and
    rotations."""

    image: jax.Array
    top: jax.Array
    left: jax.Array
    turn: jax.Array


def make_store(pairs: list[tuple[np.ndarray, np.ndarray]], scale: int) -> Store:
    """Packs [(lr, hr)] of uint8 (h, w, 3), hr exactly `scale` times lr, as NumPy."""
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
    """Of the two arrays of a store; rows and width: of LR, in pixels."""
    return (
        (int(rows), _columns(width)),
        (scale * int(rows), _columns(scale * width)),
    )


def _columns(width):
    """Bytes of a row. A TPU keeps an array whose rows are no multiple of 128 transposed
    in memory, and would copy the whole store at every step to gather rows."""
    return -(-3 * int(width) // 128) * 128


def make_index(heights: np.ndarray, widths: np.ndarray) -> Index:
    """The index of LR images of these sizes, as NumPy."""
    heights, widths = (np.asarray(a, np.int64) for a in (heights, widths))
    offsets = np.concatenate([[0], np.cumsum(heights)[:-1]])
    share = np.cumsum(heights * widths) / np.sum(heights * widths)
    threshold = np.floor(share * 2.0**32).clip(0, 2**32 - 1).astype(np.uint32)
    offsets, heights, widths = (a.astype(np.int32) for a in (offsets, heights, widths))
    return Index(offsets, heights, widths, threshold)


def draw(index: Index, seed: int, step: jax.Array, batch_size: int, side: int) -> Draw:
    """The patches of one step: LR squares of `side`, uniform in position and turn."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    keys = jax.random.split(key, 4)
    shape = (batch_size,)
    bits = jax.random.bits(keys[0], shape, jnp.uint32)
    # The last image takes what rounding left above its threshold.
    image = jnp.searchsorted(index.threshold[:-1], bits, side="right")
    top = jax.random.randint(keys[1], shape, 0, index.height[image] - side + 1)
    left = jax.random.randint(keys[2], shape, 0, index.width[image] - side + 1)
    return Draw(image, top, left, jax.random.randint(keys[3], shape, 0, 8))


def most_detailed(drawn: Draw, lr, candidates: int, scale: int, target: int) -> Draw:
    """Of every `candidates` draws in a row the one whose patch has most detail, the
    first of equals: smooth patches have little to teach.

    Detail is the sum of absolute differences of neighbours, down and across, in whole
    numbers: the same choice by JAX and by NumPy.

    Args:
      drawn: (candidates * B,) each.
      lr: (candidates * B, side, side, 3) uint8, the patches of `drawn`, of either.
      target: HR pixels a side that the loss sees; LR pixels wholly outside of them do
        not count.
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


def cut(store: Store, drawn: Draw, side: int, target: int) -> tuple:
    """The patches of a draw, not yet turned.

    Returns:
      lr: (B, side, side, 3) uint8.
      hr: (B, target, target, 3) uint8, the centre of the enlarged patch.
    """
    scale = store.hr.shape[0] // store.lr.shape[0]
    border = (scale * side - target) // 2
    top = store.index.offset[drawn.image] + drawn.top
    lr = _squares(store.lr, top, drawn.left, side)
    top, left = scale * top + border, scale * drawn.left + border
    return lr, _squares(store.hr, top, left, target)


def _squares(rows, top, left, side):
    bands = rows[top[:, None] + jnp.arange(side)]  # (B, side, 3 width)

    def columns(band, start):
        return jax.lax.dynamic_slice_in_dim(band, 3 * start, 3 * side, axis=1)

    squares = jax.vmap(columns)(bands, left)
    return squares.reshape(-1, side, side, 3)


def batch(
    source: Store | Patches,
    seed: int,
    step,
    batch_size: int,
    side: int,
    target: int,
    divided=None,
    candidates: int = 1,
):
    """The (lr, hr) of a step: float32 in [0, 1], turned; see `draw` and `cut`.

    source: a store to cut from; or the step's patches, cut by the host.
    divided: sharding of the batch. Without it every device would cut all patches.
    candidates: patches drawn for each that is taken, see `most_detailed`.
    """
    if isinstance(source, Patches):
        lr, hr, turns = source
    else:
        drawn = draw(source.index, seed, step, candidates * batch_size, side)
        if divided is not None:
            drawn = jax.lax.with_sharding_constraint(drawn, divided)
        if candidates > 1:
            scale = source.hr.shape[0] // source.lr.shape[0]
            lr, _ = cut(source, drawn, side, target)  # compiled, HR is not cut
            drawn = most_detailed(drawn, lr, candidates, scale, target)
        lr, hr = cut(source, drawn, side, target)
        turns = drawn.turn
    turn = jax.vmap(images.turn)
    return tuple(turn(x, turns).astype(jnp.float32) / 255 for x in (lr, hr))


def steps_per_pass(sizes: list[tuple[int, int]], batch_size: int) -> int:
    """Steps of one pass as the released code counts it (docs/PAPER.md, 2): on a grid
    of stride 84 over HR images (height, width), twice (upright and turned)."""
    patches = sum(2 * _grid(h) * _grid(w) for h, w in sizes)
    return max(1, patches // batch_size)


def _grid(side):
    return max(1, (side - 24 - 108) // 84 + 1)
