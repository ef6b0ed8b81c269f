"""`btsrn upscale`: one picture, several, or folders of them, to files.

What goes where is planned, and refused, before a model is loaded.
"""

import dataclasses
import os
import pathlib
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from btsrn_jax import images, storage
from btsrn_jax.errors import InputError, first_line
from btsrn_jax.inference.photo import upscale_picture
from btsrn_jax.progress import progress_bar

# Other pictures. As OUT these are mistakes, not folders to be made. In an input folder
# they are passed over, and a line says so.
_OTHER_SUFFIXES = (".avif", ".gif", ".heic", ".jp2", ".jxl", ".psd", ".svg", ".tga")
_SHOWN = 8  # offenders listed by name before "and 12 more"


class Job(NamedTuple):
    """One picture to be made: `megapixels`, of the output, is known once the header of
    the source has been read."""

    source: pathlib.Path
    target: pathlib.Path
    megapixels: float = 0.0


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

    folder: pathlib.Path | None = None
    """The folder of the outputs if it lies inside a folder of the inputs: it is marked,
    or the next command would take the outputs for inputs."""


def plan_files(
    inputs: list[pathlib.Path],
    out: pathlib.Path,
    *,
    force: bool = False,
    resume: bool = False,
) -> Work:
    """Finds every input and its output; opens no picture.

    Args:
      inputs: picture files and folders; folders keep their tree.
      out: a picture file, if one file goes in and `out` has a picture's suffix. Else a
        folder, in which outputs keep the names of their inputs.
      force: replace outputs that exist.
      resume: skip them.

    Raises InputError for usage that cannot be meant: each offender is named.
    """
    if force and resume:
        raise InputError(
            "--force replaces existing outputs, --resume skips them: give one of them"
        )
    failures = []
    inputs, out = [pathlib.Path(path) for path in inputs], pathlib.Path(out)
    jobs = _find_jobs(inputs, out, failures)
    existing = [job.target for job in jobs if os.path.exists(job.target)]
    if existing and not force and not resume:
        raise InputError(_listed("exists (--force or --resume)", existing))
    if resume:
        jobs = [job for job in jobs if not os.path.exists(job.target)]
    skipped = len(existing) if resume else 0
    folders = [path for path in inputs if os.path.isdir(path)]
    inside = any(_real(path) in _real(out).parents for path in folders)
    folder = out if inside else None
    messages = [str(error) for error in failures]
    return Work(jobs, skipped, messages, _others(inputs), folder)


def upscale_files(
    work: Work,
    upscale: Callable[..., np.ndarray],
    scale: int,
    log: Callable[[str], None] = print,
) -> int:
    """Upscales picture files.

    Args:
      work: of `plan_files`.
      upscale: upscale(lr, progress): (h, w, 3) uint8 or uint16 -> (s h, s w, 3) of the
        same dtype. It calls progress(done, total), both in pixels, as it goes on. It
        may raise InputError or MemoryError for a picture that it cannot upscale.
      scale: s, a whole number.
      log: takes one line per file, and a summary where there are several.

    Returns:
      The exit code: 0, or 1 where a picture failed; the others are done nevertheless.
    """

    def say(line):
        log(_printable(line))

    failures = list(work.failures)
    jobs = _measured(work.jobs, scale, failures)
    if others := work.passed_over:
        more = f" and {len(others) - _SHOWN} more" * (len(others) > _SHOWN)
        say(f"passed over, of other formats: {', '.join(others[:_SHOWN])}{more}")
    for failure in failures:
        say(f"failed: {failure}")

    if jobs and work.folder is not None:
        images.mark_outputs(work.folder)
    written, bar = 0, _bar(sum(job.megapixels for job in jobs))
    screen = sys.stderr.isatty()
    try:
        with bar:
            for job in jobs:
                end = bar.n + job.megapixels
                try:
                    line = _upscale_one(job, upscale, scale, bar)
                    written += 1
                except (InputError, OSError, MemoryError) as error:
                    failures.append(_reason(job, error))
                    line = f"failed: {failures[-1]}"
                bar.update(end - bar.n)
                with tqdm.external_write_mode() if screen else nullcontext():
                    say(line)
    except KeyboardInterrupt:
        say(f"interrupted after {written} of {len(jobs)}; --resume does the rest")
        raise
    if work.skipped or written + len(failures) > 1:
        say(f"{written} written, {work.skipped} skipped, {len(failures)} failed")
    return 1 if failures else 0


def _upscale_one(job, upscale, scale, bar):
    """Reads, upscales and writes one picture; returns the line that tells of it."""
    start, begun = bar.n, time.monotonic()
    bar.set_description(job.source.name, refresh=False)

    def progress(share):
        bar.update(start + share * job.megapixels - bar.n)

    picture = images.read_picture(job.source)
    h, w = (scale * side for side in picture.pixels.shape[:2])
    images.check_writable(job.target, h, w, picture)
    large = upscale_picture(picture, upscale, scale, progress)
    lost = images.write_picture(job.target, large)
    had = {
        "16-bit": picture.pixels.dtype == np.uint16,
        "alpha": picture.alpha is not None,
        "ICC profile": picture.icc is not None,
        "EXIF": picture.exif is not None,
    }
    kept = [
        f"{name} kept"
        for name, present in had.items()
        if present and not any(phrase.startswith(name) for phrase in lost)
    ]
    seconds = time.monotonic() - begun
    about = [f"{w} x {h}", *picture.notes, *kept, *lost, f"{seconds:.1f} s"]
    return f"{job.source} -> {job.target}: {', '.join(about)}"


def _find_jobs(inputs, out, failures):
    """Every picture of the inputs with its output; unreadable folders are added to
    `failures`."""
    missing = [path for path in inputs if not os.path.exists(path)]
    if missing:  # or within a folder that may not be entered
        raise InputError(_listed("is no file or folder that can be seen", missing))
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
            jobs.append(Job(path, out if to_file else out / _output_name(path)))
            continue
        for file in images.find_images(path, failures):
            # With OUT inside IN, the outputs of an earlier run are no inputs.
            if inside == _real(path) or inside not in _real(file).parents:
                target = (out / file.relative_to(path)).with_name(_output_name(file))
                jobs.append(Job(file, target))
    _check_targets(jobs)
    return jobs


def _others(inputs):
    """The pictures in the folders whose formats are not read."""
    return sorted(
        str(other)
        for path in inputs
        if os.path.isdir(path)
        for other in images.walk_folder(path).others
        if other.suffix.lower() in _OTHER_SUFFIXES
    )


def _output_name(path):
    known = path.suffix.lower() in images.SUFFIXES
    return path.name if known else f"{path.name}.png"


def _check_targets(jobs):
    """Raises InputError for outputs that are inputs, each other's, folders, or where
    nothing may be written."""
    sources = {_real(job.source) for job in jobs}
    onto = [job.target for job in jobs if _real(job.target) in sources]
    if onto:
        raise InputError(_listed("is an input, too: give another OUT", onto))
    by_target = {}
    for job in jobs:
        by_target.setdefault(job.target, []).append(job.source)
    clashes = [
        f"{target} (from {' and '.join(map(str, sources))})"
        for target, sources in by_target.items()
        if len(sources) > 1
    ]
    if clashes:
        raise InputError(_listed("is the output of several inputs", clashes))
    folders = [job.target for job in jobs if os.path.isdir(job.target)]
    if folders:
        raise InputError(_listed("is a folder, where a picture would go", folders))
    for parent in dict.fromkeys(job.target.parent for job in jobs):
        storage.check_writable_folder(parent)


def _measured(jobs, scale, failures):
    """The jobs whose headers can be read and whose formats can hold the output; what
    is wrong with the others is added to `failures`."""
    measured = []
    for job in jobs:
        try:
            h, w = images.image_size(job.source)
            images.check_writable(job.target, scale * h, scale * w)
            measured.append(job._replace(megapixels=scale**2 * h * w / 1e6))
        except InputError as error:
            failures.append(_reason(job, error))
    return measured


def _bar(megapixels):
    """Shows megapixels written, per second, and the time left. Elsewhere than on a
    terminal the lines about files will do, unless one file takes long."""
    return progress_bar(
        total=megapixels,
        delay=0 if sys.stderr.isatty() else 5,
        bar_format="{desc}{percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} MP, "
        "{rate_noinv_fmt}, {remaining} left",
        unit="MP",
        smoothing=0.1,
    )


def _reason(job, error):
    """One line that names the file."""
    text = getattr(error, "strerror", None) or first_line(error)
    text = "out of memory" if isinstance(error, MemoryError) else text
    named = str(job.source) in text or str(job.target) in text
    return text if named else f"{job.source}: {text}"


def _printable(line):
    """One line that a terminal can show, whatever the names of files hold."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def _real(path):
    # As in all of this module, os.path and not pathlib: the latter raises for paths
    # without permission, in a circle of links, or too long.
    return pathlib.Path(os.path.realpath(path))


def _listed(what, items):
    """One line per offender, the first few of them."""
    lines = [f"{item} {what}" for item in items[:_SHOWN]]
    if len(items) > _SHOWN:
        lines.append(f"and {len(items) - _SHOWN} more")
    return "\n".join(lines)
