"""Trains or evaluates a config.

    btsrn train --config configs/x4.py
    python -m btsrn_jax.main --config configs/x4.py         the same
    python -m btsrn_jax.main --config configs/x4.py:unknown --workdir runs/x4u
    python -m btsrn_jax.main --config configs/x4.py --config.train.batch_size=16
    python -m btsrn_jax.main --config configs/x4.py --workdir runs/x4 --mode=eval

Every field of the config can be set on the command line; they are listed and explained
below, with their values in the paper's x4 setting. The same command continues a run
that was stopped. Exit codes: 0 done, 1 failed, 2 bad usage or input, 75 stopped early
and resumable.
"""

import dataclasses
import os
import pathlib
import re
import sys
import textwrap
import traceback

from absl import flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from btsrn_jax import config as schema
from btsrn_jax import evaluation, inference, storage, training
from btsrn_jax.errors import InputError, first_line
from btsrn_jax.progress import log_to_stderr, logger

FAILED, USAGE = 1, 2


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line says."""

    config: ConfigDict
    """Valid, with the values of all --config.FIELD flags."""

    config_file: str
    """The file it came from, as it was given."""

    config_argument: str
    """What stood behind the colon; "" without."""

    workdir: pathlib.Path
    """The run directory, or its counterpart in a bucket."""

    mode: str
    """"train" or "eval"."""

    distributed: bool
    """True where other processes of the run are to be joined."""


def parse(argv: list[str]) -> Options | None:
    """Returns the validated options of a command line; None where it asks for help.

    Args:
      argv: the program's name, then its arguments.

    Raises:
      InputError: in one line, whatever is wrong.
    """
    located = _locate_config(argv)
    argv = _find_shipped_config(argv)
    values = _define(argv)
    path, arg = _config_file(argv)
    _check_overrides(argv)
    try:
        rest = values(argv)
        config = values.config
    except Exception as error:  # ml_collections raises many types for a user's mistake
        raise InputError(_one_line(error, path)) from error
    if values.help:
        print(f"{__doc__.strip()}\n\nFlags:\n")
        for name in ("config", "workdir", "mode", "distributed"):
            text = textwrap.fill(values[name].help, 82)
            print(f"  --{name}\n{textwrap.indent(text, 6 * ' ')}")
        print(schema.to_help())
        return None
    if len(rest) > 1:
        raise InputError(f"unexpected argument {rest[1]!r}; options start with --")
    if config is None:
        raise InputError("--config is missing, such as --config configs/x4.py")
    schema.validate(config)
    name = "-".join(part for part in (pathlib.Path(path).stem, arg) if part)
    workdir = storage.path(values.workdir or f"runs/{name}")
    given = located[2].partition(":")[0]
    return Options(config, given, arg, workdir, values.mode, values.distributed)


def _define(argv):
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config",
        None,
        "Config file, with its argument if it takes one: FILE.py[:ARG].",
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
        "train, or evaluate the best checkpoint of the run in workdir.",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "distributed",
        False,
        "Join the other processes of this run. Under Slurm, on GKE's TPUs and with"
        " JAX_COORDINATOR_ADDRESS set that happens by itself.",
        flag_values=values,
    )
    flags.DEFINE_boolean("help", False, "Show this help.", flag_values=values)
    return values


def _locate_config(argv):
    """Returns (index in argv, "--config=" or "", FILE.py[:ARG]), or None without."""
    for i, text in enumerate(argv):
        match = re.fullmatch(r"(--?config=)(.*)", text, re.DOTALL)
        if match:
            return i, match[1], match[2]
        if text in ("--config", "-config"):
            return i + 1, "", "".join(argv[i + 1 : i + 2])
    return None


def _find_shipped_config(argv):
    """Returns argv with configs/NAME.py replaced by the package's own file.

    Only where no such file lies here: an installed package, without the repository,
    brings its configs that way.
    """
    located = _locate_config(argv)
    if located is None:
        return argv
    i, prefix, value = located
    path, colon, arg = value.partition(":")
    shipped = pathlib.Path(__file__).parent / path
    in_configs = pathlib.Path(path).parts[:-1] == ("configs",)
    if not in_configs or os.path.isfile(path) or not shipped.is_file():
        return argv
    return [*argv[:i], f"{prefix}{shipped}{colon}{arg}", *argv[i + 1 :]]


def _config_file(argv):
    """Returns the path and the argument of --config; InputError if there is no such
    file."""
    located = _locate_config(argv)
    if located is None:
        return None, None
    value = located[2]
    path, _, arg = value.partition(":")
    if not os.path.isfile(path):
        found = sorted(map(str, pathlib.Path("configs").glob("*.py")))
        known = ", ".join(found) or "none in configs/ here"
        raise InputError(f"no config file {path!r}; there is {known}")
    if not re.fullmatch(r"[A-Za-z0-9_+,-]*", arg):
        raise InputError(f"{value!r}: odd characters in the argument {arg!r}")
    return path, arg


def _check_overrides(argv):
    """Raises InputError for an unknown field, or a value of another type."""
    fields = schema.flatten(schema.defaults())
    for i, text in enumerate(argv):
        match = re.fullmatch(r"--?config\.([^=]+)(?:=(.*))?", text, re.DOTALL)
        if not match:
            continue
        name = match[1]
        if any(field.startswith(f"{name}.") for field in fields):
            continue  # a whole section; `validate` looks into it
        if name not in fields:
            raise InputError(schema.unknown_field(name))
        value = match[2] if match[2] is not None else "".join(argv[i + 1 : i + 2])
        kind = int if fields[name] is None else type(fields[name])
        if kind in (int, float):
            try:
                kind(value)
            except ValueError:
                what = "a whole number" if kind is int else "a number"
                raise InputError(
                    f"config.{name} is {value!r}: {what} was expected"
                ) from None


def _one_line(error, path):
    """Returns the part of a parsing error that a user can act on."""
    text = " ".join(str(error).split())
    if "InputError: " in text:  # a config file's own, inside a quoted traceback
        return text.rpartition("InputError: ")[2]
    if isinstance(error, flags.Error):
        return text
    return f"{path}: {type(error).__name__}: {text}"


def run(argv: list[str]) -> int:
    """Does what a command line says, and returns the exit code; see `parse`."""
    options = parse(argv)
    if options is None:
        return 0
    from btsrn_jax import mesh

    mesh.prepare()
    training.distributed.join(options.distributed)
    with training.Preemption() as preemption:
        return _work(options, preemption)


def _work(options, preemption):
    from btsrn_jax import mesh

    config, workdir = options.config, options.workdir
    devices, trains = mesh.make_mesh(), options.mode == "train"
    schema.validate(config, devices.size)
    if trains:
        validation = training.prepare_validation(config, devices)
        origin = options.config_file, options.config_argument
        code = training.run(config, workdir, devices, validation, preemption, *origin)
        if code:
            return code
    preemption.take_over()
    if not mesh.is_first():
        training.distributed.wait_for_first()
        return 0
    found = inference.load_weights(str(workdir))
    _check_network(found.config, config, workdir)
    if not trains:
        ensemble = config.eval.ensemble
        validation = training.prepare_validation(config, devices, ensemble)
    if validation:
        upscaler = validation.upscaler(found.variables)
        name = "validation" if trains else "evaluation"
        protocols = [config.eval.protocol]
        logger.info(f"{name} on {', '.join(validation.sets)}")
        evaluation.compare(upscaler, validation.sets, protocols, workdir, name)
    if trains:
        logger.info(training.next_steps(workdir))
    return 0


def _check_network(saved, config, workdir):
    """Raises InputError where --mode=eval is given the config of another network."""
    wrong = [
        text
        for text in schema.contradictions(saved, config)
        if text.startswith(("config.scale", "config.model."))
        and not text.startswith("config.model.dtype")  # of training
    ]
    if wrong:
        raise InputError(f"{workdir} holds another network: {'; '.join(wrong)}")


def main(argv: list[str] | None = None) -> None:
    """Runs the process, to its exit code. A failure that was foreseen is one line; any
    other one keeps its traceback.

    Args:
      argv: as `sys.argv`, which is the default.
    """
    # Orbax tells of every file it writes, and of errors before it raises them.
    absl_logging.set_verbosity(absl_logging.FATAL)
    log_to_stderr()
    try:
        code = run(sys.argv if argv is None else argv)
    except BaseException as error:
        logger.error(_explain(error))
        # Not sys.exit: it would wait for the other processes of the run, and they for
        # this one. So they notice, and end too.
        os._exit(USAGE if isinstance(error, InputError) else FAILED)
    sys.exit(code)


def _explain(error):
    """Returns one line for a failure that was foreseen, a traceback for any other."""
    from btsrn_jax import checkpoint

    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    foreseen = InputError, OSError, training.Diverged, checkpoint.SaveFailed
    if isinstance(error, foreseen):
        return f"error: {error}"
    if training.distributed.lost_another(error):
        return (
            "error: this process lost contact with another one of the run; start all"
            f" of them again, and the run continues ({first_line(error)})"
        )
    return "".join(traceback.format_exception(error))


if __name__ == "__main__":
    main()
