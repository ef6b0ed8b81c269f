"""Trains or evaluates a config.

    python -m btsrn_jax.main --config configs/x4.py
    python -m btsrn_jax.main --config configs/x4.py:unknown --workdir runs/x4u
    python -m btsrn_jax.main --config configs/x4.py --config.train.batch_size=16
    python -m btsrn_jax.main --config configs/x4.py --workdir runs/x4 --mode=eval

Every field of the config can be set on the command line; config.py lists them with a
comment each. The same command continues a run that was stopped. Exit codes: 0 done,
1 failed, 2 bad usage or input, 75 stopped early and resumable.
"""

import os
import pathlib
import sys

from absl import flags, logging
from ml_collections import config_flags

from btsrn_jax.errors import InputError

USAGE = 2


def parse(argv: list[str]) -> flags.FlagValues:
    """Flags of `argv`; InputError in one line for whatever is wrong with them."""
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config",
        None,
        "Config file, with its argument: FILE.py[:ARG].",
        flag_values=values,
        sys_argv=argv,
    )
    flags.DEFINE_string(
        "workdir",
        None,
        "Run directory; runs/CONFIG[-ARG] by default.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "mode",
        "train",
        ["train", "eval"],
        "train, or evaluate the best checkpoint of a run.",
        flag_values=values,
    )
    flags.DEFINE_boolean("help", False, "Show this help.", flag_values=values)
    path = _config_path(argv)
    try:
        rest = values(argv)
        if not values.help and values.config is None:
            raise InputError("--config is missing, such as --config configs/x4.py")
    except InputError:
        raise
    except Exception as error:  # ml_collections raises many types for a user's mistake
        raise InputError(_one_line(error, path)) from error
    if len(rest) > 1:
        raise InputError(f"unexpected argument {rest[1]!r}; options start with --")
    return values


def _config_path(argv):
    """The config file, checked, so that a missing one is one line."""
    for i, text in enumerate(argv):
        name, equals, value = text.partition("=")
        if name.lstrip("-") == "config" and text.startswith("-"):
            value = value if equals else "".join(argv[i + 1 : i + 2])
            path = value.partition(":")[0]
            if not os.path.isfile(path):
                raise InputError(f"no config file {path!r}; there is {_configs()}")
            return path
    return None


def _configs():
    found = sorted(str(path) for path in pathlib.Path("configs").glob("*.py"))
    return ", ".join(found) or "none in configs/ here"


def _one_line(error, path):
    text = " ".join(str(error).split())
    if isinstance(error, (flags.Error, AttributeError, KeyError)):
        return text.strip("\"'")
    return f"{path}: {type(error).__name__}: {text}"


def default_workdir(argv: list[str]) -> pathlib.Path:
    """runs/CONFIG[-ARG]"""
    for i, text in enumerate(argv):
        name, equals, value = text.partition("=")
        if name.lstrip("-") == "config" and text.startswith("-"):
            path, _, arg = (value if equals else argv[i + 1]).partition(":")
            return pathlib.Path("runs") / "-".join(
                part for part in (pathlib.Path(path).stem, arg) if part
            )
    raise InputError("--config is missing")


def run(argv: list[str]) -> int:
    """Does what the command line says; returns the exit code."""
    values = parse(argv)
    if values.help:
        print(__doc__.strip())
        print("\nFlags:\n" + values.main_module_help())
        return 0
    from btsrn_jax import config as schema

    schema.validate(values.config)
    workdir = pathlib.Path(values.workdir or default_workdir(argv))

    from btsrn_jax import mesh

    mesh.prepare(values.config.train.batch_size)
    from btsrn_jax import datasets, evaluate, loop, weights

    devices = mesh.make_mesh()
    schema.validate(values.config, devices.size)
    if values.mode == "train":
        code = loop.run(values.config, workdir, devices, _log)
        if code:
            return code
    found = weights.load(str(workdir))
    config = values.config
    sets = datasets.evaluation_sets(config)
    ensemble = values.mode == "eval" and config.eval.ensemble
    if sets:
        subject = evaluate.network_subject(
            "btsrn", config.to_dict(), found.variables, devices, ensemble
        )
        name = "evaluation" if values.mode == "eval" else "validation"
        evaluate.compare(subject, sets, [config.eval.protocol], workdir, name, _log)
    return 0


def _log(text):
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """The process: exit codes, and one line for what a user did wrong."""
    logging.set_verbosity(logging.ERROR)  # Orbax tells of every file it writes
    try:
        sys.exit(run(sys.argv))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USAGE)


if __name__ == "__main__":
    main()
