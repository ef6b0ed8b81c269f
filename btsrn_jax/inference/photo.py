"""One picture upscaled with all it has: grey or colour, alpha, descriptions."""

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy import ndimage

from btsrn_jax import images, resize


def upscale_picture(
    picture: images.Picture,
    upscale: Callable[..., np.ndarray],
    scale: int,
    progress: Callable[[float], None] | None = None,
) -> images.Picture:
    """Returns a picture upscaled, its alpha channel too; all else is kept.

    A grey picture goes in as three equal channels, and their mean comes out. Alpha is
    upscaled as a grey picture by the same function, so that outlines are as sharp as
    what they enclose. Where alpha is constant around a pixel, it stays exactly that: a
    network may be off by one there, and opaque would become almost opaque.

    Args:
      upscale: upscale(lr, progress): (h, w, 3) uint8 or uint16 -> (s h, s w, 3) of the
        same dtype. It calls progress(done, total) as it goes on.
      scale: s, a whole number.
      progress: takes the share that is done, up to 1.
    """
    pixels, alpha = picture.pixels, picture.alpha
    varies = alpha is not None and alpha.min() != alpha.max()

    def share(first, of):
        if progress is None:
            return None
        return lambda done, total: progress((first + done / max(total, 1)) / of)

    if alpha is not None:
        pixels = bleed(pixels, alpha)
    pixels = _upscale_channels(pixels, upscale, share(0, 1 + varies))
    if alpha is not None:
        large = alpha.repeat(scale, axis=0).repeat(scale, axis=1)
        if varies:
            around = {"size": 5, "mode": "nearest"}  # as far as bicubic looks
            least = ndimage.minimum_filter(alpha, **around)
            flat = least == ndimage.maximum_filter(alpha, **around)
            flat = flat.repeat(scale, axis=0).repeat(scale, axis=1)
            soft = _upscale_channels(alpha[..., None], upscale, share(1, 2))[..., 0]
            large = np.where(flat, large, soft)
        alpha = large
    return dataclasses.replace(picture, pixels=pixels, alpha=alpha)


def resize_picture(picture: images.Picture, size: tuple[int, int]) -> images.Picture:
    """Returns a picture shrunk or enlarged to (height, width), its alpha too."""
    pixels, alpha = picture.pixels, picture.alpha
    if pixels.shape[:2] == size:
        return picture
    pixels = bicubic(pixels, size)
    alpha = None if alpha is None else bicubic(alpha[..., None], size)[..., 0]
    return dataclasses.replace(picture, pixels=pixels, alpha=alpha)


def bicubic(pixels: np.ndarray, scale: float | tuple[int, int]) -> np.ndarray:
    """Returns MATLAB's imresize of (h, w, c) uint8 or uint16, in the same dtype.

    Args:
      scale: as of `resize.imresize`.
    """
    # One channel at a time, since in float64 all of them take much memory.
    if pixels.dtype == np.uint8:
        channels = [resize.imresize(c, scale) for c in np.moveaxis(pixels, 2, 0)]
    else:
        floats = (c.astype(np.float64) for c in np.moveaxis(pixels, 2, 0))
        channels = [
            np.floor(resize.imresize(c, scale).clip(0, 65535) + 0.5).astype(np.uint16)
            for c in floats
        ]
    return np.stack(channels, axis=2)


def bleed(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Gives each fully transparent pixel the colour of the nearest visible one.

    Nobody sees what is stored there, mostly black or white. An upscaled edge would mix
    it with its neighbours: the dark or bright fringes of cut-out pictures.

    Args:
      pixels: (h, w, 1 or 3).
      alpha: (h, w); 0 is fully transparent.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return pixels
    nearest = ndimage.distance_transform_edt(
        hidden, return_distances=False, return_indices=True
    )
    return pixels[tuple(nearest)]


def _upscale_channels(x, upscale, progress):
    """(h, w, 1 or 3) -> (s h, s w, 1 or 3)."""
    if x.shape[2] == 3:
        return upscale(np.ascontiguousarray(x), progress)
    y = upscale(np.repeat(x, 3, axis=2), progress)
    total = y.sum(axis=2, keepdims=True, dtype=np.uint32)
    return ((total + 1) // 3).astype(x.dtype)  # a third, rounded: no halves occur
