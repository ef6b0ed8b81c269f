"""`btsrn upscale`: which picture goes where, and in what form.

It is planned, and refused, before a model is loaded.
"""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

from btsrn_jax import images, storage
from btsrn_jax.config import SCALES
from btsrn_jax.errors import InputError

# Other pictures. As OUT these are mistakes, not folders to be made. In an input folder
# they are passed over, and a line says so.
_OTHER_SUFFIXES = (
    ".avif",
    ".gif",
    ".heic",
    ".heif",
    ".jp2",
    ".jxl",
    ".psd",
    ".svg",
    ".tga",
)
SHOWN = 8  # offenders listed by name before "and 12 more"
STREAM = pathlib.Path("-")  # standard input, or standard output


@dataclasses.dataclass(frozen=True)
class Output:
    """The form of the outputs, as far as it is not that of the inputs."""

    format: str | None = None
    """A suffix without its dot, such as "webp"; None to keep that of each input."""

    quality: int | None = None
    """1 to 100, of JPEG and WebP files; None for JPEG at 95 and lossless WebP."""

    factor: float | None = None
    """How many times larger each side becomes, 1 to 4, fractions included. At most one
    of `factor`, `width` and `height` is given; with none it is the model's scale."""

    width: int | None = None
    """Pixels; the height follows."""

    height: int | None = None
    """Pixels; the width follows."""

    def __post_init__(self) -> None:
        """Raises InputError, in the words of the command line, for what cannot be."""
        sizes = {name: getattr(self, name) for name in ("factor", "width", "height")}
        given = [f"--{name}" for name, value in sizes.items() if value is not None]
        if len(given) > 1:
            raise InputError(f"{' and '.join(given)}: give one of them")
        if self.factor is not None and not 1 < self.factor <= max(SCALES):
            raise InputError(
                f"--factor {self.factor:g}: a number above 1, and at most {max(SCALES)}"
            )
        for name in ("width", "height"):
            if sizes[name] is not None and sizes[name] < 1:
                raise InputError(f"--{name} {sizes[name]}: a number of pixels")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise InputError(f"--quality {self.quality}: 1 to 100 was expected")
        if self.format and f".{self.format}" not in images.SUFFIXES:
            known = ", ".join(suffix[1:] for suffix in images.SUFFIXES)
            raise InputError(f"--format {self.format}: one of {known}")

    def factor_of(self, h: int, w: int) -> float | None:
        """Returns how many times larger a picture of h x w pixels becomes; None for the
        model's scale."""
        if self.width:
            return self.width / w
        return self.height / h if self.height else self.factor

    def size_of(self, h: int, w: int) -> tuple[int, int] | None:
        """Returns the (height, width) that such a picture gets; None as above."""
        factor = self.factor_of(h, w)
        if factor is None:
            return None
        height, width = (max(1, int(factor * side + 0.5)) for side in (h, w))
        return self.height or height, self.width or width


class Job(NamedTuple):
    """One picture to be made."""

    source: pathlib.Path
    target: pathlib.Path

    scale: int = 0
    """Of the model that it needs. Known, as what follows, once the header was read."""

    size: tuple[int, int] = (0, 0)
    """(height, width) of the output."""

    megapixels: float = 0.0
    """Of the input."""

    quality: images.JpegQuality | None = None
    """Of the input, if it is a JPEG."""


@dataclasses.dataclass(frozen=True)
class Work:
    """What one call of `btsrn upscale` has to do."""

    jobs: list[Job]
    """The pictures to be made, in order."""

    skipped: int
    """How many outputs exist already and are left alone."""

    failures: list[str]
    """A line for each folder that cannot be read."""

    passed_over: list[str]
    """The pictures in the folders whose formats are not read."""

    output: Output = Output()
    """The form of the outputs."""

    force: bool = False
    """True to replace outputs that exist."""

    folder: pathlib.Path | None = None
    """The folder of the outputs if it lies inside a folder of the inputs: it is marked,
    or the next command would take the outputs for inputs."""


def plan_files(
    inputs: list[pathlib.Path],
    out: pathlib.Path,
    output: Output = Output(),
    *,
    force: bool = False,
    resume: bool = False,
) -> Work:
    """Finds every input and its output; opens no picture.

    Args:
      inputs: picture files and folders; folders keep their tree.
      out: a picture file, if one file goes in and `out` has a picture's suffix. Else a
        folder, in which outputs keep the names of their inputs.
      output: the form of the outputs.
      force: replace outputs that exist.
      resume: skip them.

    Raises InputError for usage that cannot be meant: each offender is named.
    """
    if force and resume:
        raise InputError(
            "--force replaces existing outputs, --resume skips them: give one of them"
        )
    failures = []
    inputs, out = [storage.local(path) for path in inputs], storage.local(out)
    jobs = _find_jobs(inputs, out, output, failures)
    existing = [job.target for job in jobs if os.path.exists(job.target)]
    if existing and not force and not resume:
        raise InputError(_listed(existing, "exists (--force or --resume)"))
    if resume:
        jobs = [job for job in jobs if not os.path.exists(job.target)]
    skipped = len(existing) if resume else 0
    failed = [str(error) for error in failures]
    folders = [path for path in inputs if os.path.isdir(path)]
    inside = any(_real(path) in _real(out).parents for path in folders)
    folder = out if inside else None
    return Work(jobs, skipped, failed, _others(folders), output, force, folder)


def _find_jobs(inputs, out, output, failures):
    """Every picture of the inputs with its output; unreadable folders are added to
    `failures`."""
    missing = [path for path in inputs if not os.path.exists(path)]
    if missing:
        raise InputError(_listed(map(storage.missing, missing)))
    one_file = len(inputs) == 1 and not os.path.isdir(inputs[0])
    suffix = out.suffix.lower()
    to_file = suffix in images.SUFFIXES and not os.path.isdir(out)
    if to_file and not one_file:
        raise InputError(f"{out} is one picture, for several: name a folder as OUT")
    if one_file and suffix in _OTHER_SUFFIXES and not os.path.isdir(out):
        raise InputError(
            f"cannot write {out}: one of {' '.join(images.SUFFIXES)} was expected"
        )
    if not to_file and os.path.exists(out) and not os.path.isdir(out):
        raise InputError(
            f"{out} exists, and is neither a folder nor named as a picture"
        )

    jobs, inside = [], _real(out)
    for path in inputs:
        if not os.path.isdir(path):
            jobs.append(Job(path, out if to_file else out / _output_name(path, output)))
            continue
        for file in images.find_images(path, failures):
            # With OUT inside IN, the outputs of an earlier run are no inputs.
            if inside == _real(path) or inside not in _real(file).parents:
                name = _output_name(file, output)
                target = (out / file.relative_to(path)).with_name(name)
                jobs.append(Job(file, target))
    _check_targets(jobs)
    _check_formats(jobs, output)
    return jobs


def _others(folders):
    """The pictures in folders whose formats are not read."""
    return sorted(
        str(other)
        for folder in folders
        for other in images.walk_folder(folder).others
        if other.suffix.lower() in _OTHER_SUFFIXES
    )


def _output_name(path, output):
    known = path.suffix.lower() in images.SUFFIXES
    if output.format:
        return f"{path.stem if known else path.name}.{output.format}"
    return path.name if known else f"{path.name}.png"


def _check_formats(jobs, output):
    """Raises InputError for a format or a quality that the outputs cannot have."""
    kinds = {images.SUFFIXES.get(job.target.suffix.lower()) for job in jobs}
    if output.format and jobs and kinds != {images.SUFFIXES[f".{output.format}"]}:
        raise InputError(
            f"--format {output.format}, but {jobs[0].target} is named otherwise"
        )
    if output.quality and jobs and not kinds & {"JPEG", "WebP"}:
        raise InputError("--quality is for JPEG and WebP; other formats lose nothing")


def _check_targets(jobs):
    """Raises InputError for outputs that are inputs, each other's, folders, or where
    nothing may be written."""
    sources = {_real(job.source) for job in jobs}
    onto = [job.target for job in jobs if _real(job.target) in sources]
    if onto:
        raise InputError(_listed(onto, "is an input, too: give another OUT"))
    by_target = {}
    for job in jobs:
        by_target.setdefault(job.target, []).append(job.source)
    clashes = [
        f"{target} (from {' and '.join(map(str, sources))})"
        for target, sources in by_target.items()
        if len(sources) > 1
    ]
    if clashes:
        raise InputError(_listed(clashes, "is the output of several inputs"))
    folders = [job.target for job in jobs if os.path.isdir(job.target)]
    if folders:
        raise InputError(_listed(folders, "is a folder, where a picture would go"))
    for parent in dict.fromkeys(job.target.parent for job in jobs):
        storage.check_writable_folder(parent)


def _real(path):
    # As in all of this module, os.path and not pathlib: the latter raises for paths
    # without permission, in a circle of links, or too long.
    return pathlib.Path(os.path.realpath(path))


def _listed(items, what=""):
    """One line per offender, the first few of them."""
    lines = [f"{item} {what}".rstrip() for item in items]
    if len(lines) > SHOWN:
        lines[SHOWN:] = [f"and {len(lines) - SHOWN} more"]
    return "\n".join(lines)


@contextlib.contextmanager
def standard_streams(
    inputs: list[pathlib.Path], out: pathlib.Path, output: Output
) -> Iterator[tuple[list[pathlib.Path], pathlib.Path, str]]:
    """Yields `inputs` and `out` with files in the place of `-`, and what messages about
    these files should leave out of their paths.

    Standard input is read into a file before, and what was written for standard output
    is copied there afterwards. The files are called "standard input" and "standard
    output", in a folder of their own that is removed.

    Args:
      inputs, out: as of `plan_files`.
      output: its `format` is that of standard output, PNG by default.

    Raises:
      InputError: there is nothing on standard input, or nowhere to write to.
    """
    if STREAM not in (*inputs, out):
        yield inputs, out, ""
        return
    if out == STREAM and (len(inputs) > 1 or os.path.isdir(inputs[0])):
        raise InputError("standard output takes one picture: name a folder as OUT")
    if out == STREAM and sys.stdout.isatty():
        raise InputError("standard output is a terminal: > FILE was expected")
    if inputs.count(STREAM) > 1:
        raise InputError("- is given twice, but there is one standard input")
    with tempfile.TemporaryDirectory(prefix="btsrn-") as name:
        source = pathlib.Path(name, "standard input")
        if STREAM in inputs:
            with source.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
            if not source.stat().st_size:
                raise InputError("standard input is empty: a picture was expected")
        target = pathlib.Path(name, f"standard output.{output.format or 'png'}")
        given = [source if path == STREAM else path for path in inputs]
        yield given, target if out == STREAM else out, f"{name}{os.sep}"
        if out == STREAM and target.exists():
            with target.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.flush()
