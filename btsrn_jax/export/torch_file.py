"""The PyTorch form of a model: a state dict as safetensors, and the network beside it.

PyTorch itself is only asked for to run the file that was written, where it is
installed.
"""

import importlib.util
import pathlib
import re
import shutil
import types
from collections.abc import Mapping
from typing import Any

import numpy as np

from btsrn_jax import inference, network, trees
from btsrn_jax.errors import InputError
from btsrn_jax.export.plan import BESIDE

NETWORK = pathlib.Path(__file__).with_name(BESIDE["torch"][0])
SLOPE = 0.2  # of leaky ReLU, as `network.btsrn` has it
# The parts of a BTSRN that btsrn_torch.py has.
FORMS = {
    "block": ("pconv", "pixelcnn", "gated", "gated_pp"),
    "norm": ("none", "batch", "weight"),
    "activation": ("relu", "leaky_relu"),
}
_PLACES = {"in": "first", "out": "last", "pre_out_norm": "pre_last.norm"}
_STATISTICS = {"scale": "weight", "mean": "running_mean", "var": "running_var"}


def missing_torch_form(model: Any) -> str:
    """Returns "no PyTorch form of block X" if btsrn_torch.py lacks a part of a network;
    "" if it has all."""
    if isinstance(model, network.VDSR):
        return "no PyTorch form of vdsr: its scale cannot be read off its weights"
    return network.missing_form(model, "PyTorch", FORMS)


def state_dict(model: Any, variables: Mapping) -> dict[str, np.ndarray]:
    """Returns the arrays of a BTSRN by the names of `btsrn_torch.BTSRN`.

    Kernels are (out, in, height, width), those of transposed convolutions (in, out,
    height, width). Weight normalisation is worked into them.

    Args:
      model: as `network.build` returns it.
      variables: `params`, and `batch_stats` with batch normalisation.

    Raises:
      InputError: a part of the network has no PyTorch form.
    """
    missing = missing_torch_form(model)
    if missing:
        raise InputError(missing)
    arrays = {name: np.asarray(x) for name, x in trees.flatten(variables).items()}
    state = {}
    for path, array in arrays.items():
        *layers, kind = path.split("/")[1:]
        if kind == "kernel":
            length = arrays.get(path.removesuffix("kernel") + "length")
            array = network.folded_kernel(array, length)
            order = (2, 3, 0, 1) if re.fullmatch(r"up\d", layers[0]) else (3, 2, 0, 1)
            array, kind = array.transpose(order), "weight"
        if kind != "length":
            place = [_name(layer, model.block) for layer in layers]
            state[".".join([*place, _STATISTICS.get(kind, kind)])] = array
    if model.activation == "leaky_relu":
        state["slope"] = np.float32(SLOPE)
    return state


def _name(layer, block):
    """Returns what `btsrn_torch.BTSRN` calls one part of a parameter's path."""
    if layer == "conv" and block.startswith("gated"):
        return block
    layer = _PLACES.get(layer, layer)
    # low0 -> low.0, pre_up0_norm -> pre_up.0.norm, pre_down_norm -> pre_down.norm
    layer = re.sub(r"^(low|mid|high|up|pre_up)(\d+)", r"\1.\2", layer)
    return layer.removesuffix("_norm") + ".norm" * layer.endswith("_norm")


def write_torch(source: Any, path: pathlib.Path) -> None:
    """Writes the weights to `path`, and a copy of btsrn_torch.py beside it.

    Args:
      source: a `formats.Source`.
      path: the file of the weights.
    """
    state = state_dict(source.model, source.variables)
    metadata = {"architecture": "BTSRN", "format": "pt"}
    metadata["scale"] = str(source.model.scale)
    path.write_bytes(inference.to_safetensors(state, metadata))
    shutil.copyfile(NETWORK, path.with_name(NETWORK.name))


def read_torch(source: Any, path: pathlib.Path) -> tuple[Any, str]:
    """Returns a function that runs the two files, (B, h, w, 3) in and out, and the name
    of what runs them; None for the function, and the reason, where PyTorch is not
    installed, or not for this machine."""
    if importlib.util.find_spec("torch") is None:
        return None, "not run: torch is not installed"
    try:
        module = torch_network(path.with_name(NETWORK.name))
    except (ImportError, OSError):  # the message holds paths of this machine
        return None, "not run: torch is installed, and cannot be imported"
    torch = module.torch
    model = module.BTSRN.from_file(path)

    def run(lr):
        with torch.inference_mode():
            sr = model(torch.from_numpy(lr.transpose(0, 3, 1, 2).copy()))
        return sr.permute(0, 2, 3, 1).numpy()

    return run, f"PyTorch {torch.__version__}"


def torch_network(path: pathlib.Path = NETWORK) -> types.ModuleType:
    """Returns the module of a btsrn_torch.py, by default the package's own. It imports
    PyTorch."""
    spec = importlib.util.spec_from_file_location("btsrn_torch", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
