"""What a user did wrong, and how a failure is told in one line."""


class InputError(ValueError):
    """A mistake in what the user gave: a flag, a config value, a file.

    The message is one line (or one line per offender) that says what is wrong, where,
    and what was expected. `main` and `cli` print it without a traceback, and exit with
    code 2.
    """


class Failure(RuntimeError):
    """A foreseen failure of the machine, its disks or devices: nobody's bad input.

    The message is one line that says what failed, where, and what to do. `main` and
    `cli` print it without a traceback, and exit with code 1.
    """


def foreseen(error: BaseException) -> str | None:
    """Returns what a person is to be told of a failure that was foreseen; None for any
    other, which keeps its traceback."""
    if isinstance(error, InputError | Failure | OSError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"out of memory: {error}"
    if isinstance(error, ImportError):
        return f"a package cannot be loaded ({first_line(error)}): install it again"
    return None


def first_line(error: BaseException, most: int = 300) -> str:
    """Returns the first line of an error's message, cut to `most` characters.

    If there is no message, it is the name of the error's type.
    """
    lines = str(error).strip().splitlines()
    return lines[0][:most] if lines else type(error).__name__
