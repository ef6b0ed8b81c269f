"""What the web page is made of, and where it goes: checked before JAX is loaded."""

import base64
import dataclasses
import hashlib
import importlib.util
import os
import pathlib

from btsrn_jax import inference, storage
from btsrn_jax.errors import InputError
from btsrn_jax.export.plan import ONNX_HINT, check_replaceable

PAGE = pathlib.Path(__file__).parent / "web"
MODELS = "models.json"
SAMPLE = "sample.png"
FOLDER = "runtime"  # of onnxruntime-web's files, where they lie beside the page

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
DIGESTS = {name: digest for files in RUNTIME.values() for name, digest in files.items()}


@dataclasses.dataclass(frozen=True)
class PagePlan:
    """What `export_page` is to write."""

    sources: dict[int, str]
    """The model of each scale, the smallest scale first."""

    out: pathlib.Path
    """A folder of its own."""

    runtime_files: pathlib.Path | None
    """The folder to copy onnxruntime-web's files from; None for a CDN."""


def plan_page(
    sources: list[str],
    out: str | os.PathLike,
    runtime_files: str | os.PathLike | None = None,
    force: bool = False,
) -> PagePlan:
    """Checks the arguments of `export_page`, whose they are.

    Raises:
      InputError: there is no such model, two are of one scale, a runtime file is
        missing or not the pinned one, or `out` cannot be written or would replace
        something else than a page.
    """
    if importlib.util.find_spec("onnx") is None:
        raise InputError(f"the web page {ONNX_HINT}")
    out = storage.local(out)
    check_replaceable(out, force, "a page", _strangers)
    storage.check_writable_folder(out.parent)
    found = {}
    for source in sources:
        if not inference.in_hub(source):
            storage.local(source)  # raises InputError for a bucket
        scale = inference.read_scale(source)
        if scale in found:
            names = f"{found[scale]} and {source}"
            raise InputError(f"{names} are both x{scale}: the page takes one of each")
        found[scale] = source
    if runtime_files is not None:
        runtime_files = storage.local(runtime_files)
        _check_runtime(runtime_files)
    return PagePlan(dict(sorted(found.items())), out, runtime_files)


def sha384(data: bytes) -> str:
    """Returns the SHA-384 of data in base64, as `integrity` in a browser has it."""
    return base64.b64encode(hashlib.sha384(data).digest()).decode()


def model_file(scale: int) -> str:
    """Returns the path of a model in the page. It does not hold the model's name, which
    may have characters that an address cannot."""
    return f"models/x{scale}.onnx"


def _strangers(folder):
    """Returns the files below a folder that no page has."""
    ours = {path.name for path in PAGE.iterdir()} | {MODELS}
    ours |= {model_file(scale) for scale in (2, 3, 4)}
    ours |= {f"{FOLDER}/{name}" for name in DIGESTS}
    found = (path for path in folder.rglob("*") if not path.is_dir())
    return sorted({path.relative_to(folder).as_posix() for path in found} - ours)


def _check_runtime(folder):
    """Raises InputError unless all files of onnxruntime-web are there, as pinned."""
    for name, expected in DIGESTS.items():
        try:
            data = (folder / name).read_bytes()
        except OSError as error:
            raise InputError(
                f"cannot read {folder / name}: {error.strerror}; the folder dist of"
                f" npm's onnxruntime-web {VERSION} was expected"
            ) from None
        if sha384(data) != expected:
            raise InputError(
                f"{folder / name} is not that of onnxruntime-web {VERSION}"
            )
