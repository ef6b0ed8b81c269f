"""safetensors files that say which network they hold. Loads no JAX."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors.numpy import save

from btsrn_jax import storage
from btsrn_jax.errors import InputError

VERSION = "1"  # of the metadata
LONGEST = 100_000_000  # bytes of a header, as in the safetensors library


def to_safetensors(
    arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> bytes:
    """Returns a safetensors file of float32 arrays. Equal arguments give equal bytes,
    which the library's own writer does not promise once there is metadata."""
    data = save({k: np.ascontiguousarray(x, np.float32) for k, x in arrays.items()})
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    if metadata:
        header = {"__metadata__": dict(sorted(metadata.items()))} | header
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the arrays begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + data[end:]


def network_metadata(about: Mapping) -> dict[str, str]:
    """Returns the metadata that say which network a file holds.

    Args:
      about: what holds its `scale` and `model`, as a config.json does.
    """
    # `dtype` is a setting of training.
    model = {name: about["model"][name] for name in about["model"] if name != "dtype"}
    return {
        "architecture": "VDSR" if model.get("name") == "vdsr" else "BTSRN",
        "config.model": storage.to_json(dict(sorted(model.items()))),
        "format_version": VERSION,
        "scale": str(about["scale"]),
    }


def read_metadata(file: Any) -> dict[str, str]:
    """Reads the metadata of a safetensors file; {} where it has none, or is damaged."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        try:
            header = json.loads(stream.read(min(length, LONGEST)))
            metadata = header.get("__metadata__", {})
        except (ValueError, AttributeError, RecursionError):
            return {}
    return metadata if isinstance(metadata, dict) else {}


def read_network(file: Any) -> dict:
    """Reads the `scale` and `model` of a file that has `network_metadata`.

    Raises InputError where it does not say them. Whether they are valid is not checked.
    """
    metadata = read_metadata(file)
    if metadata.get("format") == "pt":
        raise InputError(
            f"{file} is for PyTorch (btsrn_torch.py); the export's model.safetensors"
            " was expected"
        )
    if "config.model" not in metadata:
        raise InputError(
            f"{file} does not say which network it holds: the export's config.json has"
            " to lie beside it, or the model be exported again"
        )
    if metadata.get("format_version") != VERSION:
        raise InputError(
            f"{file} has the format version {metadata.get('format_version')},"
            f" {VERSION} was expected: a newer BTSRN-JAX wrote it"
        )
    try:
        return {
            "scale": int(metadata.get("scale", "")),
            "model": storage.from_json(metadata["config.model"]),
        }
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{file} is damaged: {error}") from None
