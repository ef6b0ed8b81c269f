"""The progress bar of everything that takes a while, training apart."""

import sys

from tqdm import tqdm


def progress_bar(*args, **kwargs) -> tqdm:
    """tqdm, moving on a terminal; elsewhere, as in a batch job's log, it is drawn every
    ten seconds."""
    return tqdm(*args, mininterval=0.1 if sys.stderr.isatty() else 10, **kwargs)
