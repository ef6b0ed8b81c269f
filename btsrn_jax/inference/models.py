"""Models put to use by name: `load_model`, `btsrn upscale`, `btsrn evaluate`.

JAX is loaded when a network is opened, not before: bicubic, whatever is refused, and
other runtimes do without.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import numpy as np

from btsrn_jax import images, network, storage
from btsrn_jax.config import SCALES
from btsrn_jax.errors import InputError
from btsrn_jax.inference import graphs, photo, runtimes, weights
from btsrn_jax.progress import logger

BICUBIC = "bicubic"
FAMILY = "btsrn"  # the released models: btsrn-x2, btsrn-x3, btsrn-x4
# The quality of a JPEG from which on the photo model suits it no more: at 95 both have
# the same PSNR (docs/photos.md).
PHOTO_BELOW = 95
DTYPES = (np.uint8, np.uint16)


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A model ready for use: a function of images that says what it is."""

    name: str
    """What it was asked for by: a released name, a folder, a file, an address in the
    hub, or "bicubic"."""

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


def load_model(
    source: str, *, ensemble: bool = False, runtime: str = runtimes.AUTO
) -> Model:
    """Returns a model, a function of NumPy images.

    Args:
      source: a released name ("btsrn-x4"), an exported directory or its
        model.safetensors alone, a run, hf://OWNER/NAME[@REVISION], or "bicubic".
      ensemble: whether to average over eight flips and rotations.
      runtime: what computes: "jax", "onnxruntime", "openvino", or "auto" for JAX on an
        accelerator, and else for the first of OpenVINO, onnxruntime and JAX that is
        installed.

    Raises InputError (a ValueError) where there is no such model, or it is damaged, or
    the runtime that is named cannot compute it.
    """
    if source == weights.AUTO:
        raise InputError("auto chooses by the files of btsrn upscale: name a model")
    return open_model(storage.expand(source), None, ensemble, runtime=runtime)


def photo_model(scale: int) -> str | None:
    """Returns the name of the released photo model of a scale; None without one."""
    name = f"{FAMILY}-x{scale}{weights.PHOTO}"
    return name if name in weights.released_models() else None


def suited_photo_model(scale: int, quality: images.JpegQuality | None) -> str | None:
    """Returns the name of the photo model that suits a picture, or None.

    Args:
      scale: of the model.
      quality: of the JPEG that the picture is; None for any other picture.
    """
    suits = quality is not None and quality.value < PHOTO_BELOW
    return photo_model(scale) if suits else None


def find_model(
    source: str | None, scale: int | None, quality: images.JpegQuality | None = None
) -> str:
    """Returns the name or folder to load a model from. Loads neither it nor JAX.

    Args:
      source: a name, a directory or a run; by default the released model of the scale;
        "auto" for that model, or the photo model where it suits the picture.
      scale: 2, 3 or 4; None for that of the model, or 2 where none is named.
      quality: of the JPEG that the picture is, for "auto".

    Raises InputError where there is no such model, or it has another scale.
    """
    if scale is not None and scale not in SCALES:
        raise InputError(f"scale {scale}: one of 2, 3, 4")
    if source == BICUBIC:
        return source
    if source == weights.AUTO:
        source = suited_photo_model(scale or 2, quality)
    if source in (None, FAMILY):
        source = f"{FAMILY}-x{scale or 2}"
    _check_scale(source, {"scale": weights.read_scale(source)}, scale)
    return source


def open_model(
    source: str | None,
    scale: int | None,
    ensemble: bool,
    memory_gb: float = 0.0,
    runtime: str = runtimes.JAX,
    before: Callable[[], None] = lambda: None,
) -> Model:
    """Returns a model by name, directory or run, ready for use.

    JAX is not loaded for an exported model whose graph another runtime has run before.

    Args:
      source, scale: as of `find_model`.
      ensemble: whether to average over eight flips and rotations.
      memory_gb: for the activations on each device, in units of 1e9 bytes; 0 for half
        of what is free.
      runtime: as of `load_model`.
      before: called before JAX is loaded.

    Raises InputError where there is no such model, it has another scale, or the runtime
    that is named cannot compute it.
    """
    chosen = runtimes.choose_runtime(runtime)
    source = find_model(source, scale)
    if source == BICUBIC:
        return bicubic_model(scale or 2)
    folder, exported = weights.find_folder(source)
    if chosen != runtimes.JAX and exported:
        config = weights.read_config(folder)
        try:
            if graph := graphs.find_graph(folder, config, ensemble):
                found = weights.Weights(source, folder, config.get("step"), config, {})
                return _open_graph(found, graph, ensemble, memory_gb, chosen)
        except InputError:
            if runtime != runtimes.AUTO:
                raise
    before()
    loaded = weights.load_weights(source)
    _check_scale(source, loaded.config, scale)
    return open_weights(loaded, ensemble, memory_gb, runtime)


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
    loaded: weights.Weights,
    ensemble: bool,
    memory_gb: float = 0.0,
    runtime: str = runtimes.JAX,
) -> Model:
    """Returns the model of loaded weights; arguments as of `open_model`."""
    chosen = runtimes.choose_runtime(runtime)
    if chosen != runtimes.JAX:
        try:
            graph = graphs.make_graph(loaded)
            return _open_graph(loaded, graph, ensemble, memory_gb, chosen)
        except InputError as error:
            if runtime != runtimes.AUTO:
                raise
            logger.info(f"{runtimes.TITLES[chosen]} is not used: {error}")

    import jax

    from btsrn_jax import mesh
    from btsrn_jax.inference.tiling import tiled_upscaler

    config = _with_memory(loaded.config, memory_gb)
    devices = mesh.make_mesh()
    tiled = tiled_upscaler(config, devices, ensemble)
    on_cpu = mesh.platform(devices) == "cpu"
    where = "the CPU" if on_cpu else mesh.describe(devices)
    by = f"{where} by JAX {'.'.join(jax.__version__.split('.')[:2])}"
    function = functools.partial(tiled, loaded.variables)
    return _model(loaded, function, tiled.halo, by, ensemble)


def _open_graph(loaded, graph, ensemble, memory_gb, chosen):
    """The model of a graph. `loaded` says what it is; its variables do not count."""
    config = _with_memory(loaded.config, memory_gb)
    open_streams = functools.partial(runtimes.open_runtime, chosen, graph)
    upscaler = runtimes.GraphUpscaler(config, open_streams, ensemble)
    by = f"{upscaler.runtime.device} by {upscaler.runtime.title}"
    return _model(loaded, upscaler, upscaler.halo, by, ensemble)


def _with_memory(config, memory_gb):
    """The config of a model with another limit of memory, unless that is 0."""
    if not 0 <= memory_gb < float("inf"):
        raise InputError(f"--memory-gb {memory_gb}: a number above 0 was expected")
    limit = {"memory_gb": memory_gb} if memory_gb else {}
    return dict(config) | {"eval": dict(config.get("eval", {})) | limit}


def _model(loaded, upscale, halo, by, ensemble):
    released = loaded.name in weights.released_models()
    step = "" if released or loaded.step is None else f", step {loaded.step}"
    scale = loaded.config["scale"]
    return Model(
        loaded.name,
        scale,
        halo,
        upscale,
        f"{loaded.name}{step}: enlarging by {scale} on {by}"
        + ", each tile in eight views, averaged" * ensemble,
        loaded.config,
    )
