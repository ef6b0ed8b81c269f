"""The web page: a folder that any static server serves, with models for the browser.

The page itself lies in web/: HTML, CSS and JavaScript modules, used as they are. It
computes by onnxruntime-web, whose files lie beside the page or come from a CDN, each
under the digest that is pinned here.
"""

import base64
import hashlib
import json
import pathlib
import shutil
import tempfile
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from btsrn_jax import inference, network, storage
from btsrn_jax.errors import InputError
from btsrn_jax.export.formats import run_onnx
from btsrn_jax.export.write import LIMIT, ParityError

PAGE = pathlib.Path(__file__).parent / "web"
MODELS = "models.json"
SAMPLE = "sample.png"
FOLDER = "runtime"  # of onnxruntime-web's files, where they lie beside the page
# LR pixels a side of a tile at each scale: about as much memory at any of them.
TILES = {2: 128, 3: 96, 4: 64}

# onnxruntime-web, by npm's tarball: the files of each build, with their SHA-384.
VERSION = "1.30.0"
CDN = f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{VERSION}/dist/"
RUNTIME = {
    "wasm": {
        "ort.wasm.min.mjs": "SfFfy/pvthiOsgaw3KX0bV5TfQ6Iq+oY9KutMe4SxIuHH4cl+DCSD4rT"
        "sYOoG1tJ",
        "ort-wasm-simd-threaded.mjs": "XcXA/MtAf0WpB8e023xQH9CM7RIjiugakT7x99DIwpFf7k56"
        "BIFFcAPerIF7FDad",
        "ort-wasm-simd-threaded.wasm": "vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75J"
        "parGq9kB+kTnEUNVM",
    },
    "webgpu": {
        "ort.webgpu.min.mjs": "FPQBMbud8ICuP0Ii+Gr95KWEX9pKHtUC3lacIp0aPI8WYluKvTsEGQ3A"
        "E2Ze3QlL",
        "ort-wasm-simd-threaded.asyncify.mjs": "qViEcCGzsR/m8nlQwIsbYh7afN4thuraqFYDQY6"
        "huvmoLVoZq/eYawQ1wrv8nnhA",
        "ort-wasm-simd-threaded.asyncify.wasm": "EPVDLTxuO663dkZO/pcKJF6vOyyfq/5z9FY1ok"
        "sN0UWFX2ABH4wDDZQHeNoUleWR",
    },
}


def export_page(
    sources: list[str],
    out: pathlib.Path,
    runtime_files: pathlib.Path | None = None,
    force: bool = False,
    cdn: str = CDN,
    log: Callable[[str], None] = print,
) -> None:
    """Writes the page with its models into a folder, whole or not at all.

    Args:
      sources: models of different scales, as `inference.load_weights` takes them.
      out: the folder. An existing one is refused, unless `force` is True and it holds
        such a page.
      runtime_files: a folder with onnxruntime-web's files (`dist` of npm's package), to
        be copied; None to have the page load them from a CDN.
      force: True to replace a page in `out`.
      cdn: the address of the folder that the page loads them from.
      log: takes lines of progress.

    Raises:
      InputError: for a mistake of the user: of models, of `out`, or a runtime file that
        is missing or not the pinned one.
      ParityError: where a file differs from the network by more than `LIMIT`.
    """
    out = pathlib.Path(out)
    if out.exists() and not (force and _is_page(out)):
        hint = "--force replaces a page" if _is_page(out) else "and is no such page"
        raise InputError(f"{out} exists, {hint}")
    found = _by_scale([inference.load_weights(source) for source in sources])
    if runtime_files is not None:
        _check_runtime(pathlib.Path(runtime_files))
    storage.check_writable_folder(out.parent)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=out.parent, prefix=f".{out.name}-", ignore_cleanup_errors=True
    ) as folder:
        made = pathlib.Path(folder) / "new"
        shutil.copytree(PAGE, made)
        models = [_write_model(found[scale], made, log) for scale in sorted(found)]
        names = [name for files in RUNTIME.values() for name in files]
        if runtime_files is not None:
            (made / FOLDER).mkdir()
            for name in names:
                shutil.copy(pathlib.Path(runtime_files) / name, made / FOLDER)
        base = cdn if runtime_files is None else f"{FOLDER}/"
        content = {"models": models, "sample": SAMPLE, "runtime": _runtime(base)}
        (made / MODELS).write_text(json.dumps(content, indent=2) + "\n")
        if out.exists():
            out.rename(pathlib.Path(folder) / "old")
        made.rename(out)


def _runtime(base):
    files = {
        kind: {name: f"sha384-{digest}" for name, digest in digests.items()}
        for kind, digests in RUNTIME.items()
    }
    return {"version": VERSION, "base": base, "files": files}


def _is_page(folder):
    return all((folder / name).is_file() for name in ("page.js", MODELS))


def _by_scale(loaded):
    """Returns {scale: weights}; InputError for two of one scale."""
    found = {}
    for weights in loaded:
        scale = weights.config["scale"]
        if scale in found:
            names = f"{found[scale].name} and {weights.name}"
            raise InputError(f"{names} are both x{scale}: the page takes one of each")
        found[scale] = weights
    return found


def _check_runtime(folder):
    """Raises InputError unless all files of onnxruntime-web are there, as pinned."""
    for files in RUNTIME.values():
        for name, expected in files.items():
            try:
                data = (folder / name).read_bytes()
            except OSError as error:
                raise InputError(
                    f"cannot read {folder / name}: {error.strerror}; the folder dist of"
                    f" npm's onnxruntime-web {VERSION} was expected"
                ) from None
            if _sha384(data) != expected:
                raise InputError(
                    f"{folder / name} is not that of onnxruntime-web {VERSION}"
                )


def _sha384(data):
    return base64.b64encode(hashlib.sha384(data).digest()).decode()


def _write_model(weights, folder, log):
    """Writes a model's tile graph, runs it, and returns what the page has to know."""
    scale = weights.config["scale"]
    compute = network.Compute(jnp.float32, "plain", jax.lax.Precision.HIGHEST)
    model = network.build(weights.config["model"], scale, compute)
    name = pathlib.Path(weights.name).resolve().name
    file = folder / "models" / f"{name}-x{scale}.onnx"
    if name.endswith(f"-x{scale}"):
        file = file.with_name(f"{name}.onnx")
    file.parent.mkdir(exist_ok=True)
    metadata = {"name": name, "scale": str(scale), "overlap": str(model.halo)}
    proto = network.build_onnx(model, weights.variables, metadata, tile=True)
    data = proto.SerializeToString(deterministic=True)
    file.write_bytes(data)
    tile = TILES[scale]
    side = tile + 2 * model.halo
    lr = np.random.default_rng(0).random((1, side, side, 3), dtype=np.float32)
    sr = np.asarray(network.super_resolve(model, weights.variables, lr)[0])
    truth = network.crop(sr, (sr.shape[1] - scale * tile) // 2).clip(0, 1)
    run, by = run_onnx(file)
    difference = float(np.abs(run(lr) - truth).max())
    log(f"{file.name:18} {side}x{side} by {by}: largest difference {difference:.1e}")
    if not difference <= LIMIT:
        raise ParityError(f"{file.name} differs from the network by {difference:.1e}")
    return {
        "name": name,
        "scale": scale,
        "halo": model.halo,
        "tile": tile,
        "file": f"models/{file.name}",
        "integrity": f"sha384-{_sha384(data)}",
    }
