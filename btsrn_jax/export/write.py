"""Trained models for others: safetensors, StableHLO, ONNX, Orbax, and a model card.

Every format but the bare arrays holds to one contract: LR in, SR out, RGB float32 in
[0, 1], any batch, height and width; padding, bicubic skip and clipping included.
"""

import hashlib
import importlib.util
import json
import pathlib
import shlex
import tempfile
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from btsrn_jax import __version__, checkpoint, evaluation, inference, network, storage
from btsrn_jax.errors import InputError
from btsrn_jax.export import model_card, provenance
from btsrn_jax.export.formats import FORMATS, Source, reference

CARD = "README.md"
FIGURES = "figures.csv"  # of every image, under the exported name
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
    "hardware": "unknown",
    "validation": {},
    "figures": [],
}


class ParityError(RuntimeError):
    """An artifact does not compute what the network computes."""


def export_model(
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
      formats: of FORMATS; all by default whose packages are there.
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
    loaded, rows = _load(source, out, data, data_licence, formats, log)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=out.parent, prefix=f".{out.name}-", ignore_cleanup_errors=True
        ) as folder:
            made = pathlib.Path(folder) / "new"
            made.mkdir()
            if rows:
                evaluation.write_csv(made / FIGURES, rows)
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
            known = ", ".join(FORMATS)
            raise InputError(f"format {name!r}: one or several of {known}")
    if "onnx" in formats and not has_onnx:
        raise InputError(f"the format onnx {ONNX_HINT}")
    return list(dict.fromkeys(formats))


def _check_out(out, force):
    """Nothing is replaced but what an export has written."""
    if not out.exists():
        return
    if not force:
        raise InputError(f"{out} exists; --force replaces an exported model")
    ours = {inference.CONFIG, CARD, FIGURES} | {file for file, _, _ in FORMATS.values()}
    strange = [] if out.is_file() else sorted({p.name for p in out.iterdir()} - ours)
    if out.is_file() or strange:
        found = strange[0] if strange else "a file"
        raise InputError(f"{out} is no exported model (it holds {found}): not replaced")


def _load(source, out, data, data_licence, formats, log):
    storage.local(source)  # or one line
    found = inference.load_weights(source)
    path = found.folder
    if (path / checkpoint.FOLDER).is_dir() and not (path / inference.WEIGHTS).is_file():
        known = provenance.run_provenance(path, found.step, found.config)
        rows = provenance.evaluation_rows(path, found.step, log)
    else:
        known = {key: found.config.get(key, UNKNOWN[key]) for key in UNKNOWN}
        known |= {"date": found.config["date"]} if "date" in found.config else {}
        rows = provenance.evaluation_rows(path, None, log)
    name = out.resolve().name
    rows = [r if r.model == "bicubic" else r._replace(model=name) for r in rows]
    known["figures"] = provenance.figures(rows) or known.get("figures", [])
    # `dtype` is of training; an exported model computes in float32.
    model = dict(found.config["model"])
    model.pop("dtype", None)
    if data:
        known["data"] = data
        known["data_licence"] = data_licence or "not stated"
    elif data_licence:
        known["data_licence"] = data_licence
    scale = found.config["scale"]
    words = [
        "btsrn",
        "export",
        provenance.shown_path(source),
        provenance.shown_path(out),
    ]
    words += ["--formats", ",".join(formats)]
    words += ["--data", data] if data else []
    words += ["--data-licence", data_licence] if data_licence else []
    about = {
        "name": name,
        "version": __version__,
        "scale": scale,
        "model": model,
        **known,
        "export_command": shlex.join(words),
    }
    compute = network.Compute(jnp.float32, "plain", jax.lax.Precision.HIGHEST)
    network_ = network.build(model, scale, compute)
    log(f"{source}: {provenance.describe_step(about)}; {provenance.summary(about)}")
    return Source(network_, found.variables, about), rows


def _write(source, folder, formats, log):
    """All files, each run after it was written; the card at last."""
    about = source.about
    images = _parity_images(source.model.halo)
    enlarge = reference(source.model)
    truth = [enlarge(source.variables, lr) for lr in images]
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
    (folder / inference.CONFIG).write_text(config)
    (folder / CARD).write_text(model_card.render(about, config))


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
