"""PSNR and SSIM under named protocols (docs/paper.md, section 3).

A bare "PSNR" means nothing in this field: figures of one image differ by a decibel with
the border, the colour space and the rounding. A protocol fixes all three.
"""

import dataclasses
import math
from collections.abc import Iterable

import numpy as np

from btsrn_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How two uint8 images are compared.

    Attributes:
      channels: "rgb" for one MSE over the three channels, or "y" for the luminance
        (BT.601, 16 to 235).
      border: Pixels ignored on each side, whatever the scale.
      border_scale: Pixels ignored on each side beyond that, per unit of scale.
      round_y: True if luminance is rounded to whole grey levels, as MATLAB does with
        uint8.
      mod_crop: True if HR is cut to a multiple of the scale before LR is made from it.
    """

    channels: str
    border: int
    border_scale: int
    round_y: bool
    mod_crop: bool

    def ignored(self, scale: int) -> int:
        """Returns the number of pixels that are ignored on each side."""
        return self.border + self.border_scale * scale


PROTOCOLS = {
    # The NTIRE 2017 challenge; the paper's Tables 1 to 3.
    "ntire": Protocol("rgb", 6, 1, round_y=False, mod_crop=True),
    # The paper's Table 4.
    "benchmark": Protocol("y", 2, 0, round_y=True, mod_crop=False),
    # Most papers since 2017.
    "modern": Protocol("y", 0, 1, round_y=False, mod_crop=True),
}


# What an image without error counts in its own row, in dB; its PSNR is infinite.
WITHOUT_ERROR = 100.0


def get_protocol(name: str) -> Protocol:
    """Returns the protocol of that name; InputError lists the names there are."""
    if name not in PROTOCOLS:
        raise InputError(f"unknown protocol {name!r}: one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def most_ignored(protocols: Iterable[str], scale: int) -> int:
    """Returns the largest number of pixels that one of the protocols ignores on each
    side."""
    return max(get_protocol(name).ignored(scale) for name in protocols)


def mod_crop(image: np.ndarray, scale: int) -> np.ndarray:
    """Cuts (h, w[, c]) below and on the right, to multiples of the scale."""
    h, w = image.shape[:2]
    return image[: h - h % scale, : w - w % scale]


def luminance(image: np.ndarray) -> np.ndarray:
    """Returns the BT.601 luminance of an image, as MATLAB's `rgb2ycbcr` does.

    Args:
      image: (h, w, 3) RGB, uint8 or float in 0..255.

    Returns:
      (h, w) float64 in 16..235.
    """
    return 16 + image.astype(np.float64) @ np.array([65.481, 128.553, 24.966]) / 255


def psnr(sr: np.ndarray, hr: np.ndarray, protocol: str, scale: int) -> float:
    """Returns the peak signal-to-noise ratio in dB; infinity for equal images.

    The sizes may differ by less than `scale` pixels a side; their common top-left part
    is compared.

    Args:
      sr: (H, W, 3) uint8, or (H, W) if `hr` is grey, too.
      hr: (H', W', 3) uint8, or (H', W') for a grey image, whose values are taken as its
        luminance.
      protocol: "ntire", "benchmark" or "modern".
      scale: 2, 3 or 4.

    Raises:
      InputError: for other shapes, dtypes or names, and for images that are all border.
    """
    a, b = _compared(sr, hr, protocol, scale)
    mse = np.mean((a - b) ** 2)
    return float("inf") if mse == 0 else float(10 * np.log10(255**2 / mse))


def counted(psnr: float) -> float:
    """Returns what a PSNR counts in tables and files: WITHOUT_ERROR for infinity."""
    return WITHOUT_ERROR if psnr == math.inf else psnr


def mean_psnr(values: Iterable[float]) -> float | None:
    """Returns the mean of a set, in dB: of its images' PSNRs, not of their errors.

    Images without error are left out: one black image would decide over the mean.

    Args:
      values: of the images, as `counted` returns them.

    Returns:
      None where every image is without error.
    """
    finite = [value for value in values if value != WITHOUT_ERROR]
    return float(np.mean(finite)) if finite else None


def rank(values: Iterable[float]) -> float:
    """Returns the score by which results on the same images are ranked, in dB.

    Here images without error count as WITHOUT_ERROR, and none counts more: by
    `mean_psnr`, a network that restores a black image all but for one pixel would be
    above one that restores it.

    Args:
      values: of the images, as `counted` returns them; at least one.
    """
    return float(np.mean([min(value, WITHOUT_ERROR) for value in values]))


def ssim(sr: np.ndarray, hr: np.ndarray, protocol: str, scale: int) -> float:
    """Returns the structural similarity, on the same pixels as `psnr`.

    The settings are those of Wang's MATLAB code: a Gaussian window of 11 x 11 pixels
    and sigma 1.5, population covariance, and the mean over the windows that lie inside.
    For RGB it is the mean of the three channels. It is nan if what is left of the
    image is smaller than a window, as Wang's code gives none; files then hold nothing.

    Args and errors are those of `psnr`.
    """
    # Imported here because it is slow to load, and `--help` need not wait for it.
    from skimage.metrics import structural_similarity

    a, b = _compared(sr, hr, protocol, scale)
    if min(a.shape[:2]) < 11:
        return math.nan
    value = structural_similarity(
        a,
        b,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=2 if a.ndim == 3 else None,
    )
    return float(value)


def _compared(sr, hr, protocol, scale):
    """Returns the two float64 arrays, (h, w) or (h, w, 3), whose difference is
    measured."""
    rule = get_protocol(protocol)
    for name, image in (("sr", sr), ("hr", hr)):
        shaped = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
        if image.dtype != np.uint8 or not shaped:
            raise InputError(
                f"{name} is {image.shape} {image.dtype}: uint8 (h, w) or (h, w, 3)"
                " was expected"
            )
    if sr.ndim < hr.ndim:
        raise InputError(f"sr is grey {sr.shape}, hr is not {hr.shape}")
    if any(abs(m - n) >= scale for m, n in zip(sr.shape, hr.shape[:2], strict=False)):
        raise InputError(
            f"sr is {sr.shape[0]}x{sr.shape[1]}, hr {hr.shape[0]}x{hr.shape[1]}:"
            f" they may differ by less than {scale} pixels a side"
        )
    sr, hr = (_channels(image, hr.ndim == 2, rule) for image in (sr, hr))
    border = rule.ignored(scale)
    h, w = (min(m, n) for m, n in zip(sr.shape[:2], hr.shape[:2], strict=True))
    if min(h, w) <= 2 * border:
        raise InputError(
            f"image of {h}x{w} is all border: {protocol} ignores {border} on each side"
        )
    inside = np.s_[border : h - border, border : w - border]
    return sr[inside], hr[inside]


def _channels(image, grey, rule):
    """Returns what a protocol compares of an image: its luminance or its channels."""
    if image.ndim == 2:
        return image.astype(np.float64)
    if grey:  # a grey image went in as three equal channels; their mean came out
        values = image.astype(np.float64).mean(axis=2)
    elif rule.channels == "y":
        values = luminance(image)
    else:
        return image.astype(np.float64)
    return np.floor(values + 0.5) if rule.round_y else values
