"""What docs/evaluation.md says of other tools' figures, by their formulas in NumPy.

BasicSR, EDSR-PyTorch, pyiqa, torchmetrics and MATLAB are not run: what is repeated here
is what their sources compute, on bicubic enlargements of two photographs.
"""

import functools
import importlib.resources

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import correlate1d

from btsrn_jax.metrics import mod_crop, psnr, ssim
from btsrn_jax.resize import imresize

CASES = [(name, scale) for name in ("chelsea", "coffee") for scale in (2, 3, 4)]
BT601 = np.array([65.481, 128.553, 24.966])
WINDOW = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))

every_case = pytest.mark.parametrize(("name", "scale"), CASES)


@functools.cache
def pair(name, scale, crop=True):
    """(sr, hr): a photograph and its bicubic enlargement, cut to the same size."""
    folder = importlib.resources.files("skimage") / "data"
    with (folder / f"{name}.png").open("rb") as file:
        hr = np.asarray(Image.open(file).convert("RGB"))
    hr = mod_crop(hr, scale) if crop else hr
    sr = imresize(imresize(hr, 1 / scale), scale)
    return sr[: hr.shape[0], : hr.shape[1]], hr


def cut(x, border):
    return x[border:-border, border:-border] if border else x


def decibels(a, b, peak=255.0, eps=0.0):
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return 10 * np.log10(peak**2 / (error + eps))


def luminance(x, round_y=False):
    y = 16 + x.astype(np.float64) @ BT601 / 255
    return np.floor(y + 0.5) if round_y else y


def luminance_float32(x):
    """BasicSR's `to_y_channel`."""
    y = (x.astype(np.float32) / 255) @ BT601 + 16
    return (y / 255).astype(np.float32) * 255


def full_range(x):
    """pyiqa's luminance where no `color_space` is given."""
    return x.astype(np.float64) @ [0.299, 0.587, 0.114]


def similarity(a, b, edge="nearest"):
    """The SSIM of every pixel of two channels, padded by `edge` (of SciPy)."""

    def mean(x):
        for axis in (0, 1):
            x = correlate1d(x, WINDOW / WINDOW.sum(), axis, mode=edge)
        return x

    a, b = a.astype(np.float64), b.astype(np.float64)
    (c1, c2), (u, v) = (2.55**2, 7.65**2), (mean(a), mean(b))
    spread = mean(a * a) - u * u + mean(b * b) - v * v
    both = mean(a * b) - u * v
    return (2 * u * v + c1) * (2 * both + c2) / ((u * u + v * v + c1) * (spread + c2))


def inside(x):
    return x[5:-5, 5:-5].mean()


@every_case
def test_rgb_with_a_border_of_6_and_s_is_ntire(name, scale):
    sr, hr = pair(name, scale)
    ours = psnr(sr, hr, "ntire", scale)
    a, b = cut(sr, 6 + scale), cut(hr, 6 + scale)
    assert decibels(a, b) == pytest.approx(ours, abs=1e-9)  # BasicSR, MATLAB
    pyiqa = decibels(a / 255, b / 255, 1.0, 1e-8)
    assert pyiqa == pytest.approx(ours, abs=1e-4)
    difference = (a.astype(np.float32) - b.astype(np.float32)) / np.float32(255)
    edsr = -10 * np.log10(np.mean(difference**2))
    assert edsr == pytest.approx(ours, abs=1e-5)
    assert -0.05 < decibels(sr, hr) - ours < 0.30  # no border: another figure
    assert -0.04 < decibels(cut(sr, scale), cut(hr, scale)) - ours < 0.20  # rgb


@every_case
def test_rgb_with_a_border_of_s_is_rgb(name, scale):
    images = pair(name, scale)
    ours = psnr(*images, "rgb", scale)
    a, b = (cut(x, scale) for x in images)
    assert decibels(a, b) == pytest.approx(ours, abs=1e-9)  # BasicSR, NTIRE's, MATLAB
    pyiqa = decibels(a / 255, b / 255, 1.0, 1e-8)
    assert pyiqa == pytest.approx(ours, abs=2e-4)
    channels = [inside(similarity(a[..., i], b[..., i])) for i in range(3)]
    assert np.mean(channels) == pytest.approx(ssim(*images, "rgb", scale), abs=1e-9)


@every_case
def test_unrounded_luminance_with_a_border_of_s_is_modern(name, scale):
    images = pair(name, scale)
    ours = psnr(*images, "modern", scale)
    a, b = (cut(x, scale) for x in images)
    matlab = decibels(luminance(a) / 255, luminance(b) / 255, 1.0)
    assert matlab == pytest.approx(ours, abs=1e-9)
    basicsr = decibels(luminance_float32(a), luminance_float32(b))
    assert basicsr == pytest.approx(ours, abs=1e-5)
    weights = np.array([65.738, 129.057, 25.064], np.float32) / 256
    edsr = (a.astype(np.float32) - b.astype(np.float32)) / 255 @ weights
    assert -10 * np.log10(np.mean(edsr**2)) == pytest.approx(ours, abs=1e-5)
    pyiqa = decibels(luminance(a) / 255, luminance(b) / 255, 1.0, 1e-8)
    assert pyiqa == pytest.approx(ours, abs=2e-4)
    default = decibels(full_range(a) / 255, full_range(b) / 255, 1.0, 1e-8)
    assert default - ours == pytest.approx(20 * np.log10(219 / 255), abs=1e-3)


@every_case
def test_rounded_luminance_with_a_border_of_2_is_benchmark(name, scale):
    images = pair(name, scale, crop=False)
    ours = psnr(*images, "benchmark", scale)
    a, b = (cut(luminance(x, round_y=True), 2) for x in images)
    assert decibels(a, b) == pytest.approx(ours, abs=1e-9)  # MATLAB on uint8
    a, b = (cut(luminance_float32(x), 2) for x in images)
    assert 0 < decibels(a, b) - ours < 0.04  # BasicSR does not round


@every_case
def test_ssim_inside_the_image_is_ours_and_over_a_padded_one_is_not(name, scale):
    images = pair(name, scale)
    ours = ssim(*images, "modern", scale)
    a, b = (cut(luminance(x), scale) for x in images)
    assert inside(similarity(a, b)) == pytest.approx(ours, abs=1e-9)  # BasicSR, Wang
    for edge in ("nearest", "mirror"):  # MATLAB's ssim; torchmetrics
        assert -0.0025 < similarity(a, b, edge).mean() - ours < 0.006
    assert inside(similarity(a, b, "mirror")) == pytest.approx(ours, abs=1e-9)
    rounded = inside(similarity(a.round(), b.round()))  # pyiqa with ycbcr
    assert -0.0015 < rounded - ours < -0.0009
    default = inside(similarity(*(full_range(x).round() for x in images)))
    assert -0.025 < default - ours < -0.007

    whole = [cut(x, 6 + scale) for x in images]
    channels = [inside(similarity(*(x[..., i] for x in whole))) for i in range(3)]
    assert np.mean(channels) == pytest.approx(ssim(*images, "ntire", scale), abs=1e-9)

    images = pair(name, scale, crop=False)
    a, b = (cut(luminance(x, round_y=True), 2) for x in images)
    ours = ssim(*images, "benchmark", scale)
    assert inside(similarity(a, b)) == pytest.approx(ours, abs=1e-9)  # pyiqa


def test_the_psnr_of_a_mean_error_is_below_the_mean_of_psnrs():
    pairs = [pair(name, 2) for name in ("chelsea", "coffee")]
    mean = np.mean([psnr(*images, "modern", 2) for images in pairs])
    errors = [
        ((luminance(sr) - luminance(hr))[2:-2, 2:-2] ** 2).ravel() for sr, hr in pairs
    ]
    pooled = 10 * np.log10(255**2 / np.concatenate(errors).mean())
    assert mean - pooled == pytest.approx(1.16, abs=0.01)


@every_case
def test_lr_of_other_tools_is_not_matlabs(name, scale):
    _, hr = pair(name, scale)
    h, w, _ = hr.shape
    lr = imresize(hr, 1 / scale)
    ours = psnr(imresize(lr, scale), hr, "modern", scale)

    pillow = Image.fromarray(hr).resize((w // scale, h // scale), Image.BICUBIC)
    # BasicSR's and pyiqa's own: floats, rounded once.
    once = imresize(hr.astype(np.float64), 1 / scale).clip(0, 255).round()
    for other, low, high in ((np.asarray(pillow), 0.15, 0.22), (once, 0.10, 0.16)):
        assert low < np.mean(other != lr) < high
        sr = imresize(other.astype(np.uint8), scale)
        assert psnr(sr, hr, "modern", scale) == pytest.approx(ours, abs=0.0035)

    plain = hr.astype(np.float64)
    for axis in (0, 1):
        plain = np.moveaxis(
            without_antialiasing(np.moveaxis(plain, axis, 0), scale), 0, axis
        )
    plain = (plain.clip(0, 255) + 0.5).astype(np.uint8)
    assert np.mean(plain != lr) > 0.5
    assert abs(psnr(imresize(plain, scale), hr, "modern", scale) - ours) > 0.3


def without_antialiasing(x, scale):
    """OpenCV's and PyTorch's bicubic shrinking of the first axis; a = -0.75."""
    centre = (np.arange(len(x) // scale) + 0.5) * scale - 0.5
    index = np.floor(centre).astype(int)[:, None] + np.arange(-1, 3)
    far = np.abs(centre[:, None] - index)
    a = -0.75
    near = (a + 2) * far**3 - (a + 3) * far**2 + 1
    weight = np.where(far <= 1, near, a * far**3 - 5 * a * far**2 + 8 * a * far - 4 * a)
    taps = x[index.clip(0, len(x) - 1)]
    return np.einsum("nk,nk...->n...", weight, taps)
