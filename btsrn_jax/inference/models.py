"""Models put to use by name: `load_model`, `btsrn upscale`, `btsrn evaluate`.

JAX is loaded when a network is opened, not before: bicubic, and whatever is refused,
do without.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from btsrn_jax import network, storage
from btsrn_jax.config import SCALES
from btsrn_jax.errors import InputError
from btsrn_jax.inference import photo, weights

BICUBIC = "bicubic"
FAMILY = "btsrn"  # the released models: btsrn-x2, btsrn-x3, btsrn-x4
DTYPES = (np.uint8, np.uint16)


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A model ready for use: a function of images that says what it is."""

    name: str
    """What it was asked for by: a released name, a folder, or "bicubic"."""

    scale: int
    """How many times larger the output is, along each side: 2, 3 or 4."""

    halo: int
    """How many LR pixels away, along each side, an input pixel can still change an
    output pixel. Who cuts images into tiles has to leave so many around each tile."""

    upscale: Callable[..., np.ndarray]
    """upscale(lr, progress=None): as calling the model, but `lr` is not checked, and
    progress(done, total) is called with LR pixels."""

    about: str
    """A line for people: the weights, and the devices that they are on."""

    config: Mapping = dataclasses.field(default_factory=dict)
    """What the model's config.json says; empty for bicubic."""

    @property
    def figures(self) -> list[dict]:
        """Mean PSNR and SSIM on sets of images, as config.json holds them: dicts of
        set, scale, model, ensemble, protocol, psnr, ssim and images. Empty where there
        are none."""
        return list(self.config.get("figures", []))

    def __call__(self, lr: np.ndarray) -> np.ndarray:
        """Upscales an image of any size.

        Args:
          lr: (h, w, 3) uint8 or uint16, RGB.

        Returns:
          (s h, s w, 3) of the dtype of `lr`, where s is `scale`.

        Raises InputError (a ValueError) for any other array.
        """
        lr = np.asarray(lr)
        right = lr.ndim == 3 and lr.shape[2] == 3 and lr.size
        if not right or lr.dtype not in DTYPES:
            raise InputError(
                f"an image of shape {lr.shape} and {lr.dtype}: (h, w, 3) uint8 or"
                " uint16 was expected"
            )
        return self.upscale(lr)


def load_model(source: str, *, ensemble: bool = False) -> Model:
    """Returns a model, a function of NumPy images.

    Args:
      source: a released name ("btsrn-x4"), an exported directory, a run, or "bicubic".
      ensemble: whether to average over eight flips and rotations.

    Raises InputError (a ValueError) where there is no such model, or it is damaged.
    """
    return open_model(storage.expand(source), None, ensemble)


def find_model(source: str | None, scale: int | None) -> str:
    """Returns the name or folder to load a model from. Loads neither it nor JAX.

    Args:
      source: a name, a directory or a run; by default the released model of the scale.
      scale: 2, 3 or 4; None for that of the model, or 2 where none is named.

    Raises InputError where there is no such model, or it has another scale.
    """
    if scale is not None and scale not in SCALES:
        raise InputError(f"scale {scale}: one of 2, 3, 4")
    if source == BICUBIC:
        return source
    if source in (None, FAMILY):
        source = f"{FAMILY}-x{scale or 2}"
    _check_scale(source, {"scale": weights.read_scale(source)}, scale)
    return source


def open_model(
    source: str | None, scale: int | None, ensemble: bool, memory_gb: float = 0.0
) -> Model:
    """Returns a model by name, directory or run, ready for use.

    Args:
      source, scale: as of `find_model`.
      ensemble: whether to average over eight flips and rotations.
      memory_gb: for the activations on each device, in units of 1e9 bytes; 0 for half
        of what is free.

    Raises InputError where there is no such model, or it has another scale.
    """
    source = find_model(source, scale)
    if source == BICUBIC:
        return bicubic_model(scale or 2)
    loaded = weights.load_weights(source)
    _check_scale(source, loaded.config, scale)
    return open_weights(loaded, ensemble, memory_gb)


def _check_scale(name, config, scale):
    if scale not in (None, config["scale"]):
        raise InputError(f"{name} upscales by {config['scale']}, not by {scale}")


def bicubic_model(scale: int) -> Model:
    """Returns bicubic interpolation as a model: what every table starts with."""
    return Model(
        BICUBIC,
        scale,
        network.SKIP_MARGIN,
        functools.partial(_bicubic, scale),
        f"{BICUBIC}: enlarging by {scale}",
    )


def _bicubic(scale, lr, progress=None):
    return photo.bicubic(lr, scale)


def open_weights(
    loaded: weights.Weights, ensemble: bool, memory_gb: float = 0.0
) -> Model:
    """Returns the model of loaded weights; arguments as of `open_model`."""
    from btsrn_jax import mesh
    from btsrn_jax.inference.tiling import tiled_upscaler

    if not 0 <= memory_gb < float("inf"):
        raise InputError(f"--memory-gb {memory_gb}: a number above 0 was expected")
    config: Any = loaded.config
    settings = dict(config.get("eval", {}))
    if memory_gb:
        settings["memory_gb"] = memory_gb
    devices = mesh.make_mesh()
    tiled = tiled_upscaler(dict(config) | {"eval": settings}, devices, ensemble)
    on_cpu = mesh.platform(devices) == "cpu"
    released = loaded.name in weights.released_models()
    step = "" if released or loaded.step is None else f", step {loaded.step}"
    return Model(
        loaded.name,
        config["scale"],
        tiled.model.halo,
        functools.partial(tiled, loaded.variables),
        f"{loaded.name}{step}: enlarging by {config['scale']} on"
        f" {'the CPU' if on_cpu else mesh.describe(devices)}"
        + ", each tile in eight views, averaged"
        * ensemble,
        config,
    )
