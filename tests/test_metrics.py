"""Claims of metrics.py: published bicubic figures, and tiny images worked by hand."""

import functools
import math

import numpy as np
import pytest

from btsrn_jax import metrics
from btsrn_jax.errors import InputError
from btsrn_jax.images import files as images
from btsrn_jax.metrics import PROTOCOLS, get_protocol, luminance, mod_crop, psnr, ssim
from btsrn_jax.resize import imresize

SCALES = (2, 3, 4)

# Bicubic PSNR at x2, x3, x4: the paper's Table 4, what most later papers print, and the
# figures of another NumPy implementation, written before this one.
TABLE_4 = {
    "Set5": (33.64, 30.38, 28.42),
    "Set14": (30.22, 27.51, 25.95),
    "B100": (29.55, 27.20, 25.97),
}
LITERATURE = {
    "Set5": (33.66, 30.39, 28.42),
    "Set14": (30.24, 27.55, 26.00),
    "B100": (29.56, 27.21, 25.96),
}
EARLIER = {
    "benchmark": {
        "Set5": (33.640, 30.386, 28.410),
        "Set14": (30.219, 27.503, 25.944),
        "B100": (29.550, 27.204, 25.976),
    },
    "modern": {
        "Set5": (33.673, 30.403, 28.429),
        "Set14": (30.230, 27.537, 25.994),
        "B100": (29.560, 27.209, 25.961),
    },
}


@functools.cache
def bicubic_psnr(folder, protocol):
    """Returns the mean PSNR of a folder's images at x2, x3, x4, bicubic down and up."""
    rows = []
    for path in images.find_images(folder):
        image = images.read_image(path)
        for scale in SCALES:
            hr = mod_crop(image, scale) if PROTOCOLS[protocol].mod_crop else image
            sr = imresize(imresize(hr, 1 / scale), scale)
            rows.append(psnr(sr, hr, protocol, scale))
    return np.reshape(rows, (-1, len(SCALES))).mean(axis=0)


@pytest.mark.parametrize("name", TABLE_4)
def test_benchmark_gives_the_bicubic_figures_of_the_papers_table_4(shared_data, name):
    figures = bicubic_psnr(shared_data / "bench" / name, "benchmark")
    np.testing.assert_allclose(figures, TABLE_4[name], rtol=0, atol=0.011)


@pytest.mark.parametrize("name", LITERATURE)
def test_modern_gives_the_bicubic_figures_of_the_literature(shared_data, name):
    figures = bicubic_psnr(shared_data / "bench" / name, "modern")
    np.testing.assert_allclose(figures, LITERATURE[name], rtol=0, atol=0.015)


@pytest.mark.parametrize("protocol", EARLIER)
@pytest.mark.parametrize("name", TABLE_4)
def test_bicubic_figures_agree_with_an_earlier_implementation(
    shared_data, name, protocol
):
    figures = bicubic_psnr(shared_data / "bench" / name, protocol)
    np.testing.assert_allclose(figures, EARLIER[protocol][name], rtol=0, atol=0.001)


def grey(value, h=24, w=24):
    """Returns an RGB image of one grey level."""
    return np.full((h, w, 3), value, np.uint8)


def decibels(mse):
    return 10 * math.log10(255**2 / mse)


def noisy_pair(*shape, seed=0):
    rng = np.random.default_rng(seed)
    hr = rng.integers(0, 256, shape, np.uint8)
    noise = rng.integers(-20, 21, shape)
    return np.clip(hr + noise, 0, 255).astype(np.uint8), hr


def test_luminance_is_matlabs():
    # rgb2ycbcr: 16 + (65.481 R + 128.553 G + 24.966 B) / 255.
    colours = [[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]
    values = [16, 235, 81.481, 144.553, 40.966]
    np.testing.assert_allclose(luminance(np.uint8([colours])), [values], atol=1e-9)
    np.testing.assert_allclose(luminance(np.float32([colours])), [values], atol=1e-9)


def test_ntire_is_one_mse_over_the_three_channels():
    # Errors of 10, 20 and 30: MSE (100 + 400 + 900) / 3, not a mean of three PSNRs.
    hr = grey(100)
    sr = hr + np.array([10, 20, 30], np.uint8)
    for scale in SCALES:
        assert psnr(sr, hr, "ntire", scale) == pytest.approx(decibels(1400 / 3))


def test_benchmark_rounds_luminance_to_whole_levels():
    # Y of 100 is 101.882 -> 102, of 101 is 102.741 -> 103: one level apart.
    assert psnr(grey(101), grey(100), "benchmark", 2) == pytest.approx(decibels(1))
    # Y of 5 is 20.294 -> 20, of 6 is 21.153 -> 21; 3: 18.576 -> 19, 4: 19.435 -> 19.
    assert psnr(grey(6), grey(5), "benchmark", 2) == pytest.approx(decibels(1))
    assert psnr(grey(4), grey(3), "benchmark", 2) == math.inf


def test_modern_does_not_round_luminance():
    # One grey level is 219/255 of luminance.
    expected = decibels((219 / 255) ** 2)
    assert psnr(grey(4), grey(3), "modern", 2) == pytest.approx(expected)
    assert psnr(grey(101), grey(100), "modern", 2) == pytest.approx(expected)


def test_luminance_weighs_an_error_by_its_channel():
    hr = grey(100)
    sr = hr.copy()
    sr[..., 2] += 51  # blue: 51 * 24.966 / 255 = 4.9932, and 5 when rounded
    assert psnr(sr, hr, "modern", 3) == pytest.approx(decibels(4.9932**2))
    # 101.882 -> 102, 106.8756 -> 107
    assert psnr(sr, hr, "benchmark", 3) == pytest.approx(decibels(25))
    assert psnr(sr, hr, "ntire", 3) == pytest.approx(decibels(51**2 / 3))


BORDERS = [
    ("ntire", 2, 8),
    ("ntire", 3, 9),
    ("ntire", 4, 10),
    ("benchmark", 2, 2),
    ("benchmark", 3, 2),
    ("benchmark", 4, 2),
    ("modern", 2, 2),
    ("modern", 3, 3),
    ("modern", 4, 4),
]


@pytest.mark.parametrize(("protocol", "scale", "border"), BORDERS)
@pytest.mark.parametrize("turned", [False, True])
def test_exactly_the_border_of_the_protocol_is_ignored(protocol, scale, border, turned):
    assert get_protocol(protocol).ignored(scale) == border
    hr = grey(100, 24, 30)
    for side in (0, -1):
        sr = hr.copy()
        frame = sr.swapaxes(0, 1) if turned else sr
        frame[border - 1 if side == 0 else -border] = 255
        assert psnr(sr, hr, protocol, scale) == math.inf
        frame[border if side == 0 else -border - 1] = 255
        assert psnr(sr, hr, protocol, scale) < 40


@pytest.mark.parametrize(("protocol", "scale", "border"), BORDERS)
def test_one_wrong_pixel_counts_once(protocol, scale, border):
    hr = grey(0, 25, 26)
    sr = hr.copy()
    sr[12, 13] = 255
    pixels = (25 - 2 * border) * (26 - 2 * border)
    peak = 255 if protocol == "ntire" else 219
    expected = decibels(peak**2 / pixels)
    assert psnr(sr, hr, protocol, scale) == pytest.approx(expected)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_equal_images_have_infinite_psnr_and_ssim_one(protocol):
    image, _ = noisy_pair(40, 36, 3)
    assert psnr(image, image, protocol, 3) == math.inf
    assert ssim(image, image, protocol, 3) == pytest.approx(1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_peak_is_255_and_the_worst_psnr_0(protocol):
    black, white = np.zeros((24, 24), np.uint8), np.full((24, 24), 255, np.uint8)
    assert psnr(white, black, protocol, 2) == pytest.approx(0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_grey_image_is_its_own_luminance(protocol):
    # As RGB one level apart would be 219/255; as grey it is 1, in every protocol.
    a, b = np.full((24, 24), 101, np.uint8), np.full((24, 24), 100, np.uint8)
    assert psnr(a, b, protocol, 2) == pytest.approx(decibels(1))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_rgb_output_of_a_grey_image_is_averaged(protocol):
    # (100 + 101 + 103) / 3 = 101.333: as a float, but for benchmark's rounding.
    sr = np.full((40, 40, 3), [100, 101, 103], np.uint8)
    hr = np.full((40, 40), 100, np.uint8)
    error = 1 if protocol == "benchmark" else 4 / 3
    assert psnr(sr, hr, protocol, 2) == pytest.approx(decibels(error**2))
    # The luminance term of flat images, see below.
    expected = 1 - error**2 / ((100 + error) ** 2 + 100**2 + 6.5025)
    assert ssim(sr, hr, protocol, 2) == pytest.approx(expected)


@pytest.mark.parametrize("scale", SCALES)
def test_a_larger_output_is_cut_top_left_to_the_hr_size(scale):
    # ceil(23 / s) * s and ceil(22 / s) * s, before the border is taken.
    hr = noisy_pair(23, 22, 3)[1]
    sides = (-(-side // scale) * scale - side for side in (23, 22))
    below, right = sides
    sr = np.pad(hr, ((0, below), (0, right), (0, 0)), constant_values=255)
    assert psnr(sr, hr, "benchmark", scale) == math.inf
    assert psnr(hr, sr, "benchmark", scale) == math.inf


def test_mod_crop_cuts_below_and_on_the_right():
    image = np.arange(7 * 8).reshape(7, 8)
    np.testing.assert_array_equal(mod_crop(image, 3), image[:6, :6])
    np.testing.assert_array_equal(mod_crop(image, 4), image[:4, :8])
    assert mod_crop(np.zeros((9, 6, 3)), 3).shape == (9, 6, 3)


def filter_valid(image, window):
    """Returns the correlation of (h, w) with a window, where it lies inside."""
    size = len(window)
    windows = np.lib.stride_tricks.sliding_window_view(image, (size, size))
    return np.einsum("hwij,ij->hw", windows, window)


def wang_ssim(a, b):
    """Returns what Wang's ssim_index.m gives by default for (h, w) in 0..255."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    y, x = np.mgrid[-5:6, -5:6]
    window = np.exp(-(x**2 + y**2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = filter_valid(a, window), filter_valid(b, window)
    var_a = filter_valid(a * a, window) - mean_a**2
    var_b = filter_valid(b * b, window) - mean_b**2
    covariance = filter_valid(a * b, window) - mean_a * mean_b
    luminances = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (var_a + var_b + c2)
    return (luminances * structure).mean()


@pytest.mark.parametrize(("protocol", "scale", "border"), BORDERS)
def test_ssim_is_wangs(protocol, scale, border):
    sr, hr = noisy_pair(37, 42, 3)
    inside = np.s_[border:-border, border:-border]
    a, b = sr[inside], hr[inside]
    if protocol == "ntire":
        expected = np.mean([wang_ssim(a[..., c], b[..., c]) for c in range(3)])
    else:
        a, b = luminance(a), luminance(b)
        if protocol == "benchmark":
            a, b = np.floor(a + 0.5), np.floor(b + 0.5)
        expected = wang_ssim(a, b)
    assert ssim(sr, hr, protocol, scale) == pytest.approx(expected, abs=1e-9)


def test_ssim_of_a_single_window_is_wangs():
    sr, hr = noisy_pair(15, 15)
    expected = wang_ssim(sr[2:-2, 2:-2], hr[2:-2, 2:-2])
    assert ssim(sr, hr, "modern", 2) == pytest.approx(expected, abs=1e-9)


def test_ssim_of_an_image_below_a_window_is_not_a_number():
    sr, hr = noisy_pair(14, 30, 3)
    assert math.isnan(ssim(sr, hr, "modern", 2))
    assert psnr(sr, hr, "modern", 2) > 0


def test_ssim_of_flat_images_is_the_luminance_term():
    # (2 * 100 * 110 + 6.5025) / (100^2 + 110^2 + 6.5025)
    a, b = np.full((30, 30), 100, np.uint8), np.full((30, 30), 110, np.uint8)
    expected = 22006.5025 / 22106.5025
    assert ssim(a, b, "modern", 2) == pytest.approx(expected)


METRICS = pytest.mark.parametrize("metric", [psnr, ssim])


@METRICS
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint16, bool])
def test_only_uint8_is_measured(metric, dtype):
    image = grey(1)
    with pytest.raises(InputError, match=f"sr is .* {np.dtype(dtype)}: uint8"):
        metric(image.astype(dtype), image, "modern", 2)
    with pytest.raises(InputError, match=f"hr is .* {np.dtype(dtype)}: uint8"):
        metric(image, image.astype(dtype), "modern", 2)


@METRICS
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("shape", [(24,), (1, 24, 24, 3), (24, 24, 4), (24, 24, 1)])
def test_only_rgb_and_grey_images_are_measured(metric, protocol, shape):
    image, odd = grey(1), np.ones(shape, np.uint8)
    with pytest.raises(InputError, match="sr is"):
        metric(odd, image, protocol, 2)
    with pytest.raises(InputError, match="hr is"):
        metric(image, odd, protocol, 2)


@METRICS
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_grey_output_of_an_rgb_image_is_refused(metric, protocol):
    with pytest.raises(InputError, match="grey"):
        metric(grey(1)[..., 0], grey(1), protocol, 2)


@METRICS
@pytest.mark.parametrize("scale", SCALES)
def test_sizes_a_whole_lr_pixel_apart_are_refused(metric, scale):
    hr = grey(1, 24, 24)
    close, apart = grey(1, 24, 24 + scale - 1), grey(1, 24, 24 + scale)
    metric(close, hr, "benchmark", scale)
    with pytest.raises(InputError, match=f"sr is 24x{24 + scale}, hr 24x24"):
        metric(apart, hr, "benchmark", scale)
    with pytest.raises(InputError, match=f"sr is 24x24, hr 24x{24 + scale}"):
        metric(hr, apart, "benchmark", scale)


@METRICS
@pytest.mark.parametrize(("protocol", "scale", "border"), BORDERS)
def test_an_image_that_is_all_border_is_refused(metric, protocol, scale, border):
    small, enough = grey(1, 2 * border, 40), grey(1, 2 * border + 1, 40)
    with pytest.raises(InputError, match=f"ignores {border} on each side"):
        metric(small, small, protocol, scale)
    assert psnr(enough, enough, protocol, scale) == math.inf


@METRICS
def test_an_unknown_protocol_is_refused_with_the_known_ones(metric):
    with pytest.raises(InputError, match="'y': one of ntire, benchmark, modern"):
        metric(grey(1), grey(1), "y", 2)


def test_the_protocols_crop_as_papers_do():
    cropped = {name: rule.mod_crop for name, rule in PROTOCOLS.items()}
    assert cropped == {"ntire": True, "benchmark": False, "modern": True}


def test_images_without_error_are_no_part_of_a_mean_and_count_in_a_rank():
    assert metrics.counted(math.inf) == 100
    assert metrics.counted(33.5) == 33.5
    assert metrics.mean_psnr([100.0, 30.0, 34.0]) == 32
    assert metrics.mean_psnr([100.0, 100.0]) is None
    assert metrics.rank([100.0, 100.0]) == 100
    # One wrong pixel in a black image is worse than none.
    assert metrics.rank([60.0, 30.0]) < metrics.rank([100.0, 30.0])
