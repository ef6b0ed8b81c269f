"""Command lines of `btsrn` and of training, and what is said of a mistake in them."""

import argparse
import ast
import difflib
import os
import pathlib
import re

from absl.flags import FlagValues

from btsrn_jax import storage
from btsrn_jax.errors import InputError


def path_argument(text: str) -> pathlib.Path:
    """Returns a path that was given, ~ expanded: the type of every such argument."""
    try:
        return storage.local(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with an argument, and suggests what is near."""

    def error(self, message):
        wrong = re.match(r"argument (COMMAND: invalid choice: '(.*?)')?", message)
        if wrong and not wrong[1]:
            self.exit(2, f"error: {message.removeprefix('argument ')}\n")
        if wrong:
            names = self._subparsers._group_actions[0].choices
            message += _did_you_mean(wrong[2], names)
        super().error(message)

    def parse_known_args(self, args=None, namespace=None):
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.exit(2, f"error: {self._unknown(unknown[0])}\n")
        return parsed, unknown

    def _unknown(self, text):
        flag, _, value = text.partition("=")
        name = flag.lstrip("-").removeprefix("config.")
        fields = _near_fields(name, value)
        if self.prog.endswith(" info") and (fields or flag.startswith("--config.")):
            return (
                f"{text}: fields of the config go after a lone --, as in btsrn info"
                f" --config FILE -- {' '.join(fields) or '--config.FIELD=VALUE'}"
            )
        what = "option" if text.startswith("-") else "argument"
        near = _did_you_mean(flag, self._option_string_actions)
        return f"{self.prog} takes no {what} {text}{near}"


def _did_you_mean(text, known):
    near = difflib.get_close_matches(text, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def locate_config(argv: list[str]) -> tuple[int, str, str] | None:
    """Returns (index in argv, "--config=" or "", FILE.py[:ARG]), or None without."""
    for i, text in enumerate(argv):
        match = re.fullmatch(r"(--?config=)(.*)", text, re.DOTALL)
        if match:
            return i, match[1], match[2]
        if text in ("--config", "-config"):
            return i + 1, "", "".join(argv[i + 1 : i + 2])
    return None


def find_config(argv: list[str]) -> list[str]:
    """Returns argv with the file of --config as it can be opened: ~ expanded, and
    configs/NAME.py replaced by the package's own file if no such file lies here. An
    installed package, without the repository, brings its configs that way.
    """
    located = locate_config(argv)
    if located is None:
        return argv
    i, prefix, value = located
    path, colon, arg = value.partition(":")
    found = storage.expand(path)
    shipped = pathlib.Path(__file__).parent / path
    in_configs = pathlib.Path(path).parts[:-1] == ("configs",)
    if in_configs and not os.path.isfile(path) and shipped.is_file():
        found = shipped
    return [*argv[:i], f"{prefix}{found}{colon}{arg}", *argv[i + 1 :]]


def config_file(argv: list[str]) -> tuple[str | None, str | None]:
    """Returns the path and the argument of --config; InputError if there is no such
    file."""
    located = locate_config(argv)
    if located is None:
        return None, None
    value = located[2]
    path, _, arg = value.partition(":")
    if not storage.is_there(path) or not os.path.isfile(path):
        found = sorted(map(str, pathlib.Path("configs").glob("*.py")))
        known = ", ".join(found) or "none in configs/ here"
        raise InputError(f"no config file: {storage.missing(path)}; there is {known}")
    if not re.fullmatch(r"[A-Za-z0-9_+,-]*", arg):
        raise InputError(f"{value!r}: odd characters in the argument {arg!r}")
    return path, arg


def check_flags(argv: list[str], values: FlagValues) -> None:
    """Raises InputError for an unknown flag or field, or a value of another type."""
    from btsrn_jax import config as schema  # loads NumPy: not for every `btsrn --help`

    fields = schema.flatten(schema.defaults())
    for i, text in enumerate(argv[1:], 1):
        match = re.fullmatch(r"--?([A-Za-z][^=]*)(?:=(.*))?", text, re.DOTALL)
        if not match:
            continue
        flag, value = match.groups()
        if value is None and not "".join(argv[i + 1 : i + 2]).startswith("--"):
            value = "".join(argv[i + 1 : i + 2])
        if not flag.startswith("config."):
            if flag not in values and flag.removeprefix("no") not in values:
                near = suggest_flag(flag, value) or "; --help lists all"
                raise InputError(f"--{flag} is not a flag{near}")
            continue
        name = flag.removeprefix("config.")
        inner = next((f for f in fields if f.startswith(f"{name}.")), None)
        if inner and (value or "").lstrip().startswith("{"):
            continue  # a whole section; `validate` looks into it
        if inner:
            raise InputError(
                f"config.{name} is a section: set single fields of it, as in"
                f" --config.{inner}=VALUE"
            )
        if name not in fields:
            near = " or ".join(_near_fields(name, value))
            give = f" Give {near}" if near else ""
            raise InputError(schema.unknown_field(name) + give)
        kind = int if fields[name] is None else type(fields[name])
        if kind is tuple and name != "eval.sets":  # see `quote_sets`
            try:
                ast.literal_eval(value or "")
            except (ValueError, SyntaxError):
                allowed = schema.FIELDS[name].describe_allowed()
                raise InputError(
                    f"config.{name} is {value or ''!r}: {allowed} was expected"
                ) from None
        if kind in (int, float):
            try:
                kind(value)
            except (TypeError, ValueError):
                what = "a whole number" if kind is int else "a number"
                raise InputError(
                    f"config.{name} is {value or ''!r}: {what} was expected"
                ) from None


def suggest_flag(flag: str, value: str | None) -> str:
    """Returns "; did you mean ...?" for what is no flag; "" if nothing is near."""
    own = difflib.get_close_matches(flag, ("config", "workdir", "mode", "help"), n=1)
    if own:
        near = [f"--{own[0]}={value}" if value else f"--{own[0]}"]
    else:
        near = _near_fields(flag, value)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _near_fields(name, value):
    """Returns the flags that set the fields which a name may stand for."""
    from btsrn_jax import config as schema

    given = f"={value}" if value else ""
    return [f"--config.{field}{given}" for field in schema.nearest_fields(name)]


def quote_sets(argv: list[str]) -> list[str]:
    """Returns argv with the folders of --config.eval.sets in quotes, where they have
    none: ml_collections takes nothing else for a tuple of texts."""
    quoted = list(argv)
    for i, text in enumerate(argv):
        match = re.fullmatch(r"(--?config\.eval\.sets=)(.+)", text, re.DOTALL)
        follows = argv[i - 1] in ("--config.eval.sets", "-config.eval.sets")
        start, value = match.groups() if match else ("", text)
        if match or (follows and i):
            try:
                ast.literal_eval(value)
            except (ValueError, SyntaxError):
                quoted[i] = f"{start}{(value,)!r}"
    return quoted
