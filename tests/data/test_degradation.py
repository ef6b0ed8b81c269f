"""Claims about degraded patches: as libjpeg, NumPy and SciPy have it; reproducible."""

import dataclasses
import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from PIL import Image
from scipy import ndimage, stats
from skimage import data as samples

from btsrn_jax.data import degradation, jpeg_artefacts, sampler

ALL = tiny.DEGRADED
OFF = dataclasses.replace(ALL, blur=0.0, noise=0.0, jpeg=0.0)
save_and_read = jax.jit(jpeg_artefacts.save_and_read)


def by_pillow(image, quality, subsampled, grid=(0, 0)):
    """Saves and reads an image whose grid of blocks begins at a pixel inside of it."""
    top, left = grid
    file = io.BytesIO()
    part = Image.fromarray(image[top:, left:])
    part.save(file, "JPEG", quality=quality, subsampling=2 if subsampled else 0)
    return np.asarray(Image.open(file))


def psnr(a, b):
    return -10 * np.log10(np.mean((a / 255.0 - b / 255.0) ** 2))


@pytest.fixture(scope="module")
def originals():
    """Returns photographs and noise, all of one size."""
    noise = np.random.default_rng(0).integers(0, 256, (160, 192, 3), np.uint8)
    flat = np.full_like(noise, (200, 30, 90))
    crops = [f()[60:220, 100:292] for f in (samples.astronaut, samples.coffee)]
    return np.stack([*crops, samples.chelsea()[40:200, 100:292], noise, flat])


@pytest.mark.parametrize("subsampled", [False, True])
@pytest.mark.parametrize("quality", [10, 30, 49, 50, 75, 85, 95, 100])
def test_jpeg_is_what_pillow_saves_and_reads(originals, quality, subsampled):
    count = len(originals)
    settings = jnp.full(count, quality), jnp.full(count, subsampled)
    ours = np.asarray(save_and_read(originals, *settings))
    for clean, image in zip(originals, ours, strict=True):
        theirs = by_pillow(clean, quality, subsampled).astype(int)
        apart = np.abs(image - theirs)
        assert apart.mean() <= 0.01
        assert np.mean(apart <= 2) >= 0.999
        if clean.std():
            assert abs(psnr(image, clean) - psnr(theirs, clean)) < 0.005


def patches(count, side, wanted, seed=0):
    """Returns noise as patches with the margin that `wanted` needs."""
    whole = side + 2 * wanted.margin(side)
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, whole, whole, 3), np.uint8)


@functools.partial(jax.jit, static_argnums=(1, 2))
def degrade(images, side, wanted, key):
    return degradation.degrade(images, side, wanted, jax.random.key(key))


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def draws(key, count, wanted, side):
    keys = jax.random.split(jax.random.key(key), count)
    return jax.vmap(lambda key: degradation.draw(key, wanted, side))(keys)


@pytest.mark.parametrize("side", [1, 7, 16, 31, 32, 36, 54])
def test_a_patch_is_cut_from_a_whole_jpeg_of_the_image_wherever_its_grid_lies(side):
    """Pillow saves all of the surroundings, so that the patch is far from a border."""
    wanted = dataclasses.replace(OFF, jpeg=1.0, jpeg_quality=(20, 60))
    images, margin = patches(16, side, wanted), wanted.margin(side)
    drawn = draws(3, len(images), wanted, side)
    ours = np.asarray(degrade(images, side, wanted, 3)).astype(int)
    for i, image in enumerate(images):
        wide = np.pad(image, ((16, 16), (16, 16), (0, 0)), "symmetric")
        grid = (16 + margin - np.asarray(drawn.place[i])) % 16
        saved = by_pillow(wide, int(drawn.quality[i]), bool(drawn.subsampled[i]), grid)
        top, left = 16 + margin - grid
        theirs = saved[top : top + side, left : left + side]
        assert np.abs(ours[i] - theirs).mean() <= 0.01


def test_blocks_begin_at_any_of_the_16_rows_and_columns_and_settings_vary_as_asked():
    wanted, side, count = ALL, 36, 4096
    drawn = jax.device_get(draws(0, count, wanted, side)._replace(noise_key=None))
    for axis in (0, 1):
        seen = np.bincount(drawn.place[:, axis] % 16, minlength=16)
        assert stats.chisquare(seen).pvalue > 0.001

    def share(part):
        return pytest.approx(np.mean(part), abs=0.03)

    jpeg, noise = drawn.quality > 0, drawn.level > 0
    assert share(jpeg) == 0.8
    assert share(noise) == 0.5
    assert share(drawn.kernel[:, 3, 3] < 1) == 0.5
    assert share(drawn.subsampled[jpeg]) == 0.75
    assert share(drawn.shot[noise]) == 0.5
    assert share(drawn.grey[noise]) == 0.5
    assert share(drawn.shot & drawn.grey) == 0.25  # draws do not depend on each other
    # The higher of two even draws from 30 to 98: (31 / 69)^2 of them up to 60.
    quality = drawn.quality[jpeg]
    assert (quality.min(), quality.max()) == (30, 98)
    assert share(quality <= 60) == (31 / 69) ** 2
    levels = drawn.level[noise]
    assert stats.kstest(levels, stats.uniform(1, 5).cdf).pvalue > 0.001


def test_without_any_probability_patches_are_as_they_were():
    for wanted in (OFF, dataclasses.replace(ALL, blur=1e-9, noise=1e-9, jpeg=1e-9)):
        images, margin = patches(4, 20, wanted), wanted.margin(20)
        end = margin + 20
        np.testing.assert_array_equal(
            degrade(images, 20, wanted, 0), images[:, margin:end, margin:end]
        )


@pytest.mark.parametrize("widths", [(0.5, 0.5), (0.8, 0.3), (2.0, 0.7)])
def test_blur_is_the_gaussian_of_scipy_along_its_axes(originals, widths):
    down, across = widths
    radius = int(np.ceil(4 * max(widths)))
    kernel = degradation.gaussian(jnp.array([across, down]), 0.0, radius)
    kernels = jnp.stack([kernel] * len(originals))
    ours = degradation.blur(originals.astype(np.float32), kernels)
    theirs = ndimage.gaussian_filter(
        originals.astype(np.float64), (0, down, across, 0), radius=radius
    )[:, radius:-radius, radius:-radius]
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_a_turned_blur_has_its_widths_along_the_turned_axes():
    """The second moments of the kernel are those of the turned Gaussian."""
    angle, (a, b) = 0.4, (2.0, 1.0)
    kernel = np.asarray(degradation.gaussian(jnp.array([a, b]), angle, 12))
    y, x = np.mgrid[-12:13, -12:13]
    found = [np.sum(kernel * part) for part in (x * x, x * y, y * y)]
    axes = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    expected = axes.T @ np.diag([a**2, b**2]) @ axes
    np.testing.assert_allclose(found, expected[np.triu_indices(2)], rtol=1e-3)
    assert kernel.sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("shot", [0.0, 1.0])
@pytest.mark.parametrize("grey", [0.0, 1.0])
def test_noise_is_normal_and_as_wide_as_it_says(shot, grey):
    level = 6.0
    wanted = dataclasses.replace(
        OFF, noise=1.0, noise_level=(level, level), noise_shot=shot, noise_grey=grey
    )
    for value in (60, 120, 200):
        images = np.full((8, 64, 64, 3), value, np.uint8)
        noise = np.asarray(degrade(images, 64, wanted, value)).astype(float) - value
        expected = level * np.sqrt(value / 127.5) if shot else level
        deviation = np.sqrt(expected**2 + 1 / 12)  # of rounding
        channels = noise.reshape(-1, 3)
        assert noise.std() == pytest.approx(deviation, rel=0.02)
        assert abs(noise.mean()) < 0.1
        # Rounded values, spread over their level, are close to normal.
        spread = channels[:, 0] + np.random.default_rng(0).uniform(-0.5, 0.5, 32768)
        assert stats.kstest(spread / expected, "norm").statistic < 0.01
        alike = np.corrcoef(channels.T)[0, 1]
        assert alike == pytest.approx(grey, abs=0.02)
        beside = np.corrcoef(noise[:, :, 1:, 0].ravel(), noise[:, :, :-1, 0].ravel())
        assert abs(beside[0, 1]) < 0.02


def test_blur_comes_before_noise_and_noise_before_jpeg():
    """Noise that was blurred would be weaker; after a JPEG of quality 1 there would be
    more than the few values that a flat block can have."""
    wanted = dataclasses.replace(
        OFF, blur=1.0, blur_width=(2.0, 2.0), noise=1.0, noise_level=(5.0, 5.0)
    )
    side = 64
    flat = np.full_like(patches(4, side, wanted), 120)
    assert np.asarray(degrade(flat, side, wanted, 0)).std() > 4
    wanted = dataclasses.replace(wanted, jpeg=1.0, jpeg_quality=(1, 1))
    flat = np.full_like(patches(4, side, wanted), 120)
    assert len(np.unique(degrade(flat, side, wanted, 0))) < 20


batch_of = jax.jit(
    sampler.batch, static_argnums=(1, 3, 4, 5), static_argnames="degradation"
)


def test_a_degraded_batch_depends_on_seed_and_step_alone_and_hr_stays():
    store = tiny.store()
    clean = batch_of(store, 1, 5, 64, 8, 10)
    first = batch_of(store, 1, 5, 64, 8, 10, degradation=ALL)
    batch_of(store, 1, 9, 64, 8, 10, degradation=ALL)
    again = batch_of(store, 1, 5, 64, 8, 10, degradation=ALL)
    other = batch_of(store, 1, 6, 64, 8, 10, degradation=ALL)
    np.testing.assert_array_equal(first[1], clean[1])
    np.testing.assert_array_equal(first[0], again[0])
    assert not np.array_equal(first[0], other[0])
    levels = np.asarray(first[0]) * 255
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)
    same = np.mean(np.all(np.asarray(first[0] == clean[0]), axis=(1, 2, 3)))
    assert 0 < same < 0.2  # 0.5 x 0.5 x 0.2 are left as they were
    off = batch_of(store, 1, 5, 64, 8, 10, degradation=OFF)
    np.testing.assert_array_equal(off[0], clean[0])


def test_a_patch_at_the_border_of_an_image_sees_its_mirror_image():
    pairs = tiny.pairs()
    store = tiny.on_device(sampler.make_store(pairs, 2))
    drawn = sampler.draw(store.index, 0, 0, 64, 8)
    lr, _ = sampler.cut(store, drawn, 8, 10, margin=25)
    for i, (image, top, left, _) in enumerate(
        zip(*map(np.asarray, drawn), strict=True)
    ):
        padded = np.pad(pairs[image][0], ((25, 25), (25, 25), (0, 0)), "symmetric")
        np.testing.assert_array_equal(lr[i], padded[top : top + 58, left : left + 58])
