"""The ONNX graph of a model's tiles, for runtimes other than JAX.

Making it needs the package onnx and loads JAX. It is kept in the cache folder, so that
this happens once for each model.
"""

import contextlib
import hashlib
import importlib.util
import pathlib

from btsrn_jax import __version__, machine, network, storage
from btsrn_jax.errors import InputError
from btsrn_jax.inference import weights

TILE = "model-tile.onnx"  # of an exported model
FOLDER = "graphs"  # in the cache folder
DIGEST = 32  # bytes of the SHA-256 before the graph


def find_graph(folder: pathlib.Path, config: dict, ensemble: bool) -> bytes | None:
    """Returns the graph of an exported model without loading JAX; None where it was
    not made before.

    Args:
      folder: as of `weights.find_folder`, with its `config`.
      ensemble: whether views are to be averaged. The file of an export is clipped: a
        mean has to be taken before.

    Raises InputError where the model's weights are damaged, OSError where they cannot
    be read.
    """
    data = weights.read_weights(folder, config)
    own = None if ensemble else _exported(folder, config)
    return own or _cached(_key(data, config))


def make_graph(loaded: weights.Weights) -> bytes:
    """Returns the graph of a model from the cache folder, or makes it.

    Raises InputError where a part of the network has no ONNX form, or the package onnx
    is missing.
    """
    config = loaded.config
    key = _key(weights.weights_to_bytes(loaded.variables, config), config)
    if graph := _cached(key):
        return graph
    model = network.build(config["model"], config["scale"])
    if missing := network.missing_onnx_form(model):
        raise InputError(f"{loaded.name}: {missing}; --runtime jax does without")
    if importlib.util.find_spec("onnx") is None:
        raise InputError(
            f"{loaded.name}: its ONNX graph is made by the package onnx:"
            " pip install 'btsrn-jax[cpu]'"
        )
    made = network.build_onnx(model, loaded.variables, {}, tile=True, clip=False)
    graph = made.SerializeToString(deterministic=True)
    if file := _file(key):
        # A cache that cannot be written to is only slower.
        with contextlib.suppress(OSError), storage.replacing(file) as out:
            out.write(hashlib.sha256(graph).digest() + graph)
    return graph


def _exported(folder, config):
    """The graph that an export wrote, with float32 weights; None without one."""
    parity = config.get("parity", {}).get(TILE, {})
    if not parity or "weights" in parity or folder.is_file():
        return None
    try:
        graph = (folder / TILE).read_bytes()
    except OSError:
        return None
    expected = config.get("sha256", {}).get(TILE)
    return graph if hashlib.sha256(graph).hexdigest() == expected else None


def _key(data, config):
    """The name of a graph in the cache: of the weights, the network and this code."""
    code = (pathlib.Path(__file__).parents[1] / "network").glob("*.py")
    about = [__version__, config["scale"], config["model"]]
    digest = hashlib.sha256(storage.to_json(about).encode() + data)
    for file in sorted(code):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _file(key):
    cache = machine.cache_dir()
    return cache and cache / FOLDER / f"{key}.onnx"


def _cached(key):
    file = _file(key)
    try:
        data = file.read_bytes() if file else b""
    except OSError:
        return None
    graph = data[DIGEST:]
    whole = hashlib.sha256(graph).digest() == data[:DIGEST]
    return graph if whole else None
