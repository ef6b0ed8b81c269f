"""What a run measures: metrics.jsonl, pictures, and a tracker."""

import math
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import jax
import numpy as np

from btsrn_jax import mesh, storage
from btsrn_jax.data import Batches
from btsrn_jax.errors import Failure, first_line
from btsrn_jax.progress import TrainingProgress, logger
from btsrn_jax.training import snapshots
from btsrn_jax.training.preemption import Stopped
from btsrn_jax.training.trackers import TrackedRun, Tracking

METRICS = "metrics.jsonl"
UPLOAD_SECONDS = 10.0
MAX_SKIPPED = 20  # updates in a row that were not finite, then the run has failed


class Diverged(Failure):
    """The loss or its gradient stayed non-finite."""


class MetricsLog:
    """Writes what a run measures, each step once, and passes it on to a tracker.

    On a continued run, lines after `start` are cut off. Of several processes one
    writes. Nothing can be appended to an object in a bucket: there the files grow in a
    folder of this machine, and copies of them travel every `UPLOAD_SECONDS`. A context,
    which tells the tracker whether the run failed.

    Args:
      workdir: the run directory.
      start: the step from which the run continues.
      writes: False in every process but the first.
      tracker: one of `trackers.TRACKERS`.
      config: what config.json holds, for the tracker.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        start: int = 0,
        writes: bool = True,
        tracker: str = "tensorboard",
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self._home = storage.path(workdir)
        lines = read_metrics(self._home / METRICS)
        self._last = {}
        for line in lines:
            if line["step"] == start:
                self._last |= line
        mesh.barrier()  # all have read
        self._file = None
        if writes:
            self._open([line for line in lines if line["step"] <= start])
            name = os.path.basename(os.path.abspath(os.fspath(workdir)))
            run = TrackedRun(name, self._home, self._folder, config or {}, start)
            self._config, self._tracking = config or {}, Tracking(tracker, run)

    def _open(self, lines):
        self._folder = self._home
        if storage.in_bucket(self._home):
            self._temporary = tempfile.TemporaryDirectory()
            self._folder = pathlib.Path(self._temporary.name)
        text = "".join(storage.to_json(line) + "\n" for line in lines)
        storage.write(self._folder / METRICS, text)
        self._file = (self._folder / METRICS).open("r+b", buffering=0)
        self._file.seek(0, 2)
        self._next_upload = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.close(failed=not isinstance(error, Stopped | None))

    def last(self, step: int) -> dict[str, float]:
        """Returns what is known of a step if it is the latest one; else {}."""
        return self._last if self._last.get("step") == step else {}

    def write(self, step: int, **values: float) -> None:
        """Writes metrics of a step to the file at once; more of the same step joins its
        line, also where later steps follow it. A value that is not finite is left out:
        JSON and trackers have no place for it."""
        values = {name: x for name, x in values.items() if math.isfinite(x)}
        if not values:
            return
        late = step <= self._last.get("step", -1)
        line = {"step": step, "time": round(time.time(), 3)} | values
        if not late:
            self._last = line
        elif step == self._last["step"]:
            self._last |= values
        if self._file is None:
            return
        if late:
            self._amend(step, line, values)
        else:
            self._file.write(storage.to_json(line).encode() + b"\n")
        self._tracking.log(step, values)
        if self._folder != self._home and time.monotonic() > self._next_upload:
            self.flush()

    def _amend(self, step, line, values):
        """Adds values to the line of a step, or a line where it has none."""
        self._file.seek(0)
        lines = self._file.read().splitlines(keepends=True)
        at = len(lines)
        while at and storage.from_json(lines[at - 1])["step"] >= step:
            at -= 1
        rest = lines[at:]
        if rest and (known := storage.from_json(rest[0]))["step"] == step:
            line, rest = known | values, rest[1:]
        # One write over all that follows, so that a kill leaves whole lines.
        self._file.seek(sum(map(len, lines[:at])))
        self._file.write(storage.to_json(line).encode() + b"\n" + b"".join(rest))

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Writes a picture of a validation; arguments as of `snapshots.write`. One that
        cannot be written is passed over, with a line."""
        if self._file is None:
            return
        try:
            snapshots.write(self._home, step, name, image)
        except Exception as error:  # of many types in a bucket; it is only a picture
            reason = first_line(error)
            logger.warning(f"a picture of step {step} is left out: {reason}")
        self._tracking.picture(step, name, image)

    def flush(self) -> None:
        """Returns when all is on the disk, or in the bucket.

        To be called before a checkpoint, so that a run which continues from it lacks no
        line.
        """
        if self._file is None:
            return
        if self._folder == self._home:
            os.fsync(self._file.fileno())
            return
        self._tracking.flush()
        for file in storage.files(self._folder):
            name = file.relative_to(self._folder)
            storage.write(self._home / name, file.read_bytes())
        self._next_upload = time.monotonic() + UPLOAD_SECONDS

    def close(self, failed: bool = False) -> None:
        """Ends the tracker, flushes and closes the files.

        Args:
          failed: False for a run that is done, or was stopped and can be continued.
        """
        if self._file is not None:
            lines = read_metrics(self._folder / METRICS)
            self._tracking.finish(final_figures(lines, self._config), failed)
            self.flush()
            self._file.close()


class Recorder:
    """Records the metrics of every step, one step late: the device never waits.

    Every `log_every`th step and the last one are logged: the file and the console get
    the same values. Of these the loss is the mean since the step that was logged
    before, and the rate that of the same steps.

    Args:
      log: where they are written.
      progress: where they are shown.
      batches: asked for the time that steps waited for them.
      start: the step from which the run continues.
      log_every, last: steps.
      seconds: the time of training so far, pauses left out.
    """

    def __init__(
        self,
        log: MetricsLog,
        progress: TrainingProgress,
        batches: Batches,
        start: int,
        log_every: int,
        last: int,
        seconds: Callable[[], float],
    ) -> None:
        self._log, self._progress, self._batches = log, progress, batches
        self._log_every, self._last = log_every, last
        self._losses, self._pending = [], None
        self._seconds = seconds
        self._logged = start, seconds()

    def add(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        """Records the step before; takes the metrics of this one, still computed."""
        self.flush()
        self._pending = step, metrics

    def flush(self) -> None:
        """Records what is pending; waits for it to be computed."""
        pending, self._pending = self._pending, None
        if pending:
            self._record(*pending)

    def _record(self, step, metrics):
        values = {name: float(value) for name, value in metrics.items()}
        if values["skipped"] >= MAX_SKIPPED:
            raise Diverged(
                f"the loss or its gradient was not finite for {MAX_SKIPPED} steps up to"
                f" step {step}; the last good checkpoint is intact. A lower"
                " train.learning_rate or a train.clip_norm may help"
            )
        self._losses.append(values["loss"])
        if step % self._log_every == 0 or step == self._last:
            finite = [loss for loss in self._losses if math.isfinite(loss)]
            values["loss"] = float(np.mean(np.float32(finite))) if finite else math.nan
            self._losses = []
            more = {
                "steps_per_second": self._rate(step),
                "data_wait": self._batches.share_waited(),
            }
            values |= {name: x for name, x in more.items() if x is not None}
            self._log.write(step, **values)
            self._progress.show(step, values)
        self._progress.advance(step)

    def _rate(self, step):
        """Returns the steps a second since the last logged step, pauses left out."""
        (before, begun), now = self._logged, self._seconds()
        self._logged = step, now
        return (step - before) / (now - begun) if now > begun else None


def read_metrics(path: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the lines of a metrics.jsonl, one a step.

    Lines that are damaged or half-written (a killed run, a bad disk) are dropped, and
    so are values that are not finite, which older runs have. Without a file there are
    none.

    Raises:
      OSError: the file cannot be read.
    """
    lines = {}
    if storage.is_there(path):
        for text in path.read_bytes().decode(errors="replace").splitlines():
            try:
                line = storage.from_json(text)
                line = {name: x for name, x in line.items() if x is not None}
                lines.setdefault(int(line["step"]), line)
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
    return list(lines.values())


def final_figures(
    lines: Sequence[Mapping[str, Any]], config: Mapping[str, Any]
) -> dict[str, float]:
    """Returns the best step of a run and its figures, as best/step, best/psnr_ntire and
    so on; {} where nothing was validated.

    Args:
      lines: of metrics.jsonl.
      config: as config.json holds it.
    """
    main = f"psnr_{config['eval']['protocol']}" if "eval" in config else ""

    def rank(line):
        return line.get("score", line.get(main, -math.inf)), line["step"]

    best = max(lines, key=rank, default={})
    if not best or rank(best)[0] == -math.inf:
        return {}
    figures = ("step", "score", "psnr_", "ssim_")
    return {f"best/{name}": x for name, x in best.items() if name.startswith(figures)}
