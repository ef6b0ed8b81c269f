"""The formats of an exported model: what writes each one, and what runs it again.

Each writer takes a Source and a path. Each reader takes the same, and returns a
function, lr (B, h, w, 3) float32 in [0, 1] -> sr (B, s h, s w, 3), and the name of what
runs it; or None, and the reason, where nothing here can run it. Where a file leaves the
padding to its user, its reader does the padding.
"""

import errno
import functools
import importlib.util
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from btsrn_jax import inference, network, storage
from btsrn_jax.export import ncnn, torch_file
from btsrn_jax.export.plan import BESIDE as BESIDE_FILES
from btsrn_jax.export.plan import FILES

PLATFORMS = ("cpu", "cuda", "tpu")  # of the one StableHLO file


class Source(NamedTuple):
    """What is exported: a network that computes by plain operations at the highest
    precision, its variables, and the content of config.json.

    With `half`, the formats of HALF store the weights as float16.
    """

    model: Any
    variables: Mapping
    about: dict
    half: bool = False


@functools.cache
def reference(model: Any) -> Callable[[Mapping, np.ndarray], np.ndarray]:
    """Returns upscale(variables, lr) -> sr: the network on images padded by NumPy."""
    halo, s = model.halo, model.scale
    apply = jax.jit(lambda v, x: network.super_resolve(model, v, x)[0])

    def upscale(variables, lr):
        sr = np.asarray(apply(variables, _pad(lr, halo)))
        h, w = s * lr.shape[1], s * lr.shape[2]
        top, left = (sr.shape[1] - h) // 2, (sr.shape[2] - w) // 2
        return sr[:, top : top + h, left : left + w].clip(0, 1)

    return upscale


def _pad(lr, halo):
    border = ((0, 0), (halo, halo), (halo, halo), (0, 0))
    return np.pad(lr, border, mode="symmetric")


def _write_safetensors(source, path):
    path.write_bytes(inference.weights_to_bytes(source.variables, source.about))


def _read_safetensors(source, path):
    variables = inference.read_arrays(path)
    return functools.partial(reference(source.model), variables), "JAX"


def _write_stablehlo(source, path):
    from jax import export as jax_export

    halo = source.model.halo
    border = source.model.output_size(2 * halo) // 2

    def super_resolve(lr):
        padded = network.pad_symmetric(lr, halo)
        sr, _ = network.super_resolve(source.model, source.variables, padded)
        return jnp.clip(network.crop(sr, border), 0, 1)

    sizes = jax_export.symbolic_shape("batch, height, width")
    lr = jax.ShapeDtypeStruct((*sizes, 3), jnp.float32)
    with _no_source_locations():
        made = jax_export.export(jax.jit(super_resolve), platforms=PLATFORMS)(lr)
    path.write_bytes(made.serialize())


class _no_source_locations:
    """Keeps the paths of this machine's source files out of what JAX exports."""

    option = "jax_hlo_source_file_canonicalization_regex"

    def __enter__(self):
        self.before = getattr(jax.config, self.option)
        jax.config.update(self.option, ".*/")

    def __exit__(self, *_):
        jax.config.update(self.option, self.before)


def _read_stablehlo(source, path):
    from jax import export as jax_export

    call = jax.jit(jax_export.deserialize(path.read_bytes()).call)
    return call, f"JAX {jax.__version__} on {jax.default_backend()}"


def write_onnx(source: Source, path: pathlib.Path, tile: bool = False) -> None:
    """Writes an ONNX file; with `tile` the one that does not pad."""
    model, variables, about, half = source
    metadata = {
        "name": about["name"],
        "scale": str(model.scale),
        "overlap": str(model.halo),
        "padding": "none" if tile else "symmetric",
    }
    proto = network.build_onnx(model, variables, metadata, tile=tile, half=half)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def _read_onnx(source, path):
    return run_onnx(path)


def _read_onnx_tile(source, path):
    run, by = run_onnx(path)
    return lambda lr: run(_pad(lr, source.model.halo)), by


def run_onnx(path: pathlib.Path) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """Returns a function that runs an ONNX file, (B, h, w, 3) float32 in and out, and
    the name of what runs it: onnxruntime, or else ONNX's own slow evaluator."""
    if importlib.util.find_spec("onnxruntime"):
        import onnxruntime

        by = f"onnxruntime {onnxruntime.__version__}"
        providers = ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(path.read_bytes(), providers=providers)
    else:
        import onnx
        from onnx.reference import ReferenceEvaluator

        by = f"onnx {onnx.__version__}, its reference evaluator"
        session = ReferenceEvaluator(onnx.load(path))

    def run(lr):
        (sr,) = session.run(None, {"lr": lr.transpose(0, 3, 1, 2)})
        return sr.transpose(0, 2, 3, 1)

    return run, by


def _write_orbax(source, path):
    import orbax.checkpoint as ocp

    arrays = jax.tree.map(np.asarray, source.variables)
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(storage.literal(path.resolve()), arrays)
    except ValueError as error:  # Orbax reports a full disk so
        if "No space left" in str(error) or "RESOURCE_EXHAUSTED" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise
    # It holds the temporary folder's path, and only object stores need it.
    (path / "commit_success.txt").unlink(missing_ok=True)


def _read_orbax(source, path):
    import orbax.checkpoint as ocp

    with ocp.PyTreeCheckpointer() as checkpointer:
        variables = checkpointer.restore(storage.literal(path.resolve()))
    return functools.partial(reference(source.model), variables), "JAX"


# Say why a network has no form in a format; "" if it has one.
MISSING_FORMS = {
    "onnx": network.missing_onnx_form,
    "torch": torch_file.missing_torch_form,
    "ncnn": ncnn.missing_ncnn_form,
}
# By name: the file, its writer, its reader.
FORMATS = {
    "safetensors": (FILES["safetensors"], _write_safetensors, _read_safetensors),
    "stablehlo": (FILES["stablehlo"], _write_stablehlo, _read_stablehlo),
    "onnx": (FILES["onnx"], write_onnx, _read_onnx),
    "torch": (FILES["torch"], torch_file.write_torch, torch_file.read_torch),
    "ncnn": (FILES["ncnn"], ncnn.write_ncnn, ncnn.read_ncnn),
    "orbax": (FILES["orbax"], _write_orbax, _read_orbax),
}
# The files that a format has beside that one, and that are run on their own.
BESIDE = {
    "onnx": [
        (
            BESIDE_FILES["onnx"][0],
            functools.partial(write_onnx, tile=True),
            _read_onnx_tile,
        )
    ],
}
