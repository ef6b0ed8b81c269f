"""What people see while something runs: lines and progress bars on standard error."""

import io
import logging
import os
import re
import sys
from collections.abc import Mapping

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
        kwargs = _size_if_unknown() | kwargs
    else:
        kind, interval = _Lines, 10
        what = re.sub(r"\|?{bar}\|", "", what)
        delay = delay or 1e-9  # or tqdm would begin by a line that nothing is done
    return kind(
        *args, unit=unit, bar_format=what, delay=delay, mininterval=interval, **kwargs
    )


def _size_if_unknown():
    """Returns a usual size for a terminal that says it has none: tqdm would draw
    nothing there."""
    try:
        known = all(os.get_terminal_size(sys.stderr.fileno()))
    except OSError:
        return {}  # no device: tqdm's own guess
    return {} if known else {"ncols": 80, "nrows": 24}


class TrainingProgress:
    """Shows how far training is, and what is logged of it.

    On a terminal a bar moves at every step, with the latest logged values beside it.
    Elsewhere each logged step is a line, and there are no others.
    """

    def __init__(self, start: int, steps: int, batch_size: int) -> None:
        self._steps, self._batch_size = steps, batch_size
        self._text, self._rate, self._bar = "", None, None
        if sys.stderr is not None and sys.stderr.isatty():
            what = "{desc}:|{bar}| {n_fmt}/{total_fmt} steps{postfix}"
            self._bar = progress_bar(
                desc="training", initial=start, total=steps, bar_format=what
            )

    def advance(self, step: int) -> None:
        """Notes that a step is done."""
        if self._bar is not None:
            self._bar.set_postfix_str(self._text + self._left(step), refresh=False)
            self._bar.update(step - self._bar.n)

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Shows the values that are logged of a step.

        Args:
          step: the latest one.
          values: `loss`, `learning_rate`, and `steps_per_second` if it is known.
        """
        self._rate = values.get("steps_per_second")
        self._text = (
            f"loss {values['loss']:.4g}, learning rate {values['learning_rate']:.3g}"
        )
        if self._rate:
            self._text += f", {self._rate:.3g} steps/s"
        if self._bar is None:
            counted = f"training: {step}/{self._steps} steps, "
            logger.info(counted + self._text + self._left(step))
        else:
            self.advance(step)
            self._bar.refresh()

    def _left(self, step):
        if not self._rate:
            return ""
        # What a narrow terminal cuts off is at the end.
        left = tqdm.format_interval((self._steps - step) / self._rate)
        return f", {left} left, {self._rate * self._batch_size:.3g} patches/s"

    def close(self) -> None:
        """Ends the bar; on a terminal it stays, as it is."""
        if self._bar is not None:
            self._bar.close()
