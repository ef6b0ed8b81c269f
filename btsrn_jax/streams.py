"""Standard input, output and error, which may be closed, absent or full.

Nobody has to read what a command says: its files are written all the same.
"""

import io
import os
import select
import sys
from typing import TextIO

from btsrn_jax.progress import logger

BROKEN_PIPE = 141  # what a shell shows of a program that SIGPIPE ended


class _Lasting(io.FileIO):
    """A standard stream whose first failure is kept, and not raised."""

    failure: OSError | None = None

    def write(self, data):
        try:
            while (count := super().write(data)) is None:  # a pipe that does not block
                select.select([], [self], [])
        except OSError as error:
            self.failure = self.failure or error
            return len(data)
        return count


def secure() -> None:
    """Makes the standard streams safe to use; entry points call it first.

    A descriptor that is missing is opened on /dev/null: otherwise the next file to be
    opened would get its number, and a library's message would land in that file. A
    write that fails is remembered for `exit_code`. Lines are written whole, and names
    of files need not be text.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    if sys.stdout is sys.__stdout__:  # else somebody has replaced it already
        sys.stdout = _lasting(sys.stdout, 1)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _lasting(sys.stderr, 2)


def _lasting(stream: TextIO | None, number: int) -> TextIO:
    if stream is not None:
        stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Lasting(number, "w", closefd=False)),
        encoding=stream.encoding if stream else "utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )


def exit_code(code: int, prints: bool) -> int:
    """Returns the exit code of a process whose work is done, and flushes its streams.

    Args:
      code: what it would be if all was read that was said.
      prints: True if the work is what is printed. Then a reader that has gone ends it
        with 141, as SIGPIPE would. A command that writes files has done its work.

    Where standard output could not be written for another reason, such as a full disk,
    one line says so, and the code is at least 1.
    """
    sys.stdout.flush()
    failure = getattr(getattr(sys.stdout.buffer, "raw", None), "failure", None)
    if isinstance(failure, BrokenPipeError):
        code = code or BROKEN_PIPE * prints
    elif failure is not None:
        logger.error(f"error: cannot write standard output: {failure.strerror}")
        code = code or 1
    sys.stderr.flush()
    return code
