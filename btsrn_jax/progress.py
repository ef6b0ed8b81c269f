"""What people see while something runs: lines and progress bars on standard error."""

import logging
import sys

from tqdm import tqdm

LOGGER = "btsrn"  # of every message to people


class _AboveBars(logging.Handler):
    """Writes a record as a line of its own, above whatever progress bar is drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)
        sys.stderr.flush()


def log_to_stderr(process: int = 0, count: int = 1) -> None:
    """Sends the messages of the logger "btsrn" to standard error, as plain lines.

    Args:
      process: the number of this process among those that work together.
      count: how many there are; with several, `[process/count] ` stands in front.
    """
    handler = _AboveBars()
    prefix = f"[{process}/{count}] " if count > 1 else ""
    handler.setFormatter(logging.Formatter(f"{prefix}%(message)s"))
    logger = logging.getLogger(LOGGER)
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def progress_bar(*args, **kwargs) -> tqdm:
    """Returns a tqdm bar that moves on a terminal; elsewhere, as in a batch job's log,
    it is drawn every ten seconds."""
    return tqdm(*args, mininterval=0.1 if sys.stderr.isatty() else 10, **kwargs)
