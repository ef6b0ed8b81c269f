"""A model from where it lies: a run, an exported directory, a released name."""

import json
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from btsrn_jax import checkpoint, model
from btsrn_jax.errors import InputError

WEIGHTS = "model.safetensors"
RELEASED = pathlib.Path(__file__).parent / "weights"


class Weights(NamedTuple):
    """name: as the user gave it. step: updates made, None where not known. config: at
    least `scale` and `model`. variables: params, and batch_stats if there are any."""

    name: str
    step: int | None
    config: dict
    variables: dict


def load(source: str) -> Weights:
    """Loads a released model by name, an exported directory, or a run directory (its
    best checkpoint; the averaged weights where it keeps them).

    Raises InputError where there is none, or it is damaged. Nothing that is read can
    run code.
    """
    path = pathlib.Path(source)
    if not path.exists() and (RELEASED / source / WEIGHTS).is_file():
        path = RELEASED / source
    if (path / WEIGHTS).is_file():
        return _load_exported(source, path)
    if (path / checkpoint.FOLDER).is_dir():
        step, config, variables = checkpoint.load_parameters(path)
        return Weights(source, step, config, variables)
    raise InputError(
        f"no model {source!r}: a run directory (with {checkpoint.FOLDER}/), an exported"
        f" one (with {WEIGHTS}), bicubic, or one of: {', '.join(released()) or 'none'}"
    )


def released() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.parent.name for path in RELEASED.glob(f"*/{WEIGHTS}"))


def _load_exported(source, path):
    try:
        config = json.loads((path / "config.json").read_text())
        arrays = load_file(path / WEIGHTS)
        network = model.build(config["model"], config["scale"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(f"cannot read the model {path}: {error}") from None
    variables = unflatten(arrays)
    try:
        check(network, variables)
    except ValueError as error:
        raise InputError(f"{path / WEIGHTS} does not fit its config: {error}") from None
    return Weights(source, config.get("step"), config, variables)


def check(network: model.BTSRN, variables: Mapping) -> None:
    """ValueError names the first array that is missing, left over or misshapen."""
    import jax

    expected = jax.eval_shape(lambda: model.init(network, jax.random.key(0)))
    checkpoint.fill(expected, checkpoint.flatten(variables))


def unflatten(arrays: Mapping[str, np.ndarray]) -> dict:
    """{"params/in/kernel": array} -> nested dicts."""
    return checkpoint.nest(arrays)


def to_bytes(variables: Mapping) -> bytes:
    """The safetensors file of a model's variables: float32, names as in the network
    ("params/low0/conv/kernel"), kernels (height, width, in, out). No dates, no paths:
    equal parameters give equal bytes."""
    arrays = checkpoint.flatten(variables)
    return save(
        {
            name: np.ascontiguousarray(array, np.float32)
            for name, array in sorted(arrays.items())
        }
    )
