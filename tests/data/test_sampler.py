"""Claims about batches: aligned, uniform, and a function of (seed, step) alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from PIL import Image

from btsrn_jax.data import sampler

SIDE, TARGET, BATCH = 8, 10, 64  # the same in all tests: compiled once
# Indices and pixels are integers: they do not depend on how well XLA optimises.
QUICK = {"xla_backend_optimization_level": 0}
batch_of = jax.jit(
    sampler.batch,
    static_argnums=(3, 4, 5),
    static_argnames="candidates",
    compiler_options=QUICK,
)
draw_of = jax.jit(sampler.draw, static_argnums=(3, 4), compiler_options=QUICK)
ROUNDING = {"rtol": 1e-6, "atol": 0}  # of the division by 255


def views(image):
    """Returns all eight flips and rotations, made by NumPy alone."""
    return [np.rot90(m, k) for m in (image, np.fliplr(image)) for k in range(4)]


def numpy_turn(image, k):
    """Flips left-right by bit 0, top-bottom by bit 1, transposes by bit 2."""
    image = image[:, ::-1] if k & 1 else image
    image = image[::-1] if k & 2 else image
    return image.transpose(1, 0, 2) if k & 4 else image


def draws(steps, sizes=tiny.SIZES):
    """Returns the draws of many steps as one: each field is (steps * BATCH,)."""
    index = sampler.make_store(tiny.pairs(sizes), 2).index
    drawn = [draw_of(index, 0, step, BATCH, SIDE) for step in range(steps)]
    return sampler.Draw(*(np.concatenate(part) for part in zip(*drawn, strict=True)))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_batch_is_what_numpy_cuts_from_the_images(scale):
    pairs = tiny.pairs(scale=scale)
    store = tiny.on_device(sampler.make_store(pairs, scale))
    target = scale * SIDE - 6
    for seed, step in ((0, 0), (0, 3), (7, 0)):
        drawn = draw_of(store.index, seed, step, BATCH, SIDE)
        drawn = [np.asarray(part) for part in drawn]
        lr, hr = map(np.asarray, batch_of(store, seed, step, BATCH, SIDE, target))
        assert lr.shape == (BATCH, SIDE, SIDE, 3)
        assert hr.shape == (BATCH, target, target, 3)
        for i in range(16):
            image, top, left, k = (int(part[i]) for part in drawn)
            low, high = pairs[image]
            assert 0 <= top <= low.shape[0] - SIDE
            assert 0 <= left <= low.shape[1] - SIDE
            low = low[top : top + SIDE, left : left + SIDE]
            top, left = scale * top + 3, scale * left + 3  # the centre of the patch
            high = high[top : top + target, left : left + target]
            np.testing.assert_allclose(lr[i], numpy_turn(low, k) / 255, **ROUNDING)
            np.testing.assert_allclose(hr[i], numpy_turn(high, k) / 255, **ROUNDING)


def test_hr_shows_the_place_that_lr_shows_turned_alike():
    """Where an HR image is its LR image with every pixel doubled, so is a patch."""
    lows = [lr for lr, _ in tiny.pairs()]
    doubled = [(lr, lr.repeat(2, 0).repeat(2, 1)) for lr in lows]
    store = tiny.on_device(sampler.make_store(doubled, 2))
    for step in range(4):
        lr, hr = batch_of(store, 0, step, BATCH, SIDE, TARGET)
        expected = np.asarray(lr).repeat(2, 1).repeat(2, 2)[:, 3:-3, 3:-3]
        np.testing.assert_array_equal(hr, expected)


@jax.jit
def turn_of_version_1(x, k):
    """Turns as version 0.1.0 did: its batches are to stay the same."""
    bit = [(k >> i & 1).astype(bool)[:, None, None, None] for i in range(3)]
    x = jnp.where(bit[0], x[:, :, ::-1], x)
    x = jnp.where(bit[1], x[:, ::-1], x)
    return jnp.where(bit[2], x.swapaxes(1, 2), x)


def test_turns_are_the_eight_flips_and_rotations_as_they_always_were():
    image = np.arange(75, dtype=np.uint8).reshape(5, 5, 3)
    patches = sampler.Patches(*[np.stack([image] * 8)] * 2, np.arange(8))
    expected = turn_of_version_1(patches.lr, patches.turn)
    assert {np.asarray(t).tobytes() for t in expected} == {
        v.tobytes() for v in views(image)
    }
    for turned in batch_of(patches, 0, 0, 8, 5, 5):
        np.testing.assert_array_equal(turned, expected.astype(jnp.float32) / 255)
        assert len({np.asarray(t).tobytes() for t in turned}) == 8


def chi_square(observed, expected):
    return float(np.sum((observed - expected) ** 2 / expected))


def test_all_eight_turns_occur_equally_often():
    turns = np.bincount(draws(64).turn, minlength=8)
    assert chi_square(turns, np.full(8, 512)) < 24.3  # 1 in 1000, 7 degrees of freedom


def test_an_image_is_drawn_by_its_number_of_pixels():
    counts = np.bincount(draws(64).image, minlength=3)
    pixels = np.array([h * w for h, w in tiny.SIZES])
    assert chi_square(counts, 4096 * pixels / pixels.sum()) < 13.8  # 1 in 1000


def test_every_position_is_drawn_equally_often():
    drawn = draws(64, sizes=[(11, 10)])  # 4 x 3 positions
    counts = np.bincount(3 * drawn.top + drawn.left, minlength=12)
    assert counts.size == 12
    assert chi_square(counts, np.full(12, 4096 / 12)) < 31.3  # 1 in 1000


def test_a_batch_depends_on_seed_and_step_alone():
    store = tiny.store()
    first = batch_of(store, 1, 5, BATCH, SIDE, TARGET)
    for _ in range(2):  # whatever was drawn in between
        batch_of(store, 1, 9, BATCH, SIDE, TARGET)
        again = batch_of(store, 1, 5, BATCH, SIDE, TARGET)
        for ours, theirs in zip(first, again, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    for seed, step in ((1, 6), (2, 5)):
        other = batch_of(store, seed, step, BATCH, SIDE, TARGET)
        assert not np.array_equal(first[0], other[0])


def test_of_several_candidates_the_one_with_most_detail_is_taken():
    pairs, k = tiny.pairs(), 4
    store = tiny.on_device(sampler.make_store(pairs, 2))
    size = BATCH // k
    lr, hr = batch_of(store, 0, 3, size, SIDE, TARGET, candidates=k)
    image, top, left, turn = (
        np.asarray(field) for field in draw_of(store.index, 0, 3, BATCH, SIDE)
    )
    for row in range(size):
        details = []
        for i in range(k * row, k * row + k):
            y, x = top[i] + 1, left[i] + 1  # the loss sees 10 of 16 HR pixels: 1 LR off
            seen = pairs[image[i]][0][y : y + SIDE - 2, x : x + SIDE - 2]
            seen = seen.astype(np.float64)
            details.append(sum(np.abs(np.diff(seen, axis=a)).sum() for a in (0, 1)))
        i = k * row + int(np.argmax(details))
        y, x = top[i], left[i]
        low = pairs[image[i]][0][y : y + SIDE, x : x + SIDE]
        y, x = 2 * y + 3, 2 * x + 3
        high = pairs[image[i]][1][y : y + TARGET, x : x + TARGET]
        np.testing.assert_allclose(lr[row], numpy_turn(low, turn[i]) / 255, **ROUNDING)
        np.testing.assert_allclose(hr[row], numpy_turn(high, turn[i]) / 255, **ROUNDING)


def test_one_image_alone_is_always_drawn():
    assert not draws(4, sizes=[(8, 8)]).image.any()


def test_a_pass_is_counted_as_the_released_code_counts_it():
    """docs/PAPER.md, section 2: 2 * rows * columns patches an image, 32 a step."""
    assert sampler.steps_per_pass([(132, 132)] * 32, 32) == 2  # 2 patches each
    assert sampler.steps_per_pass([(216, 300)] * 8, 32) == 3  # 2 * 2 * 3 = 12 each
    assert sampler.steps_per_pass([(215, 299)] * 8, 32) == 1  # 2 * 1 * 2 = 4 each
    assert sampler.steps_per_pass([(20, 20)], 32) == 1  # at least one patch, one step


def test_a_pass_over_the_shared_photographs_is_664_steps(shared_data):
    paths = sorted((shared_data / "train").rglob("*.*"))
    sizes = []
    for path in paths:
        if path.suffix in (".png", ".jpg", ".webp"):
            with Image.open(path) as image:
                sizes.append((image.height, image.width))
    assert sampler.steps_per_pass(sizes, 32) == 664
    assert sampler.steps_per_pass(sizes, 1) == 21260


def test_rows_of_a_store_are_filled_up_to_what_a_tpu_can_gather_without_a_copy():
    """A v5e keeps (1124000, 6120) uint8 transposed, and copied 6.9 GB of it at every
    step. With 6144 bytes a row nothing is copied. Both were compiled by libtpu."""
    lr, hr = sampler.store_shapes(562000, 1020, 2)
    assert lr == (562000, 3072)
    assert hr == (1124000, 6144)
    assert tiny.store().lr.shape == (40, 128)  # 40 pixels, 120 bytes
