"""Trained models for others: safetensors, StableHLO, ONNX, Orbax, and a model card.

Every format but the bare arrays holds to one contract: LR in, SR out, RGB float32 in
[0, 1], any batch, height and width; padding, bicubic skip and clipping included.
"""

import functools
import hashlib
import importlib.util
import json
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from btsrn_jax import __version__, card, checkpoint, onnx_graph, ops, resize, weights
from btsrn_jax import model as network
from btsrn_jax.errors import InputError

CARD = "README.md"
PLATFORMS = ("cpu", "cuda", "tpu")
LIMIT = 1e-4  # of the difference from the JAX network, for values in [0, 1]
ONNX_HINT = "needs the package onnx: pip install 'btsrn-jax[onnx]'"
# What an exported model may lack that was not made here.
UNKNOWN = {
    "track": "unknown",
    "step": None,
    "averaged": False,
    "data": "unknown",
    "data_licence": "unknown",
    "batch_size": None,
    "patch": None,
    "training_command": "# unknown",
    "validation": {},
    "figures": [],
}


class ParityError(RuntimeError):
    """An artifact does not compute what the network computes."""


class Source(NamedTuple):
    """What is exported. model: plain operations at the highest precision. about: what
    becomes config.json."""

    model: Any
    variables: Mapping
    about: dict


def export(
    source: str,
    out: pathlib.Path,
    formats: list[str] | None = None,
    force: bool = False,
    data: str | None = None,
    data_licence: str | None = None,
    log: Callable[[str], None] = print,
) -> dict:
    """Writes a model in a directory of its own, whole or not at all.

    Args:
      source: as `weights.load` takes it.
      out: the directory; refused where there is one, unless `force` is set and it holds
        an exported model.
      formats: keys of FORMATS; all by default, less those whose package is missing.
      data: the training images in words, where the run does not know them well enough.
      data_licence: their terms.

    Returns:
      What config.json holds.

    Raises InputError for a mistake, and ParityError where an artifact differs from the
    network by more than LIMIT.
    """
    out = pathlib.Path(out)
    formats = _choose(formats, log)
    _check_out(out, force)
    loaded = _load(source, out, data, data_licence, formats, log)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=out.parent, prefix=f".{out.name}-", ignore_cleanup_errors=True
        ) as folder:
            made = pathlib.Path(folder) / "new"
            made.mkdir()
            _write(loaded, made, formats, log)
            if out.exists():
                out.rename(pathlib.Path(folder) / "old")
            made.rename(out)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}") from error
    return loaded.about


def _choose(formats, log):
    """The formats asked for; without a word of them all that can be written."""
    has_onnx = importlib.util.find_spec("onnx") is not None
    if formats is None:
        if not has_onnx:
            log(f"model.onnx is left out: it {ONNX_HINT}")
        return [name for name in FORMATS if name != "onnx" or has_onnx]
    for name in formats:
        if name not in FORMATS:
            raise InputError(f"format {name!r}: one or several of {', '.join(FORMATS)}")
    if "onnx" in formats and not has_onnx:
        raise InputError(f"the format onnx {ONNX_HINT}")
    return list(dict.fromkeys(formats))


def _check_out(out, force):
    """Nothing is replaced but what an export has written."""
    if not out.exists():
        return
    if not force:
        raise InputError(f"{out} exists; --force replaces an exported model")
    ours = {weights.CONFIG, CARD} | {file for file, _, _ in FORMATS.values()}
    strange = [] if out.is_file() else sorted({p.name for p in out.iterdir()} - ours)
    if out.is_file() or strange:
        found = strange[0] if strange else "a file"
        raise InputError(f"{out} is no exported model (it holds {found}): not replaced")


def _load(source, out, data, data_licence, formats, log):
    found = weights.load(source)
    path = pathlib.Path(source)
    if (path / checkpoint.FOLDER).is_dir() and not (path / weights.WEIGHTS).is_file():
        facts = card.facts_of_run(path, found.step, found.config, log)
    else:
        facts = {key: found.config.get(key, UNKNOWN[key]) for key in UNKNOWN}
        facts |= {"date": found.config["date"]} if "date" in found.config else {}
    # `dtype` is of training; an exported model computes in float32.
    model = dict(found.config["model"])
    model.pop("dtype", None)
    if data:
        facts["data"] = data
        facts["data_licence"] = data_licence or "not stated"
    elif data_licence:
        facts["data_licence"] = data_licence
    scale = found.config["scale"]
    command = f"btsrn export {card.shown_path(source)} {card.shown_path(out)}"
    about = {
        "name": out.resolve().name,
        "version": __version__,
        "scale": scale,
        "model": model,
        **facts,
        "export_command": f"{command} --formats {','.join(formats)}",
    }
    compute = network.Compute(jnp.float32, "plain", jax.lax.Precision.HIGHEST)
    network_ = network.build(model, scale, compute)
    averaged = ", averaged weights" if facts["averaged"] else ""
    log(f"{source}: step {facts['step']}{averaged}, {card.summary(about)}")
    return Source(network_, found.variables, about)


def _write(source, folder, formats, log):
    """All files, each run after it was written; the card at last."""
    about = source.about
    images = _parity_images(network.halo(source.model))
    truth = [np.asarray(_reference(source.model)(source.variables, x)) for x in images]
    about["parity"], about["bytes"], about["sha256"] = {}, {}, {}
    for name in formats:
        file, write, reader = FORMATS[name]
        write(source, folder / file)
        run, by = reader(source, folder / file)
        differences = {}
        for lr, sr in zip(images, truth, strict=True):
            size = "x".join(map(str, lr.shape[:3]))
            differences[size] = _difference(run(lr), sr)
            log(f"{file:18} {size:9} largest difference {differences[size]:.1e}")
            if not differences[size] <= LIMIT:
                raise ParityError(
                    f"{file} differs from the network by {differences[size]:.1e} on an"
                    f" image of {size}, {LIMIT:.0e} is allowed: nothing was written"
                )
        about["parity"][file] = {"by": by, "largest_difference": differences}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        about["bytes"][name] = path.stat().st_size
        about["sha256"][name] = hashlib.sha256(path.read_bytes()).hexdigest()
    config = json.dumps(about, indent=2) + "\n"
    (folder / weights.CONFIG).write_text(config)
    (folder / CARD).write_text(card.render(about, config))


def _parity_images(halo):
    """(B, h, w, 3) in [0, 1]: odd; a batch, not square; smaller than the halo."""
    noise = np.random.default_rng(0)
    sizes = (1, 19, 19), (2, 12, 20), (1, max(1, halo // 2), 1)
    return [noise.random((*size, 3), dtype=np.float32) for size in sizes]


def _difference(found, expected):
    """The largest one; nan and another shape are as wrong as can be."""
    found = np.asarray(found)
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - expected).max())


@functools.cache
def _reference(model):
    """enlarge(variables, lr): the network on an image that NumPy has padded."""
    halo, s = network.halo(model), model.scale
    apply = jax.jit(lambda v, x: network.super_resolve(model, v, x)[0])

    def enlarge(variables, lr):
        border = ((0, 0), (halo, halo), (halo, halo), (0, 0))
        sr = np.asarray(apply(variables, np.pad(lr, border, mode="symmetric")))
        h, w = s * lr.shape[1], s * lr.shape[2]
        top, left = (sr.shape[1] - h) // 2, (sr.shape[2] - w) // 2
        return sr[:, top : top + h, left : left + w].clip(0, 1)

    return enlarge


def _write_safetensors(source, path):
    path.write_bytes(weights.to_bytes(source.variables))


def _read_safetensors(source, path):
    variables = weights.read_arrays(path)
    return functools.partial(_reference(source.model), variables), "JAX"


def _write_stablehlo(source, path):
    from jax import export as jax_export

    halo = network.halo(source.model)
    border = network.output_size(source.model, 2 * halo) // 2

    def super_resolve(lr):
        padded = resize.pad_symmetric(lr, halo)
        sr, _ = network.super_resolve(source.model, source.variables, padded)
        return jnp.clip(ops.crop(sr, border), 0, 1)

    sizes = jax_export.symbolic_shape("batch, height, width")
    lr = jax.ShapeDtypeStruct((*sizes, 3), jnp.float32)
    with _no_source_locations():
        made = jax_export.export(jax.jit(super_resolve), platforms=PLATFORMS)(lr)
    path.write_bytes(made.serialize())


class _no_source_locations:
    """JAX would write the paths of this machine's source files into the artifact."""

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


def _write_onnx(source, path):
    metadata = {
        "name": source.about["name"],
        "scale": str(source.model.scale),
        "overlap": str(network.halo(source.model)),
    }
    proto = onnx_graph.build(source.model, source.variables, metadata)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def _read_onnx(source, path):
    """By onnxruntime, or else by the slow evaluator that ONNX defines itself with."""
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
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(path.resolve(), arrays)
    # It names the folder of the moment, and matters to object stores alone.
    (path / "commit_success.txt").unlink(missing_ok=True)


def _read_orbax(source, path):
    import orbax.checkpoint as ocp

    with ocp.PyTreeCheckpointer() as checkpointer:
        variables = checkpointer.restore(path.resolve())
    return functools.partial(_reference(source.model), variables), "JAX"


# Name: the file, what writes it, what gives (a function that runs it, by what).
FORMATS = {
    "safetensors": (weights.WEIGHTS, _write_safetensors, _read_safetensors),
    "stablehlo": ("model.stablehlo", _write_stablehlo, _read_stablehlo),
    "onnx": ("model.onnx", _write_onnx, _read_onnx),
    "orbax": ("orbax", _write_orbax, _read_orbax),
}
