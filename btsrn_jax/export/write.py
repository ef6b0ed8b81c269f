"""`btsrn export`: a trained model as a directory of files, and its model card.

Every format but the bare arrays (safetensors, Orbax) holds to one contract: LR in, SR
out, RGB float32 in [0, 1], any batch, height and width; padding, bicubic skip and
clipping are inside.
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

from btsrn_jax import (
    __version__,
    checkpoint,
    evaluation,
    inference,
    network,
    storage,
    training,
)
from btsrn_jax.errors import InputError
from btsrn_jax.export import model_card, provenance, torch_file
from btsrn_jax.export.formats import FORMATS, Source, reference

CARD = "README.md"
FIGURES = "figures.csv"  # of every image, under the exported name
LIMIT = 1e-4  # the largest difference from the JAX network, for values in [0, 1]
ONNX_HINT = "needs the package onnx: pip install 'btsrn-jax[onnx]'"
# What a model's config.json may lack if another program wrote it.
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
    """An exported file does not compute what the network computes."""


def export_model(
    source: str,
    out: pathlib.Path,
    formats: list[str] | None = None,
    force: bool = False,
    data: str | None = None,
    data_licence: str | None = None,
    log: Callable[[str], None] = print,
) -> dict:
    """Writes a model into a directory of its own, whole or not at all.

    Each file is run after it was written, and compared with the network.

    Args:
      source: a model, as `inference.load_weights` takes it.
      out: the directory. An existing one is refused, unless `force` is True and it
        holds an exported model.
      formats: names among FORMATS; by default all whose packages are installed.
      force: True to replace an exported model in `out`.
      data: the training images in words, where the run does not know them well enough.
      data_licence: the terms of the training images.
      log: takes lines of progress.

    Returns:
      What config.json holds.

    Raises:
      InputError: for a mistake of the user.
      ParityError: where a file differs from the network by more than LIMIT.
    """
    out = pathlib.Path(out)
    by_name, formats = formats, _choose(formats, log)
    _check_out(out, force)
    found = _load_weights(source)
    if found.config["model"].get("name") == "vdsr" and "torch" in formats:
        if by_name:
            raise InputError(torch_file.NO_VDSR)
        log(f"{torch_file.FILE} is left out: {torch_file.NO_VDSR}")
        formats.remove("torch")
    loaded, rows = _describe(source, found, out, data, data_licence, formats, log)
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
    """Returns the formats to write: those asked for, or all that can be written."""
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
    """Raises InputError if `out` exists, unless an export wrote it and may be
    replaced."""
    if not out.exists():
        return
    if not force:
        raise InputError(f"{out} exists; --force replaces an exported model")
    ours = {inference.CONFIG, CARD, FIGURES} | {file for file, _, _ in FORMATS.values()}
    ours.add(torch_file.NETWORK.name)
    strange = [] if out.is_file() else sorted({p.name for p in out.iterdir()} - ours)
    if out.is_file() or strange:
        found = strange[0] if strange else "a file"
        raise InputError(f"{out} is no exported model (it holds {found}): not replaced")


def _load_weights(source):
    if not inference.in_hub(source):
        storage.local(source)  # raises InputError for a bucket
    return inference.load_weights(source)


def _describe(source, found, out, data, data_licence, formats, log):
    """Returns the Source to export, and the rows of its evaluation files."""
    path = found.folder
    if (path / checkpoint.FOLDER).is_dir() and not (path / inference.WEIGHTS).is_file():
        metrics = training.read_metrics(path / training.METRICS)
        known = provenance.run_provenance(found.config, found.step, metrics)
        rows = _read_figures(path, found.step, log)
    else:
        known = {key: found.config.get(key, UNKNOWN[key]) for key in UNKNOWN}
        known |= {"date": found.config["date"]} if "date" in found.config else {}
        rows = _read_figures(path, None, log)
    name = out.resolve().name
    rows = [r if r.model == "bicubic" else r._replace(model=name) for r in rows]
    known["figures"] = provenance.figures(rows) or known.get("figures", [])
    # `dtype` is a setting of training: an exported model computes in float32.
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


def _read_figures(folder, step, log):
    """Returns the rows of the evaluation files of a run or an exported model, image by
    image and means, of its own model and of bicubic.

    A file that is older than the checkpoint of `step` was measured on another one: it
    is left out, and named.
    """
    made = folder / checkpoint.FOLDER / str(step) / "about" / "metadata"
    labels = ("btsrn", "vdsr", "bicubic", folder.resolve().name)
    found = []
    for path in sorted(folder.glob("*.csv")):
        rows = [row for row in evaluation.read_csv(path) if row.model in labels]
        if not rows:
            continue
        if made.exists() and path.stat().st_mtime < made.stat().st_mtime:
            log(
                f"{path.name} is older than step {step}: not in the model card"
                " (evaluate again; a copy without its times may look older, too)"
            )
            continue
        found += rows
    return evaluation.latest(found)


def _write(source, folder, formats, log):
    """Writes all files, runs each after it was written, and writes the card last."""
    about = source.about
    images = _parity_images(source.model.halo)
    upscale = reference(source.model)
    truth = [upscale(source.variables, lr) for lr in images]
    about["parity"], about["bytes"], about["sha256"] = {}, {}, {}
    for name in formats:
        file, write, reader = FORMATS[name]
        write(source, folder / file)
        run, by = reader(source, folder / file)
        differences = {}
        if run is None:
            log(f"{file:18} {by}")
        for lr, sr in zip(images, truth, strict=True) if run else ():
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
    """Returns three batches (B, h, w, 3) float32 in [0, 1]: of odd sides; of several
    images that are not square; of sides below the halo."""
    noise = np.random.default_rng(0)
    sizes = (1, 19, 19), (2, 12, 20), (1, max(1, halo // 2), 1)
    return [noise.random((*size, 3), dtype=np.float32) for size in sizes]


def _difference(found, expected):
    """Returns the largest difference; inf for values that are not finite, and for
    another shape."""
    found = np.asarray(found)
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - expected).max())
