"""A model from where it lies: a run, an exported directory or its model.safetensors
alone, a released name, the Hugging Face hub.

JAX is loaded when weights are, not before: `btsrn models` and whatever is refused do
without.
"""

import dataclasses
import difflib
import hashlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays

from btsrn_jax import config as schema
from btsrn_jax import network, storage, trees
from btsrn_jax.errors import InputError
from btsrn_jax.inference import hub, tensor_file

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CHECKPOINTS = "checkpoints"  # `checkpoint.FOLDER`, of a module that loads JAX
AUTO = "auto"  # a released model or a photo model, by the quality of each JPEG
PHOTO = "-photo"  # how the names of photo models end: btsrn-x2-photo
RELEASED = pathlib.Path(__file__).parents[1] / "pretrained"
# What config.json must hold, what it may hold, and what one of its figures holds.
NEEDED = {"scale": int, "model": dict}
KNOWN = {
    **dict.fromkeys(
        ("name", "version", "track", "data", "data_licence", "hardware"), str
    ),
    **dict.fromkeys(("training_command", "export_command", "date"), str),
    **dict.fromkeys(("step", "batch_size", "patch"), int | None),
    **dict.fromkeys(("validation", "parity", "bytes", "sha256", "eval"), dict),
    "validation_lr": str,
    "averaged": bool,
    "figures": list,
}
FIGURE = {
    **dict.fromkeys(("set", "model", "protocol"), str),
    **dict.fromkeys(("scale", "ensemble", "images"), int),
    **dict.fromkeys(("psnr", "ssim"), int | float | None),  # None: see evaluation.Row
}
OF_LR = ("lr", "degradation")  # what a figure may hold besides: texts


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """A model's parameters, and what is known of them."""

    name: str
    """As the user gave it."""

    folder: Any
    """Where it lies: a path, on this machine or in a bucket; of a model.safetensors
    alone the file."""

    step: int | None
    """The number of updates made; None where it is not known."""

    config: dict
    """At least `scale` and `model`: a run's config, or an export's config.json."""

    variables: dict
    """`params`, and `batch_stats` where there are any: nested dicts of float32."""


def load_weights(source: str) -> Weights:
    """Loads a released model by name, an exported directory, its model.safetensors
    alone, a run directory (its best checkpoint; the averaged weights where it keeps
    them), or hf://OWNER/NAME[@REVISION].

    Raises ConnectionError where the hub cannot be reached, and InputError where there
    is no model, or it is damaged: the message names the file, and the hash or the array
    that is wrong, with what was found and what was expected. Raises OSError or Failure
    where it cannot be read, though it may be whole, or JAX finds no device. Nothing
    that is read can run code: JSON, safetensors, and Orbax arrays.
    """
    folder, exported = find_folder(source)
    from btsrn_jax import mesh

    mesh.find_devices()  # Orbax asks for them, too, and would name another reason
    return (_load_exported if exported else _load_run)(source, folder)


def find_folder(source: str) -> tuple[Any, bool]:
    """Returns the folder of a model, and whether it is an exported one, not a run.

    Of a safetensors file that says itself what it holds, the file is returned in place
    of a folder. A model of the hub is downloaded.

    Raises InputError where there is no model, OSError where that cannot be told. Loads
    no JAX.
    """
    if hub.in_hub(source):
        return _whole(_downloaded(source)), True
    path, source = storage.path(source), os.fspath(source)
    if path.suffix == ".safetensors" and path.is_file():
        return _whole(path), True
    if storage.is_there(path / WEIGHTS):
        return path, True
    if storage.is_there(path / CHECKPOINTS):
        return path, False
    if source in released_models():
        return RELEASED / source, True
    if source == "bicubic":
        raise InputError("bicubic has no weights: name a model")
    if source == AUTO:
        raise InputError("auto is no model: btsrn upscale chooses one for each picture")
    if storage.is_there(path / CONFIG):
        raise InputError(f"{path / WEIGHTS} is missing, and there is no run in {path}")
    released = released_models()
    if not path.exists() and (os.sep in source or source.startswith((".", "~"))):
        raise InputError(f"no model: {storage.missing(path)}")
    near = difflib.get_close_matches(source, [*released, "bicubic"], n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise InputError(
        f"no model {source!r}: a run directory (with {CHECKPOINTS}/), an exported"
        f" one (with {WEIGHTS}), bicubic, or one of: {', '.join(released) or 'none'}"
        + hint
    )


def _downloaded(source):
    file = hub.fetch(source, [CONFIG, WEIGHTS]) / WEIGHTS
    if not file.is_file():
        raise InputError(f"{source} has no {WEIGHTS}: an exported model was expected")
    return file


def _whole(file):
    """Returns the folder of an exported model's weights; the file itself where no
    config.json of that export lies beside it."""
    beside = file.parent / CONFIG
    if file.name != WEIGHTS or not beside.is_file():
        return file
    if "config.model" not in tensor_file.read_metadata(file):
        return file.parent  # of an older version
    try:
        of_export = WEIGHTS in storage.from_json(beside.read_text())["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        of_export = False  # of another program
    return file.parent if of_export else file


def read_scale(source: str) -> int:
    """Returns the scale of a model, as of `load_weights`. Loads JAX only where a run
    has no config.json that tells it."""
    folder, exported = find_folder(source)
    if exported:
        return read_config(folder)["scale"]
    try:
        scale = storage.from_json((folder / CONFIG).read_text())["scale"]
    except (OSError, ValueError, KeyError, TypeError):
        scale = None
    return scale if scale in schema.SCALES else load_weights(source).config["scale"]


def released_models() -> list[str]:
    """Returns the names of the models that come with the package."""
    return sorted(path.parent.name for path in RELEASED.glob(f"*/{WEIGHTS}"))


def is_photo_model(name: str) -> bool:
    """Returns True for the name of a model that was trained for photographs with JPEG
    blocks and noise. It is taken by its name or by "auto" only."""
    return name.endswith(PHOTO)


def read_config(folder: pathlib.Path) -> dict:
    """Reads the config.json of an exported model, or what its model.safetensors says if
    `folder` is that file. Loads no JAX.

    Returns at least `scale` and `model`, both valid. Fields of the network that the
    file does not hold are the paper's. Raises InputError that names what is missing, of
    a wrong type, or not allowed; OSError where the file cannot be read.
    """
    if folder.is_file():
        return _check(tensor_file.read_network(folder), folder)
    path = folder / CONFIG
    try:
        config = storage.from_json(path.read_text())
    except FileNotFoundError:
        raise InputError(f"cannot read {path}: it is missing") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {error}") from None
    return _check(config, path)


def _check(config, path):
    """Returns what was read from `path`, all of the network's fields among it."""
    for name, kind in NEEDED.items():
        if not isinstance(config, dict) or type(config.get(name)) is not kind:
            raise InputError(f"{path} is damaged: it has no {name}")
    for name, value in config.items():
        if not isinstance(value, KNOWN.get(name, object)):
            raise InputError(f"{path} is damaged: {name} is {str(value)[:40]!r}")
    for i, figure in enumerate(config.get("figures", [])):
        for name, kind in FIGURE.items():
            has = isinstance(figure, dict) and name in figure
            if not has or not isinstance(figure[name], kind):
                raise InputError(f"{path} is damaged: figures[{i}] has no {name}")
        for name in OF_LR:
            if not isinstance(figure.get(name, ""), str):
                raise InputError(f"{path} is damaged: figures[{i}] has another {name}")
    # The rules are those of a training config with this network in it.
    whole = schema.defaults().to_dict()
    whole["scale"], whole["model"] = config["scale"], whole["model"] | config["model"]
    whole["eval"] |= config.get("eval", {})
    whole["train"]["patch"] = 4092  # of any scale, and enough for any network
    try:
        schema.validate(whole)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return config | {"model": whole["model"]}


def _load_exported(source, path):
    config = read_config(path)
    file = path if path.is_file() else path / WEIGHTS
    variables = _parse(read_weights(path, config), file)
    _check_fit(config, variables, file)
    return Weights(source, path, config.get("step"), config, variables)


def read_weights(path: pathlib.Path, config: Mapping) -> bytes:
    """Reads the model.safetensors of an exported model. Loads no JAX.

    Args:
      path: the model's folder, or that file alone.
      config: as of `read_config`.

    Raises InputError where the file is not the one that the config was written with,
    OSError where it cannot be read.
    """
    file = path if path.is_file() else path / WEIGHTS
    data = file.read_bytes()
    expected = config.get("sha256", {}).get(WEIGHTS)
    found = hashlib.sha256(data).hexdigest()
    if expected not in (None, found):
        raise InputError(
            f"{file} is damaged or was changed: its SHA-256 is {found}, {expected} was"
            f" expected ({CONFIG})"
        )
    return data


def read_arrays(file: pathlib.Path) -> dict:
    """Reads the variables of a safetensors file, float32; raises InputError where it is
    damaged."""
    return _parse(file.read_bytes(), file)


def _parse(data, file):
    try:
        arrays = load_arrays(data)
        variables = trees.nest(arrays)
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{file} is damaged: {error}") from None
    for name, array in arrays.items():
        if array.dtype != np.float32:
            raise InputError(f"{file}: {name} is {array.dtype}, float32 was expected")
    return variables


def _load_run(source, path):
    from btsrn_jax import checkpoint

    step, config, variables = checkpoint.load_parameters(path)
    _check_fit(config, variables, path / CHECKPOINTS / str(step))
    return Weights(source, path, step, config, variables)


def _check_fit(config, variables, where):
    """Raises InputError that names an array that is missing, left over or misshapen."""
    import jax

    built = network.build(config["model"], config["scale"])
    expected = jax.eval_shape(lambda: network.init(built, jax.random.key(0)))
    try:
        trees.fill(expected, trees.flatten(variables))
    except ValueError as error:
        raise InputError(f"{where} does not fit its config: {error}") from None


def weights_to_bytes(variables: Mapping, about: Mapping | None = None) -> bytes:
    """Returns the safetensors file of a model's variables.

    Arrays are float32 under the network's own names ("params/low0/conv/kernel"),
    kernels are (height, width, in, out). No dates, no paths: equal parameters of equal
    networks give equal bytes.

    Args:
      variables: nested dicts of arrays.
      about: what holds `scale` and `model`; with it the file can be loaded alone.
    """
    arrays = dict(sorted(trees.flatten(variables).items()))
    metadata = tensor_file.network_metadata(about) if about else {}
    return tensor_file.to_safetensors(arrays, metadata)
