"""Claims of resize.py: MATLAB's files, weights by hand, borders, sizes, the JAX skip.

Keys' cubic with a = -0.5 is 1.5 x^3 - 2.5 x^2 + 1 up to 1 and
-0.5 x^3 + 2.5 x^2 - 4 x + 2 from there to 2. At quarters, thirds and eighths this gives
the fractions below; each set of taps of one phase adds up to 1.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from btsrn_jax.network.geometry import SKIP_MARGIN
from btsrn_jax.network.ops import bicubic_skip, pad_symmetric
from btsrn_jax.resize import imresize

SCALES = (2, 3, 4)
NAMES = ("baby", "bird", "butterfly", "head", "woman")

# What an impulse of 1 becomes, from its first output that is not 0 to its last.
IMPULSE = {
    2: np.array([-3, -9, 29, 111, 111, 29, -9, -3]) / 128,
    3: np.array([-1, -2, 0, 9, 21, 27, 21, 9, 0, -2, -1]) / 27,
    4: np.array(
        [-7, -45, -75, -49, 93, 399, 745, 987, 987, 745, 399, 93, -49, -75, -45, -7]
    )
    / 1024,
}


def noise(*shape, seed=0):
    return np.random.default_rng(seed).random(shape)


@functools.partial(jax.jit, static_argnums=1)
def enlarge(x, scale):
    return bicubic_skip(pad_symmetric(x, SKIP_MARGIN), scale)


def column(values):
    return np.asarray(values, np.float64)[:, None]


def impulse_responses(size, scale):
    """Returns the matrix (scale size, size) of enlarging, built from IMPULSE."""
    pad = 2 * size  # enough for the four taps and a reflection or two
    wide = np.zeros((scale * (size + 2 * pad), size + 2 * pad))
    response = IMPULSE[scale]
    for j in range(2, size + 2 * pad - 2):
        start = scale * j + (scale - len(response)) // 2
        wide[start : start + len(response), j] = response
    rows = wide[scale * pad : scale * (pad + size)]
    folded = np.zeros((scale * size, size))
    source = np.pad(np.arange(size), pad, mode="symmetric")
    for j, original in enumerate(source):
        folded[:, original] += rows[:, j]
    return folded


def round_half_up(x):
    return np.clip(np.floor(x + 0.5), 0, 255)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", NAMES)
def test_imresize_reproduces_matlabs_files(shared_data, scale, name):
    def read(path):
        return np.asarray(Image.open(shared_data / "lr_reference" / path))

    hr = read(f"HR/{name}.png")
    h, w = (side - side % scale for side in hr.shape[:2])
    lr = imresize(hr[:h, :w], 1 / scale)
    expected = read(f"X{scale}/{name}x{scale}.png")
    assert lr.shape == expected.shape
    assert np.count_nonzero(lr != expected) == 0


def test_halving_a_step_gives_the_kernel_stretched_to_eight_taps():
    # Taps at 0.5, 1.5, 2.5 and 3.5 pixels: 111, 29, -9 and -3 of 256 on each side.
    step = column([0, 0, 0, 0, 1, 1, 1, 1])
    half = imresize(np.repeat(step, 3, axis=1), 1 / 2)
    expected = np.array([-3, 17, 239, 259]) / 256
    np.testing.assert_allclose(half, np.repeat(column(expected), 2, axis=1), atol=1e-12)


def test_without_antialiasing_a_step_would_be_halved_otherwise():
    # The plain cubic is 0.5625 and -0.0625 at 0.5 and 1.5 pixels: no such sum appears.
    half = imresize(column([0, 0, 0, 0, 1, 1, 1, 1]), 1 / 2)[:, 0]
    assert not np.isclose(half[:, None], [-0.0625, 0.0625, 1.0625], atol=1e-3).any()


@pytest.mark.parametrize("scale", SCALES)
def test_enlarging_an_impulse_gives_the_phases_of_keys_cubic(scale):
    impulse = np.zeros(9)
    impulse[4] = 1
    expected = np.zeros(9 * scale)
    length = len(IMPULSE[scale])
    start = (9 * scale - length) // 2
    expected[start : start + length] = IMPULSE[scale]
    # A column of the impulse, three wide: columns alike stay alike.
    enlarged = imresize(np.repeat(impulse[:, None], 3, axis=1), scale)
    assert enlarged.shape == (9 * scale, 3 * scale)
    for x in range(3 * scale):
        np.testing.assert_allclose(enlarged[:, x], expected, atol=1e-12)


@pytest.mark.parametrize("scale", [2, 3, 4, 1 / 2, 1 / 3, 1 / 4])
def test_a_constant_stays_constant(scale):
    np.testing.assert_allclose(imresize(np.full((7, 5, 3), 0.3), scale), 0.3)
    assert (imresize(np.full((7, 5), 200, np.uint8), scale) == 200).all()


@pytest.mark.parametrize("scale", SCALES)
def test_a_ramp_is_enlarged_to_a_ramp_in_the_middle(scale):
    ramp = imresize(column(np.arange(20)), scale)[:, 0]
    positions = (np.arange(20 * scale) + 0.5) / scale - 0.5
    inner = np.s_[2 * scale : -2 * scale]
    np.testing.assert_allclose(ramp[inner], positions[inner], atol=1e-12)


def test_floats_are_neither_rounded_nor_clipped():
    image = noise(6, 6).astype(np.float32) * 300 - 20
    out = imresize(image, 2)
    assert out.dtype == np.float64
    assert np.abs(out - np.round(out)).max() > 0.1
    assert out.min() < image.min()
    assert out.max() > image.max()


@pytest.mark.parametrize("scale", SCALES)
def test_uint8_is_rounded_after_each_dimension_rows_first(scale):
    image = np.random.default_rng(3).integers(0, 256, (8, 9), np.uint8)
    tall, wide = impulse_responses(8, scale), impulse_responses(9, scale)
    rows_first = round_half_up(round_half_up(tall @ image) @ wide.T)
    columns_first = round_half_up(tall @ round_half_up(image @ wide.T))
    once = round_half_up(tall @ image @ wide.T)
    out = imresize(image, scale)
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(out, rows_first)
    assert (columns_first != rows_first).any()
    assert (once != rows_first).any()


def test_uint8_loses_the_negative_lobes_between_the_dimensions():
    # Rounded once, the corner of the lobes would be 255 (9/128)^2 = 1.26 -> 1.
    image = np.zeros((9, 9), np.uint8)
    image[4, 4] = 255
    out = imresize(image, 2)[5:9, 5:9]  # rows first: 58 = 255 29/128, 221 = 255 111/128
    expected = [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 13, 50], [0, 0, 50, 192]]
    np.testing.assert_array_equal(out, expected)


def test_halves_are_rounded_up():
    # Weights 29/128 and 111/128 of 64 are 14.5 and 55.5; the lobes become 0.
    image = np.zeros((9, 1), np.uint8)
    image[4] = 64
    out = imresize(image, 2)[5:13, 0]
    np.testing.assert_array_equal(out, [0, 0, 15, 56, 56, 15, 0, 0])


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (3, 2), (5, 4), (1, 7)])
@pytest.mark.parametrize("scale", [2, 3, 4, 1 / 2, 1 / 3, 1 / 4])
def test_borders_are_symmetric_down_to_one_pixel(shape, scale):
    image = noise(*shape)
    pad = 24  # a multiple of 2, 3 and 4, above the 8 pixels that 1/4 reaches
    padded = imresize(np.pad(image, pad, mode="symmetric"), scale)
    h, w = (math.ceil(scale * side) for side in shape)
    start = round(pad * scale)
    out = imresize(image, scale)
    assert out.shape == (h, w)
    expected = padded[start : start + h, start : start + w]
    np.testing.assert_allclose(out, expected, atol=1e-12)


@pytest.mark.parametrize("factor", SCALES)
def test_sizes_are_rounded_up_for_every_side_to_5000(factor):
    for side in range(1, 5001):
        strip = np.broadcast_to(np.float64(1), (side, 1))
        assert len(imresize(strip, 1 / factor)) == -(-side // factor), side


def test_sides_are_resized_each_by_its_own_size_and_channels_alone():
    image = noise(11, 14, 3)
    out = imresize(image, 1 / 4)
    assert out.shape == (3, 4, 3)
    for channel in range(3):
        alone = imresize(image[..., channel], 1 / 4)
        np.testing.assert_array_equal(out[..., channel], alone)


@pytest.mark.parametrize("scale", [2, 1 / 3])
def test_a_transposed_image_gives_the_transposed_result(scale):
    image = noise(9, 7)
    np.testing.assert_allclose(
        imresize(image.T, scale), imresize(image, scale).T, atol=1e-12
    )


@pytest.mark.parametrize(
    "image",
    [
        np.zeros(5),
        np.zeros((1, 5, 5, 3)),
        np.zeros((0, 5)),
        np.zeros((5, 0, 3)),
        np.zeros((5, 5), np.int32),
        np.zeros((5, 5), np.uint16),
        np.zeros((5, 5), bool),
        np.zeros((5, 5), complex),
    ],
    ids=lambda image: f"{image.shape}-{image.dtype}",
)
def test_what_is_no_image_is_refused(image):
    with pytest.raises(ValueError, match="imresize takes"):
        imresize(image, 2)


@pytest.mark.parametrize("border", [0, 1, 2, 5, 13])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (6, 1)])
def test_pad_symmetric_is_numpys(shape, border):
    x = noise(2, *shape, 3).astype(np.float32)
    sides = ((0, 0), (border, border), (border, border), (0, 0))
    expected = np.pad(x, sides, mode="symmetric")
    np.testing.assert_array_equal(pad_symmetric(jnp.asarray(x), border), expected)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (24, 17)])
@pytest.mark.parametrize("scale", SCALES)
def test_the_skip_is_imresize_in_floats(shape, scale):
    x = noise(2, *shape, 3)
    skip = enlarge(jnp.asarray(x, jnp.float32), scale)
    assert skip.shape == (2, scale * shape[0], scale * shape[1], 3)
    assert skip.dtype == jnp.float32
    for image, enlarged in zip(x, skip, strict=True):
        np.testing.assert_allclose(enlarged, imresize(image, scale), atol=1e-6)


@pytest.mark.parametrize("scale", SCALES)
def test_the_skip_needs_two_pixels_on_each_side_and_no_more(scale):
    x = noise(1, 5, 5, 1)
    pixel = bicubic_skip(jnp.asarray(x, jnp.float32), scale)
    assert pixel.shape == (1, scale, scale, 1)
    wide = imresize(np.pad(x[0, :, :, 0], 4), scale)  # any surroundings do
    middle = np.s_[6 * scale : 7 * scale]
    np.testing.assert_allclose(pixel[0, :, :, 0], wide[middle, middle], atol=1e-6)
