"""What people see while something runs: lines and progress bars on standard error."""

import contextlib
import io
import logging
import re
import sys
import time
from collections.abc import Iterator

from tqdm import tqdm

logger = logging.getLogger("btsrn")  # of every message to people


class _AboveBars(logging.Handler):
    """Writes a record as lines of their own, above whatever progress bar is drawn."""

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self._prefix = prefix

    def emit(self, record: logging.LogRecord) -> None:
        if sys.stderr is None:  # closed, in a program of somebody else
            return
        for line in self.format(record).splitlines():
            # The newline in the same write: other processes may write there, too.
            tqdm.write(f"{self._prefix}{line}\n", file=sys.stderr, end="")


def log_to_stderr(process: int = 0, count: int = 1) -> None:
    """Sends the messages of the logger "btsrn" to standard error, as plain lines.

    Args:
      process: the number of this process among those that work together.
      count: how many there are; with several, `[process/count] ` stands in front.
    """
    logger.handlers = [_AboveBars(f"[{process}/{count}] " if count > 1 else "")]
    logger.setLevel(logging.INFO)
    logger.propagate = False


class _Lines(tqdm):
    """Progress as plain lines, each one logged: what a batch job's log can hold."""

    def __init__(self, *args, **kwargs) -> None:
        self._shown = None
        # tqdm's own carriage returns go nowhere.
        super().__init__(*args, file=io.StringIO(), **kwargs)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        if msg is None and self.n != self._shown:  # tqdm repeats the last
            self._shown = self.n
            logger.info(str(self))
        return True


def progress_bar(
    *args, unit: str = "it", bar_format: str | None = None, delay: float = 0, **kwargs
) -> tqdm:
    """Returns a tqdm bar: the one look of all progress in this package.

    It moves on a terminal. Elsewhere a plain line is logged every ten seconds.

    Args:
      unit: what is counted, in the singular; bytes and megapixels as B and MP.
      bar_format: tqdm's; by default description, bar, count, postfix, rate, time left.
      delay: seconds before anything is shown.
      *args, **kwargs: tqdm's.
    """
    unit = unit if unit in ("B", "MP") else f" {unit}s"
    what = bar_format or (
        "{desc}:|{bar}| {n_fmt}/{total_fmt}{unit}{postfix}, {rate_noinv_fmt},"
        " {remaining} left"
    )
    if sys.stderr is not None and sys.stderr.isatty():
        kind, interval = tqdm, 0.1
    else:
        kind, interval = _Lines, 10
        what = re.sub(r"\|?{bar}\|", "", what)
        delay = delay or 1e-9  # or tqdm would begin by a line that nothing is done
    return kind(
        *args, unit=unit, bar_format=what, delay=delay, mininterval=interval, **kwargs
    )


class TrainingProgress:
    """Shows step, loss, learning rate, patches a second, steps a second, time left."""

    def __init__(self, start: int, steps: int, batch_size: int) -> None:
        self._batch_size = batch_size
        self._bar = progress_bar(
            desc="training", initial=start, total=steps, unit="step", smoothing=0.3
        )

    @property
    def rate(self) -> float | None:
        """Steps a second while training, pauses left out; None before it is known."""
        now = self._bar.format_dict
        if now["rate"] is None and now["n"] > now["initial"] and now["elapsed"] > 0:
            return (now["n"] - now["initial"]) / now["elapsed"]
        return now["rate"]

    def update(self, step: int, loss: float, learning_rate: float) -> None:
        """Notes that a step is done; shows it where it is time to."""
        rate = self.rate
        patches = f", {rate * self._batch_size:.3g} patches/s" if rate else ""
        self._bar.set_postfix_str(
            f"loss {loss:.4g}, learning rate {learning_rate:.3g}{patches}",
            refresh=False,
        )
        self._bar.update(step - self._bar.n)
        if step == self._bar.total:
            self._bar.refresh()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """A context whose time is not counted: compiling, saving, validation."""
        begun = time.time()  # tqdm's clock
        try:
            yield
        finally:
            self._bar.start_t += time.time() - begun
            self._bar.last_print_t += time.time() - begun

    def close(self) -> None:
        """Ends the bar; on a terminal it stays, as it is."""
        self._bar.close()
