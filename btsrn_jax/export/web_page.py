"""The web page: a folder that any static server serves, with models for the browser.

The page itself lies in web/: HTML, CSS and JavaScript modules, used as they are. It
computes by onnxruntime-web, whose files lie beside the page or come from a CDN, each
under the digest that is pinned in `web_plan`.
"""

import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from btsrn_jax import inference, network
from btsrn_jax.errors import InputError
from btsrn_jax.export import web_plan
from btsrn_jax.export.formats import Source, run_onnx, write_onnx
from btsrn_jax.export.write import LIMIT, ParityError, put_folder

# LR pixels a side of a tile at each scale: about as much memory at any of them.
TILES = {2: 128, 3: 96, 4: 64}


def export_page(
    sources: list[str],
    out: str | os.PathLike,
    runtime_files: str | os.PathLike | None = None,
    force: bool = False,
    cdn: str = web_plan.CDN,
    log: Callable[[str], None] = print,
) -> None:
    """Writes the page with its models into a folder, whole or not at all.

    Args:
      sources: models of different scales, as `inference.load_weights` takes them.
      out: the folder. An existing one is refused, unless `force` is True and it holds
        nothing but such a page.
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
    plan = web_plan.plan_page(sources, out, runtime_files, force)
    loaded = [load_source(source) for source in plan.sources.values()]
    try:
        plan.out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=plan.out.parent,
            prefix=f".{plan.out.name}-",
            ignore_cleanup_errors=True,
        ) as folder:
            made = pathlib.Path(folder) / "new"
            shutil.copytree(web_plan.PAGE, made)
            models = [_write_model(source, made, log) for source in loaded]
            base = cdn
            if plan.runtime_files is not None:
                base = f"{web_plan.FOLDER}/"
                (made / base).mkdir()
                for name in web_plan.DIGESTS:
                    shutil.copyfile(plan.runtime_files / name, made / base / name)
            content = {
                "models": models,
                "sample": web_plan.SAMPLE,
                "runtime": _runtime(base),
            }
            text = json.dumps(content, indent=2) + "\n"
            (made / web_plan.MODELS).write_text(text)
            put_folder(made, plan.out, force)
    except OSError as error:
        raise InputError(f"cannot write {plan.out}: {error.strerror}") from error


def _runtime(base):
    files = {
        kind: {name: f"sha384-{digest}" for name, digest in digests.items()}
        for kind, digests in web_plan.RUNTIME.items()
    }
    return {"version": web_plan.VERSION, "base": base, "files": files}


def load_source(source: str) -> Source:
    """Returns a model to export; InputError if its network has no form in ONNX."""
    weights = inference.load_weights(source)
    compute = network.Compute(jnp.float32, "plain", jax.lax.Precision.HIGHEST)
    model = network.build(weights.config["model"], weights.config["scale"], compute)
    if missing := network.missing_onnx_form(model):
        raise InputError(f"{source}: {missing}")
    name = os.fsencode(pathlib.Path(source).resolve().name)
    return Source(model, weights.variables, {"name": name.decode(errors="replace")})


def _write_model(source, folder, log):
    """Writes a model's tile graph, runs it, and returns what the page has to know."""
    model, scale, name = source.model, source.model.scale, source.about["name"]
    path = web_plan.model_file(scale)
    file = folder / path
    file.parent.mkdir(exist_ok=True)
    write_onnx(source, file, tile=True)
    tile = TILES[scale]
    side = tile + 2 * model.halo
    lr = np.random.default_rng(0).random((1, side, side, 3), dtype=np.float32)
    apply = jax.jit(lambda v, x: network.super_resolve(model, v, x)[0])
    sr = np.asarray(apply(source.variables, lr))
    truth = network.crop(sr, (sr.shape[1] - scale * tile) // 2).clip(0, 1)
    run, by = run_onnx(file)
    difference = float(np.abs(run(lr) - truth).max())
    log(f"{name} in {path}, {side}x{side} by {by}: largest difference {difference:.1e}")
    if not difference <= LIMIT:
        raise ParityError(f"{path} differs from the network by {difference:.1e}")
    return {
        "name": name,
        "scale": scale,
        "halo": model.halo,
        "tile": tile,
        "file": path,
        "integrity": f"sha384-{web_plan.sha384(file.read_bytes())}",
    }
