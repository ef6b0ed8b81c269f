"""Photo in, photo out: `btsrn upscale` for one file, several, or a tree of them."""

import os
import pathlib
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from tqdm import tqdm

from btsrn_jax import images
from btsrn_jax.errors import InputError
from btsrn_jax.progress import progress_bar

# Other pictures: as OUT these are mistakes, not folders to be made; in an input folder
# they are passed over, and that is said.
_OTHER_SUFFIXES = (".avif", ".gif", ".heic", ".jp2", ".jxl", ".psd", ".svg", ".tga")
_SHOWN = 8  # offenders listed by name before "and 12 more"


class Job(NamedTuple):
    """One image to be made; `megapixels` (of the output) once its header is read."""

    source: pathlib.Path
    target: pathlib.Path
    megapixels: float = 0.0


def upscale_files(
    inputs: list[pathlib.Path],
    out: pathlib.Path,
    enlarge: Callable,
    scale: int,
    *,
    force: bool = False,
    resume: bool = False,
    log: Callable[[str], None] = print,
) -> int:
    """Enlarges image files, and trees of them, into `out`.

    Args:
      inputs: image files and folders; folders keep their tree.
      out: an image file where one file goes in and it has an image's suffix; else a
        folder, in which outputs keep the names of their inputs.
      enlarge: enlarge(lr, progress): (h, w, 3) uint8 or uint16 -> (s h, s w, 3) of the
        same dtype; calls progress(done, total), both in pixels, as it goes on. It may
        raise InputError or MemoryError for an image that it cannot enlarge.
      scale: s, a whole number. force: replace existing outputs. resume: skip
        them. log: takes one line per file, and a summary of several.

    Returns:
      The exit code: 0, or 1 where an image failed; the others are done nevertheless.

    Raises InputError for usage that cannot be meant, before anything is read.
    """
    if force and resume:
        raise InputError("--force replaces existing outputs, --resume skips them: one")
    failures, say = [], lambda line: log(_printable(line))
    jobs = _plan([pathlib.Path(p) for p in inputs], pathlib.Path(out), failures)
    existing = [job.target for job in jobs if os.path.exists(job.target)]
    if existing and not force and not resume:
        raise InputError(_listed("exists (--force or --resume)", existing))
    if resume:
        jobs = [job for job in jobs if not os.path.exists(job.target)]
    jobs = _measured(jobs, scale, failures)
    for line in _passed_over(inputs):
        say(line)
    for failure in failures:
        say(f"failed: {failure}")

    written, bar = 0, _bar(sum(job.megapixels for job in jobs))
    screen = sys.stderr.isatty()
    try:
        with bar:
            for job in jobs:
                end = bar.n + job.megapixels
                try:
                    line = _upscale_one(job, enlarge, scale, bar)
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
    skipped = resume * len(existing)
    if skipped or written + len(failures) > 1:
        say(f"{written} written, {skipped} skipped, {len(failures)} failed")
    return 1 if failures else 0


def enlarge_picture(
    picture: images.Picture,
    enlarge: Callable,
    scale: int,
    progress: Callable[[float], None] | None = None,
) -> images.Picture:
    """A picture enlarged with all it has; `progress` takes the share that is done.

    Grey goes in as three equal channels, and their mean comes out. Alpha is enlarged as
    a grey image by the same `enlarge`, so that outlines are as sharp as what they
    enclose; but where it is constant around a pixel, it stays exactly that: a network
    may be off by one there, and opaque would become almost opaque.
    """
    pixels, alpha = picture.pixels, picture.alpha
    varies = alpha is not None and alpha.min() != alpha.max()

    def share(first, of):
        if progress is None:
            return None
        return lambda done, total: progress((first + done / max(total, 1)) / of)

    if alpha is not None:
        pixels = bleed(pixels, alpha)
    pixels = _enlarge_channels(pixels, enlarge, share(0, 1 + varies))
    if alpha is not None:
        large = alpha.repeat(scale, axis=0).repeat(scale, axis=1)
        if varies:
            around = {"size": 5, "mode": "nearest"}  # as far as bicubic looks
            least = ndimage.minimum_filter(alpha, **around)
            flat = least == ndimage.maximum_filter(alpha, **around)
            flat = flat.repeat(scale, axis=0).repeat(scale, axis=1)
            soft = _enlarge_channels(alpha[..., None], enlarge, share(1, 2))[..., 0]
            large = np.where(flat, large, soft)
        alpha = large
    return images.Picture(pixels, alpha, picture.icc, picture.exif, picture.notes)


def bleed(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Gives each fully transparent pixel the colour of the nearest visible one.

    What is stored there, mostly black or white, is seen by nobody, but an enlarged edge
    mixes it with its neighbours: the dark or bright fringes of cut-out images.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return pixels
    nearest = ndimage.distance_transform_edt(
        hidden, return_distances=False, return_indices=True
    )
    return pixels[tuple(nearest)]


def _enlarge_channels(x, enlarge, progress):
    """(h, w, 1 or 3) -> (s h, s w, 1 or 3)."""
    if x.shape[2] == 3:
        return enlarge(np.ascontiguousarray(x), progress)
    y = enlarge(np.repeat(x, 3, axis=2), progress)
    total = y.sum(axis=2, keepdims=True, dtype=np.uint32)
    return ((total + 1) // 3).astype(x.dtype)  # a third, rounded: no halves occur


def _upscale_one(job, enlarge, scale, bar):
    """Reads, enlarges, writes; the line that tells of it."""
    start, begun = bar.n, time.monotonic()
    bar.set_description(job.source.name, refresh=False)

    def progress(share):
        bar.update(start + share * job.megapixels - bar.n)

    picture = images.read_picture(job.source)
    h, w = (scale * side for side in picture.pixels.shape[:2])
    images.check_writable(job.target, h, w, picture)
    large = enlarge_picture(picture, enlarge, scale, progress)
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


def _plan(inputs, out, failures):
    """Every image of the inputs with its output; unreadable folders are `failures`."""
    missing = [path for path in inputs if not os.path.exists(path)]
    if missing:  # or within a folder that may not be entered
        raise InputError(_listed("is no file or folder that can be seen", missing))
    one_file = len(inputs) == 1 and not os.path.isdir(inputs[0])
    suffix = out.suffix.lower()
    to_file = suffix in images.SUFFIXES and not os.path.isdir(out)
    if to_file and not one_file:
        raise InputError(f"{out} is one image, for several: name a folder as output")
    if one_file and suffix in _OTHER_SUFFIXES and not os.path.isdir(out):
        raise InputError(f"{out}: written are {' '.join(images.SUFFIXES)}")
    if not to_file and os.path.exists(out) and not os.path.isdir(out):
        raise InputError(f"{out} is no folder, and no image by its suffix")

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


def _passed_over(inputs):
    """A line about pictures in the folders that are of other formats, if there are."""
    others = sorted(
        os.path.join(parent, name)
        for path in inputs
        for parent, _, names in os.walk(path)
        for name in names
        if pathlib.Path(name).suffix.lower() in _OTHER_SUFFIXES
    )
    if others:
        more = f" and {len(others) - _SHOWN} more" * (len(others) > _SHOWN)
        yield f"passed over, of other formats: {', '.join(others[:_SHOWN])}{more}"


def _output_name(path):
    known = path.suffix.lower() in images.SUFFIXES
    return path.name if known else f"{path.name}.png"


def _check_targets(jobs):
    """InputError for outputs that are inputs, each other's, folders, or forbidden."""
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
        raise InputError(_listed("is a folder, where an image would go", folders))
    closed = {}
    for parent in dict.fromkeys(job.target.parent for job in jobs):
        while not os.path.exists(parent):
            parent = parent.parent
        if not os.path.isdir(parent) or not os.access(parent, os.W_OK | os.X_OK):
            closed[parent] = None
    if closed:
        raise InputError(_listed("is no folder that may be written to", list(closed)))


def _measured(jobs, scale, failures):
    """The jobs whose headers can be read and whose formats can hold the output."""
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
    """Megapixels written, per second, and the time left. Elsewhere than on a terminal
    the lines about files will do, unless one file takes long."""
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
    text = error.strerror if isinstance(error, OSError) else str(error)
    text = "out of memory" if isinstance(error, MemoryError) else text or str(error)
    text = (text.splitlines() or [type(error).__name__])[0]
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
