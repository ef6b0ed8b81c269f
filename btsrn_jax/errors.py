"""What a user can do wrong, told in one line."""


class InputError(ValueError):
    """A mistake in what the user gave: a flag, a config value, a file.

    The message is one line (or one line per offender) that says what is wrong, where,
    and what was expected. `main` and `cli` print it without a traceback, and exit 2.
    """
