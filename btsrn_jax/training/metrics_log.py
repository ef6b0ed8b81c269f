"""What a run measures: metrics.jsonl, TensorBoard events."""

import math
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from btsrn_jax import mesh, storage
from btsrn_jax.data import Batches
from btsrn_jax.errors import Failure
from btsrn_jax.progress import TrainingProgress

METRICS = "metrics.jsonl"
UPLOAD_SECONDS = 10.0
MAX_SKIPPED = 20  # updates in a row that were not finite, then the run has failed


class Diverged(Failure):
    """The loss or its gradient stayed non-finite."""


class MetricsLog:
    """Writes what a run measures, each step once.

    On a continued run, lines after `start` are cut off. Of several processes one
    writes. Nothing can be appended to an object in a bucket: there the files grow in a
    folder of this machine, and copies of them travel every `UPLOAD_SECONDS`.

    Args:
      workdir: the run directory.
      start: the step from which the run continues.
      writes: False in every process but the first.
    """

    def __init__(
        self, workdir: pathlib.Path, start: int = 0, writes: bool = True
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
            self._open(start, [line for line in lines if line["step"] <= start])

    def _open(self, start, lines):
        self._folder = self._home
        if storage.in_bucket(self._home):
            self._temporary = tempfile.TemporaryDirectory()
            self._folder = pathlib.Path(self._temporary.name)
        text = "".join(storage.to_json(line) + "\n" for line in lines)
        storage.write(self._folder / METRICS, text)
        self._file = (self._folder / METRICS).open("r+b", buffering=0)
        self._file.seek(0, 2)
        # Imported here: where PyTorch is installed, tensorboardX loads it, 0.5 GB.
        from tensorboardX import SummaryWriter

        self._events = SummaryWriter(str(self._folder), purge_step=start + 1)
        self.flush()

    def last(self, step: int) -> dict[str, float]:
        """Returns what is known of a step if it is the latest one; else {}."""
        return self._last if self._last.get("step") == step else {}

    def write(self, step: int, **values: float) -> None:
        """Writes metrics of a step to the file at once; more of the same step joins its
        line. A value that is not finite is left out: JSON and TensorBoard have no place
        for it."""
        values = {name: x for name, x in values.items() if math.isfinite(x)}
        if not values:
            return
        if self._last.get("step") == step:
            start, line = b", ", values
            back = 2  # over the closing bracket: one write, so that no kill halves it
        else:
            start, back = b"{", 0
            line = {"step": step, "time": round(time.time(), 3), **values}
        self._last = self.last(step) | line
        if self._file is None:
            return
        self._file.seek(-back, 2)
        self._file.write(start + storage.to_json(line)[1:].encode() + b"\n")
        for name, value in values.items():
            self._events.add_scalar(name, value, step)
        self._events.flush()
        if self._folder != self._home and time.monotonic() > self._next_upload:
            self.flush()

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
        for file in self._folder.iterdir():
            storage.write(self._home / file.name, file.read_bytes())
        self._next_upload = time.monotonic() + UPLOAD_SECONDS

    def close(self) -> None:
        """Flushes and closes the files."""
        if self._file is not None:
            self._events.close()
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
