"""`btsrn upscale`: one picture, several, or folders of them, to files."""

import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
from tqdm import tqdm

from btsrn_jax import images
from btsrn_jax.config import SCALES
from btsrn_jax.errors import InputError, first_line
from btsrn_jax.inference.jobs import SHOWN, Job, Work
from btsrn_jax.inference.models import Model, suited_photo_model
from btsrn_jax.inference.photo import resize_picture, upscale_picture
from btsrn_jax.inference.weights import is_photo_model, released_models
from btsrn_jax.progress import logger, progress_bar

_WORTH_SAYING = 5  # seconds: a shorter wait is not announced


def upscale_files(
    work: Work,
    open_model: Callable[[int | None, images.JpegQuality | None], Model],
    scale: int | None = None,
    log: Callable[[str], None] = print,
    tell_model: bool = False,
) -> int:
    """Upscales picture files.

    Args:
      work: of `plan_files`.
      open_model: open_model(scale, quality) returns a model of that scale if there is a
        choice, else the one that there is; of None, the one that is taken by default.
        The quality is that of the picture if it is a JPEG, else None. It is called for
        every picture. The model may raise InputError or MemoryError for a picture that
        it cannot upscale.
      scale: of the model for all pictures; None for the default, or, where the size of
        the output is given, for the next scale that reaches it.
      log: takes one line per file, and a summary where there are several.
      tell_model: True if the line of each file names its model.

    Returns:
      The exit code: 0, or 1 where a picture failed; the others are done nevertheless.

    Raises:
      KeyboardInterrupt: with a line that says how far the work was.
    """

    def say(line):
        log(_printable(line))

    failures = list(work.failures)
    jobs = _measured(work, open_model, scale, failures)
    if others := work.passed_over:
        more = f" and {len(others) - SHOWN} more" * (len(others) > SHOWN)
        say(f"passed over, of other formats: {', '.join(others[:SHOWN])}{more}")
        if any(name.lower().endswith((".heic", ".heif")) for name in others):
            say("pip install 'btsrn-jax[heif]' to read HEIC")
    for failure in failures:
        say(f"failed: {failure}")

    if jobs and work.folder is not None:
        images.mark_outputs(work.folder)
    written, progress = 0, _Progress(jobs)
    screen = sys.stderr.isatty()
    try:
        for job in jobs:
            progress.begin(job)
            try:
                model = open_model(job.scale, job.quality)
                how = _about_model(job, model, tell_model)
                line = _upscale_one(job, model, work, progress, how)
                written += 1
            except (InputError, OSError, MemoryError) as error:
                failures.append(_reason(job, error))
                line = f"failed: {failures[-1]}"
            progress.end()
            with tqdm.external_write_mode() if screen else nullcontext():
                say(line)
    except KeyboardInterrupt:
        rest = f" after {written} of {len(jobs)}; --resume does the rest"
        raise KeyboardInterrupt("interrupted" + rest * (len(jobs) > 1)) from None
    finally:
        progress.close()
    if work.skipped or written + len(failures) > 1:
        say(f"{written} written, {work.skipped} skipped, {len(failures)} failed")
    return 1 if failures else 0


def _about_model(job, model, tell_model):
    """Returns phrases: the model of a picture, or which one would suit it better."""
    if tell_model:
        quality = [str(job.quality)] if job.quality else []
        return [*quality, f"by {model.name}"]
    better = suited_photo_model(model.scale, job.quality)
    if not better or is_photo_model(model.name) or model.name not in released_models():
        return []  # of a model of one's own it is not known what it is for
    return [f"{job.quality}: {better} would suit it"]


def _upscale_one(job, model, work, progress, how):
    """Reads, upscales and writes one picture; returns the line that tells of it."""
    begun = time.monotonic()
    picture = images.read_picture(job.source)
    h, w = job.size
    images.check_writable(job.target, h, w, picture)
    _check_free(job.target, work.force)
    large = upscale_picture(picture, model.upscale, model.scale, progress.update)
    large = resize_picture(large, job.size)
    _check_free(job.target, work.force)
    lost = images.write_picture(job.target, large, work.output.quality)
    had = {
        "16-bit": picture.pixels.dtype == np.uint16,
        "alpha": picture.alpha is not None,
        picture.colours_name: picture.icc is not None or picture.colours,
        "EXIF": picture.exif is not None,
        "XMP": picture.xmp is not None,
        "IPTC": picture.iptc is not None,
        "text": picture.text,
    }
    kept = [
        f"{name} kept"
        for name, present in had.items()
        if present and not any(phrase.startswith(name) for phrase in lost)
    ]
    seconds = time.monotonic() - begun
    about = [f"{w} x {h}", *how, *picture.notes, *kept, *lost, f"{seconds:.1f} s"]
    return f"{job.source} -> {job.target}: {', '.join(about)}"


def _check_free(target, force):
    """Raises InputError for an output that was not there when the work was planned."""
    if not force and os.path.exists(target):
        raise InputError(f"{target} exists by now: another process wrote it, it stays")


def _measured(work, open_model, scale, failures):
    """The jobs whose headers can be read and whose formats can hold the output; what
    is wrong with the others is added to `failures`."""
    measured = []
    for job in work.jobs:
        try:
            measured.append(_measure(job, work.output, open_model, scale))
        except InputError as error:
            failures.append(_reason(job, error))
    return measured


def _measure(job, output, open_model, scale):
    """The job with what the header of its source decides."""
    h, w = images.image_size(job.source)
    factor = output.factor_of(h, w)
    if factor is not None and factor <= 1:
        raise InputError(f"it has {w} x {h} pixels: that would not be enlarging")
    if scale is None and factor is not None:
        scale = next((s for s in SCALES if s >= factor), max(SCALES))
    quality = images.jpeg_quality(job.source)
    scale = open_model(scale, quality).scale
    if factor is not None and factor > scale:
        raise InputError(
            f"{w} x {h} pixels, {factor:.3g} times larger: at most {scale} times"
        )
    size = output.size_of(h, w) or (scale * h, scale * w)
    images.check_writable(job.target, *size)
    known = {"scale": scale, "size": size, "quality": quality}
    return job._replace(megapixels=h * w / 1e6, **known)


class _Progress:
    """Shows which picture is done, how far all of them are, and the time left.

    `[2/6] name 43 %, 0:11 left`, and before it, where that is long, how long all will
    take. Both are known from the second tile on: the first waits for the compiler.
    Elsewhere than on a terminal the lines about files will do, unless one takes long.
    """

    def __init__(self, jobs: list[Job]) -> None:
        self._count, self._number = len(jobs), 0
        self._total = sum(job.megapixels for job in jobs)
        self._done = 0.0  # megapixels of the pictures that are finished
        self._first = None  # (seconds, megapixels) when the first tile was done
        self._bar = progress_bar(
            total=self._total,
            delay=1e-9 if sys.stderr.isatty() else _WORTH_SAYING,
            bar_format="{desc} |{bar}|",
            leave=False,
        )
        self._announced = False

    def begin(self, job: Job) -> None:
        self._job, self._number = job, self._number + 1

    def update(self, share: float) -> None:
        """Notes the share that is done of the picture."""
        now, done = time.monotonic(), self._done + share * self._job.megapixels
        left = None
        if self._first is None:
            self._first = now, done
        elif done > self._first[1]:
            rate = (now - self._first[0]) / (done - self._first[1])
            left = rate * (self._total - done)
            self._announce(rate * self._total)
        name = self._job.source.name
        name = name if len(name) <= 40 else f"{name[:18]}...{name[-18:]}"
        percent = 100 * done / self._total
        time_left = "" if left is None else f", {_clock(left)} left"
        self._bar.set_description_str(
            f"[{self._number}/{self._count}] {name} {percent:.0f} %{time_left}", False
        )
        self._bar.update(done - self._bar.n)

    def _announce(self, seconds):
        """Logs once how long all will take, if it is long."""
        if seconds > _WORTH_SAYING and not self._announced:
            long = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
            logger.info(
                f"{self._total:.1f} megapixels at x{self._job.scale}: about {long}"
            )
        self._announced = True

    def end(self) -> None:
        """Notes that the picture is done, or failed."""
        self._done += self._job.megapixels

    def close(self) -> None:
        self._bar.close()


def _clock(seconds):
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{seconds:02}"
    return f"{minutes}:{seconds:02}"


def _reason(job, error):
    """One line that names the file."""
    text = getattr(error, "strerror", None) or first_line(error)
    text = "out of memory" if isinstance(error, MemoryError) else text
    named = str(job.source) in text or str(job.target) in text
    return text if named else f"{job.source}: {text}"


def _printable(line):
    """One line that a terminal can show, whatever the names of files hold."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
