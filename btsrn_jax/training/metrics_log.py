"""metrics.jsonl, TensorBoard events, progress on the console."""

import json
import os
import pathlib
import sys
import tempfile
import time

from btsrn_jax import mesh, storage

METRICS = "metrics.jsonl"
UPLOAD_SECONDS = 10.0


class MetricsLog:
    """Writes down what a run measures. On a continued run, lines after `start` are cut
    off, so that each step stands there once. Of several processes one writes.

    Nothing can be appended to an object in a bucket: there the files grow in a folder
    of this machine, and copies of them travel every `UPLOAD_SECONDS`.
    """

    def __init__(self, workdir: pathlib.Path, start: int = 0, writes: bool = True):
        self._home = storage.path(workdir)
        self._last = {}
        for line in read_metrics(self._home / METRICS):
            if line["step"] == start:
                self._last |= line
        self._file = None
        mesh.gather(0)  # all have read
        if writes:
            self._open(start)

    def last(self, step: int) -> dict:
        """What is known of a step, if it is the latest one; else nothing."""
        return self._last if self._last.get("step") == step else {}

    def _open(self, start):
        lines = [x for x in read_metrics(self._home / METRICS) if x["step"] <= start]
        self._folder = self._home
        if storage.in_bucket(self._home):
            self._temporary = tempfile.TemporaryDirectory()
            self._folder = pathlib.Path(self._temporary.name)
        text = "".join(json.dumps(line) + "\n" for line in lines)
        storage.write(self._folder / METRICS, text)
        self._file = (self._folder / METRICS).open("r+b", buffering=0)
        self._file.seek(0, 2)
        # Here, since it imports PyTorch where that is installed: 0.5 GB, for nothing.
        from tensorboardX import SummaryWriter

        self._events = SummaryWriter(str(self._folder), purge_step=start + 1)
        self.flush()

    def write(self, step: int, **values: float) -> None:
        """Metrics of a step, at once in the file; more of the same step joins its
        line."""
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
        self._file.write(start + json.dumps(line)[1:].encode() + b"\n")
        for name, value in values.items():
            self._events.add_scalar(name, value, step)
        self._events.flush()
        if self._folder != self._home and time.monotonic() > self._next_upload:
            self.flush()

    def flush(self) -> None:
        """Returns when all is on the disk, or in the bucket: before a checkpoint, so
        that a run which continues from it lacks no line."""
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


def read_metrics(path: pathlib.Path) -> list[dict]:
    """The lines of a metrics.jsonl, one a step; half-written or damaged ones (a killed
    run, a bad disk) are dropped."""
    lines = {}
    if path.exists():
        for text in path.read_bytes().decode(errors="replace").splitlines():
            try:
                line = json.loads(text)
                lines.setdefault(int(line["step"]), line)
            except (ValueError, KeyError, TypeError):
                continue
    return list(lines.values())


class Progress:
    """Step, loss, rate and ETA on the console: a line that is written over on a
    terminal, elsewhere a line every `seconds`."""

    def __init__(self, start: int, steps: int, batch_size: int, seconds: float = 10.0):
        self.steps, self.batch_size = steps, batch_size
        self.terminal = sys.stderr.isatty()
        self.seconds = 0.5 if self.terminal else seconds
        self.width = 0
        self.values = {}
        self.begin(start)

    def begin(self, step: int) -> None:
        """Restarts the clock: after what is not training (compiling, validation)."""
        self.last_step, self.last_time, self.rate = step, time.monotonic(), None
        self.printed = 0.0

    def update(self, step: int, **values: float) -> None:
        """Notes values, and prints where it is time to."""
        self.values |= values
        now = time.monotonic()
        if now - self.printed < self.seconds and step < self.steps:
            return
        if now > self.last_time and step > self.last_step:
            rate = (step - self.last_step) / (now - self.last_time)
            self.rate = rate if self.rate is None else 0.7 * self.rate + 0.3 * rate
            self.last_step, self.last_time = step, now
        self.printed = now
        parts = [f"step {step}/{self.steps}"]
        parts += [f"{name} {value:.4g}" for name, value in self.values.items()]
        if self.rate:
            parts.append(f"{self.rate:.3g} steps/s")
            parts.append(f"{self.rate * self.batch_size:.3g} patches/s")
            parts.append(f"ETA {duration((self.steps - step) / self.rate)}")
        self._print("  ".join(parts))

    def note(self, text: str) -> None:
        """A line that stays."""
        if self.terminal and self.width:
            sys.stderr.write("\n")
            self.width = 0
        print(text, file=sys.stderr, flush=True)

    def _print(self, text):
        if self.terminal:
            sys.stderr.write("\r" + text.ljust(self.width))
            sys.stderr.flush()
            self.width = len(text)
        else:
            print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """h:mm:ss"""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
