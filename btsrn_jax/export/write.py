"""`btsrn export`: a trained model as a directory of files, and its model card.

Every format but the bare arrays (safetensors, Orbax) holds to one contract: LR in, SR
out, RGB float32 in [0, 1], any batch, height and width; padding, bicubic skip and
clipping are inside.
"""

import contextlib
import errno
import hashlib
import itertools
import os
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
from btsrn_jax.errors import Failure, InputError
from btsrn_jax.export import model_card, provenance
from btsrn_jax.export.formats import BESIDE, FORMATS, MISSING_FORMS, Source, reference
from btsrn_jax.export.plan import CARD, FIGURES, FILES, HALF, SUFFIXES, plan_export

LIMIT = 1e-4  # the largest difference from the JAX network, for values in [0, 1]
HALF_LIMIT = 1 / 255  # the same with float16 weights: one grey level
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


class ParityError(Failure):
    """An exported file does not compute what the network computes."""


def export_model(
    source: str,
    out: pathlib.Path,
    formats: list[str] | None = None,
    force: bool = False,
    data: str | None = None,
    data_licence: str | None = None,
    half: bool = False,
    log: Callable[[str], None] = print,
) -> dict:
    """Writes a model into a directory of its own, or as one file; whole or not at all.

    Each file is run after it was written, and compared with the network.

    Args:
      source: a model, as `inference.load_weights` takes it.
      out: the directory. An existing one is refused, unless `force` is True and it
        holds an exported model. A name that ends in .onnx, .safetensors or .stablehlo
        is one file of that format.
      formats: names among FORMATS; by default all whose packages are installed and
        that have a form of this network.
      force: True to replace an exported model in `out`, or the file.
      data: the training images in words, where the run does not know them well enough.
      data_licence: the terms of the training images.
      half: True to store the weights of the formats in HALF as float16.
      log: takes lines of progress.

    Returns:
      What config.json holds, or would hold beside the one file.

    Raises:
      InputError: for a mistake of the user.
      ParityError: where a file differs from the network by more than LIMIT, or by
        more than HALF_LIMIT if its weights are float16.
    """
    plan = plan_export(source, out, formats, force, half, log)
    out, asked = plan.out, formats is not None or plan.one_file
    found = inference.load_weights(source)
    formats = _with_a_form(plan.formats, asked, found.config, log)
    loaded, rows = _describe(source, found, out, data, data_licence, formats, half, log)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=out.parent, prefix=f".{out.name}-", ignore_cleanup_errors=True
        ) as folder:
            made = pathlib.Path(folder) / "new"
            made.mkdir()
            if rows:
                evaluation.write_csv(made / FIGURES, rows)
            files = _files(formats, plan.one_file)
            _write(loaded, made, files, log)
            if plan.one_file:
                if not force and os.path.lexists(out):
                    raise InputError(f"{out} exists by now: nothing was changed there")
                (made / FILES[formats[0]]).replace(out)
            else:
                put_folder(made, out, force)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}") from error
    return loaded.about


def put_folder(made: pathlib.Path, out: pathlib.Path, force: bool) -> None:
    """Moves the new directory to its place. What another export has put there meanwhile
    is replaced if `force` is True; else the new one is refused, by InputError.

    Args:
      made: the new directory. What is replaced is left beside it.
    """
    for number in itertools.count():
        if force:
            with contextlib.suppress(FileNotFoundError):
                out.rename(made.with_name(f"old{number}"))
        try:
            made.rename(out)
            return
        except OSError as error:
            taken = error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
            if not taken:
                raise
            if not force:
                raise InputError(
                    f"{out} exists by now: something else wrote it meanwhile; nothing"
                    " was changed there"
                ) from None


def _files(formats, one_file):
    """Returns (format, (file, writer, reader)) of each file that is to be written."""
    beside = {} if one_file else BESIDE
    return [(n, f) for n in formats for f in (FORMATS[n], *beside.get(n, ()))]


def _with_a_form(formats, asked, config, log):
    """Returns the formats that a network can be written in; if they were asked for,
    raises InputError for one that it cannot."""
    model = network.build(config["model"], config["scale"])
    kept = []
    for name in formats:
        missing = MISSING_FORMS.get(name, lambda _: "")(model)
        if missing and asked:
            raise InputError(f"the format {name}: {missing}")
        if missing:
            log(f"{FILES[name]} is left out: {missing}")
        else:
            kept.append(name)
    return kept


def _describe(source, found, out, data, data_licence, formats, half, log):
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
    name = out.resolve().stem if out.suffix.lower() in SUFFIXES else out.resolve().name
    rows = [r if r.model == "bicubic" else r._replace(model=name) for r in rows]
    # As `shown_path`: of this machine's folders the last parts.
    rows = [r._replace(lr=evaluation.lr_label(r) or r.lr) for r in rows]
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
    words += ["--half"] if half else []
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
    return Source(network_, found.variables, about, half), rows


def _read_figures(folder, step, log):
    """Returns the rows of the evaluation files of a run or an exported model, image by
    image and means, of its own model and of bicubic.

    A file that is older than the checkpoint of `step` was measured on another one: it
    is left out, and named.
    """
    made = folder / checkpoint.FOLDER / str(step) / "about" / "metadata"
    own = folder.resolve().name, folder.absolute().name  # that of a link, too
    labels = ("btsrn", "vdsr", "bicubic", *own)
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


def _write(source, folder, files, log):
    """Writes all files, runs each after it was written, and writes the card last."""
    about = source.about
    images = _parity_images(source.model.halo)
    upscale = reference(source.model)
    truth = [upscale(source.variables, lr) for lr in images]
    about["parity"], about["bytes"], about["sha256"] = {}, {}, {}
    for name, (file, write, reader) in files:
        half = source.half and name in HALF
        limit = HALF_LIMIT if half else LIMIT
        write(source, folder / file)
        run, by = reader(source, folder / file)
        differences = {}
        if run is None:
            log(f"{file:18} {by}")
        for lr, sr in zip(images, truth, strict=True) if run else ():
            size = "x".join(map(str, lr.shape[:3]))
            differences[size] = _difference(run(lr), sr)
            log(f"{file:18} {size:9} largest difference {differences[size]:.1e}")
            if not differences[size] <= limit:
                raise ParityError(
                    f"{file} differs from the network by {differences[size]:.1e} on an"
                    f" image of {size}, {limit:.0e} is allowed: nothing was written"
                )
        about["parity"][file] = {"by": by, "largest_difference": differences}
        if half:
            about["parity"][file]["weights"] = "float16"
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        about["bytes"][name] = path.stat().st_size
        about["sha256"][name] = hashlib.sha256(path.read_bytes()).hexdigest()
    config = storage.to_json(about, 2) + "\n"
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
