"""What an export writes, and where: checked before JAX is loaded."""

import dataclasses
import importlib.util
import os
import pathlib
from collections.abc import Callable

from btsrn_jax import inference, storage
from btsrn_jax.errors import InputError

CARD = "README.md"
FIGURES = "figures.csv"  # of every image, under the exported name
FILES = {  # of each format, inside the folder of a model
    "safetensors": inference.WEIGHTS,
    "stablehlo": "model.stablehlo",
    "onnx": "model.onnx",
    "torch": "model.pth.safetensors",
    "ncnn": "models",  # the only name of a folder that Upscayl takes
    "orbax": "orbax",
}
BESIDE = {  # further files of a format
    "onnx": ("model-tile.onnx",),
    "torch": ("btsrn_torch.py",),
}
HALF = ("onnx", "ncnn")  # the formats that can store float16 weights
SUFFIXES = {  # of the formats that are one file
    pathlib.Path(file).suffix: name
    for name, file in FILES.items()
    if "." in file and name != "torch"
}
PAGE_FORMAT = "web"  # of `export_page`
NOT_ALONE = {  # endings of files that come in pairs
    (".pth", ".pt", ".ckpt", ".pth.safetensors"): ("torch", "PyTorch"),
    (".param", ".bin"): ("ncnn", "NCNN"),
}
PAIRS = {
    "torch": f"{FILES['torch']} and {BESIDE['torch'][0]}",
    "ncnn": f"a .param and a .bin in {FILES['ncnn']}/",
}
ONNX_HINT = "needs the package onnx: pip install 'btsrn-jax[onnx]'"


@dataclasses.dataclass(frozen=True)
class ExportPlan:
    """What `export_model` is to write."""

    out: pathlib.Path
    """A folder of its own, or one file."""

    formats: list[str]
    """Names among FILES."""

    one_file: bool
    """True if `out` is a file, of the one format that there is."""


def plan_export(
    source: str,
    out: str | os.PathLike,
    formats: list[str] | None = None,
    force: bool = False,
    half: bool = False,
    log: Callable[[str], None] = print,
) -> ExportPlan:
    """Checks the arguments of `export_model`, whose they are.

    Raises:
      InputError: there is no such model, an unknown format, or an `out` that cannot be
        written or would replace something else than an export.
    """
    out = storage.local(out)
    suffix = out.suffix.lower()
    one_file = SUFFIXES.get(suffix)
    for endings, (name, program) in NOT_ALONE.items():
        if out.name.lower().endswith(endings):
            raise InputError(
                f"{out}: for {program} there are two files, {PAIRS[name]}: name a"
                f" folder, and --formats {name}; one file is a name that ends in"
                f" {', '.join(SUFFIXES)}"
            )
    if one_file and formats not in (None, [one_file]):
        raise InputError(
            f"{out} is one file, in the format {one_file}, not"
            f" {', '.join(formats)}: name a folder, or leave out --formats"
        )
    formats = _choose([one_file] if one_file else formats, log)
    if half and not set(HALF) & set(formats):
        raise InputError(
            f"--half: of {', '.join(formats)} none stores float16 weights;"
            f" {', '.join(HALF)} can"
        )
    if "orbax" in formats:
        storage.check_array_path(out)
    _check_out(out, force, one_file)
    storage.check_writable_folder(out.parent)
    if not inference.in_hub(source):
        storage.local(source)  # raises InputError for a bucket
    inference.read_scale(source)
    return ExportPlan(out, formats, bool(one_file))


def _choose(formats, log):
    """Returns the formats to write: those asked for, or all that can be written."""
    has_onnx = importlib.util.find_spec("onnx") is not None
    if formats is None:
        if not has_onnx:
            log(f"model.onnx is left out: it {ONNX_HINT}")
        return [name for name in FILES if name != "onnx" or has_onnx]
    for name in formats:
        if name == PAGE_FORMAT:
            raise InputError(
                f"the format {name} is a page in a folder of its own: name no other"
            )
        if name not in FILES:
            known = ", ".join([*FILES, PAGE_FORMAT])
            raise InputError(f"format {name!r}: one or several of {known}")
    if not formats:
        known = ", ".join([*FILES, PAGE_FORMAT])
        raise InputError(f"--formats: no name; one or several of {known}")
    if "onnx" in formats and not has_onnx:
        raise InputError(f"the format onnx {ONNX_HINT}")
    return list(dict.fromkeys(formats))


def _check_out(out, force, one_file):
    """Raises InputError if `out` exists, unless an export wrote it and may be
    replaced."""
    if not os.path.lexists(out):
        return
    if one_file:
        if not out.is_file():
            raise InputError(f"{out} is no file: not replaced")
        if not force:
            raise InputError(f"{out} exists; --force replaces it")
        return
    ours = {inference.CONFIG, CARD, FIGURES, *FILES.values(), *sum(BESIDE.values(), ())}

    def strangers(folder):
        found = sorted({path.name for path in folder.iterdir()} - ours)
        models = folder / FILES["ncnn"]  # a user may have put further models there
        if models.is_dir():
            names = {path.name for path in models.iterdir()}
            stem = pathlib.Path(min(names, default="")).stem
            names -= {f"{stem}.param", f"{stem}.bin"}
            found += [f"{models.name}/{name}" for name in sorted(names)]
        return found

    check_replaceable(out, force, "an exported model", strangers)


def check_replaceable(
    out: pathlib.Path,
    force: bool,
    what: str,
    strangers: Callable[[pathlib.Path], list[str]],
) -> None:
    """Raises InputError if `out` exists, unless it may be replaced.

    Args:
      out: a folder that is to be written, or what lies in its place.
      force: True to replace a folder without strangers.
      what: it is in words, such as "an exported model".
      strangers: returns the names of what an export has not written into a folder.
    """
    if not os.path.lexists(out):
        return
    if not force:
        raise InputError(f"{out} exists; --force replaces {what}")
    if not out.is_dir():
        raise InputError(f"{out} is no folder: not replaced")
    if found := strangers(out):
        raise InputError(f"{out} is not {what} (it holds {found[0]}): not replaced")
