"""Models put to use by name: `load_model`, `btsrn upscale`, `btsrn evaluate`."""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from btsrn_jax import mesh
from btsrn_jax.config import SCALES
from btsrn_jax.errors import InputError
from btsrn_jax.inference import weights
from btsrn_jax.inference.tiling import make_bicubic, tiled_upscaler

BICUBIC = "bicubic"
FAMILY = "btsrn"  # the released models: btsrn-x2, btsrn-x3, btsrn-x4


class Model(NamedTuple):
    """enlarge(lr, progress=None): (h, w, 3) uint8 or uint16 -> (s h, s w, 3), the same
    dtype. about: a line on weights and device. config: what the
    model says of itself."""

    scale: int
    enlarge: Callable
    about: str
    config: Mapping = {}


def open_model(
    source: str | None, scale: int | None, ensemble: bool, memory_gb: float = 0.0
) -> Model:
    """A model by name, directory or run; by default the released one of that scale.

    Raises InputError where there is none, or it has another scale.
    """
    if scale is not None and scale not in SCALES:
        raise InputError(f"scale {scale}: one of 2, 3, 4")
    if source == BICUBIC:
        return bicubic_model(scale or 2)
    source = source or FAMILY
    loaded = weights.load_weights(
        f"{source}-x{scale or 2}" if source == FAMILY else source
    )
    if scale is not None and loaded.config["scale"] != scale:
        raise InputError(
            f"{loaded.name} enlarges by {loaded.config['scale']}, not by {scale}"
        )
    return open_weights(loaded, ensemble, memory_gb)


def bicubic_model(scale):
    return Model(scale, make_bicubic(scale), f"bicubic x{scale}")


def open_weights(loaded, ensemble, memory_gb=0.0):
    config, devices = loaded.config, mesh.make_mesh()
    if not 0 <= memory_gb < float("inf"):
        raise InputError(f"--memory-gb {memory_gb}: a number above 0 was expected")
    if memory_gb:
        settings = dict(config.get("eval", {})) | {"memory_gb": memory_gb}
        config = dict(config) | {"eval": settings}
    enlarge = tiled_upscaler(config, devices, ensemble)
    about = (
        f"{loaded.name} x{config['scale']}, {loaded.step or '?'} steps,"
        f" {'ensemble of 8, ' if ensemble else ''}on {mesh.describe(devices)}"
    )
    function = functools.partial(enlarge, loaded.variables)
    return Model(config["scale"], function, about, config)


def load_model(source: str, *, ensemble: bool = False) -> Callable:
    """A model as a function of NumPy images.

    Args:
      source: a released name ("btsrn-x4"), an exported directory, a run, or "bicubic".
      ensemble: average over eight flips and rotations.

    Returns:
      model(lr): (h, w, 3) uint8 -> (s h, s w, 3) uint8, or both uint16; of any size.
      `model.scale` is s. It raises InputError (a ValueError) for other arrays.
    """
    model = open_model(source, None, ensemble)

    def enlarge(lr):
        lr = np.asarray(lr)
        right = lr.ndim == 3 and lr.shape[2] == 3 and lr.size
        if not right or lr.dtype not in (np.uint8, np.uint16):
            raise InputError(
                f"an image of shape {lr.shape} and {lr.dtype}: (h, w, 3) uint8 or"
                " uint16 was expected"
            )
        return model.enlarge(lr)

    enlarge.scale = model.scale
    return enlarge
