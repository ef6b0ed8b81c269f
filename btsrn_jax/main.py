"""Trains or evaluates a config.

    python -m btsrn_jax.main --config configs/x4.py
    python -m btsrn_jax.main --config configs/x4.py:unknown --workdir runs/x4u
    python -m btsrn_jax.main --config configs/x4.py --config.train.batch_size=16
    python -m btsrn_jax.main --config configs/x4.py --workdir runs/x4 --mode=eval

Every field of the config can be set on the command line; they are listed below with
their values in the paper's x4 setting, and explained in btsrn_jax/config.py. The same
command continues a run that was stopped. Exit codes: 0 done, 1 failed, 2 bad usage or
input, 75 stopped early and resumable.
"""

import os
import pathlib
import re
import sys
import traceback
from typing import NamedTuple

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from btsrn_jax import config as schema
from btsrn_jax import evaluation, inference, storage, training
from btsrn_jax.data import evaluation_sets
from btsrn_jax.errors import InputError

USAGE = 2


class Options(NamedTuple):
    """What the command line says."""

    config: ConfigDict
    workdir: pathlib.Path
    mode: str
    distributed: bool


def parse(argv: list[str]) -> Options | None:
    """Options of `argv`, validated; None where it asks for help; InputError in one line
    for whatever is wrong."""
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
        print(f"{__doc__.strip()}\n\nFlags:\n{values.main_module_help()}\n")
        print(schema.to_help())
        return None
    if len(rest) > 1:
        raise InputError(f"unexpected argument {rest[1]!r}; options start with --")
    if config is None:
        raise InputError("--config is missing, such as --config configs/x4.py")
    schema.validate(config)
    name = "-".join(part for part in (pathlib.Path(path).stem, arg) if part)
    workdir = storage.path(values.workdir or f"runs/{name}")
    return Options(config, workdir, values.mode, values.distributed)


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
    """(index in argv, "--config=" or "", FILE.py[:ARG]) of the config flag, or None."""
    for i, text in enumerate(argv):
        match = re.fullmatch(r"(--?config=)(.*)", text, re.DOTALL)
        if match:
            return i, match[1], match[2]
        if text in ("--config", "-config"):
            return i + 1, "", "".join(argv[i + 1 : i + 2])
    return None


def _find_shipped_config(argv):
    """`configs/x4.py` means the package's own where no such file lies here: that is how
    an installed package, without the repository, brings its configs."""
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
    """(path, argument) of --config, checked: a missing file is one line."""
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
    """Fields set by flags: known names, values of their type."""
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
    """The part of a parsing error that a user can act on."""
    text = " ".join(str(error).split())
    if "InputError: " in text:  # a config file's own, inside a quoted traceback
        return text.rpartition("InputError: ")[2]
    if isinstance(error, flags.Error):
        return text
    return f"{path}: {type(error).__name__}: {text}"


def run(argv: list[str]) -> int:
    """Does what the command line says; returns the exit code."""
    options = parse(argv)
    if options is None:
        return 0
    from btsrn_jax import mesh

    mesh.prepare()
    mesh.start(options.distributed)
    with training.Preemption() as watch:
        return _work(options, watch)


def _work(options, watch):
    from btsrn_jax import mesh

    config, workdir, mode, _ = options
    devices = mesh.make_mesh()
    schema.validate(config, devices.size)
    if mode == "train":
        code = training.run(config, workdir, devices, _log, watch)
        if code:
            return code
    watch.take_over()
    if not mesh.is_first():
        mesh.wait_for_first()
        return 0
    found = inference.load_weights(str(workdir))
    _check_network(found.config, config, workdir)
    sets = evaluation_sets(config)
    if sets:
        ensemble = mode == "eval" and config.eval.ensemble
        subject = evaluation.network_upscaler(
            config.model.name, config.to_dict(), found.variables, mesh.local(), ensemble
        )
        name = "evaluation" if mode == "eval" else "validation"
        evaluation.compare(subject, sets, [config.eval.protocol], workdir, name, _log)
    if mode == "train":
        _log(f"next: btsrn upscale photo.jpg enlarged.png --model {workdir}")
    return 0


def _check_network(saved, config, workdir):
    """InputError where --mode=eval is given the config of another network."""
    wrong = [
        text
        for text in schema.contradictions(saved, config)
        if text.startswith(("config.scale", "config.model."))
        and not text.startswith("config.model.dtype")  # of training
    ]
    if wrong:
        raise InputError(f"{workdir} holds another network: {'; '.join(wrong)}")


def _log(text):
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """The process: exit codes, and one line for what went wrong. An unforeseen error
    keeps its traceback."""
    # Orbax tells of every file it writes, and of errors before it raises them.
    logging.set_verbosity(logging.FATAL)
    try:
        code = run(sys.argv)
    except InputError as error:
        _end(f"error: {error}", USAGE)
    except OSError as error:
        _end(f"error: {error}", 1)
    except RuntimeError as error:
        _end(_explain(error), 1)
    sys.exit(code)


def _explain(error):
    """One line for failures that were foreseen, a traceback for others."""
    from btsrn_jax import checkpoint, mesh

    if isinstance(error, training.Diverged | checkpoint.SaveFailed):
        return f"error: {error}"
    if mesh.process_count() > 1:
        first = str(error).strip().partition("\n")[0]
        return (
            "error: this process lost another one of the run, or failed itself;"
            f" start all again, the run continues ({first[:300]})"
        )
    return traceback.format_exc()


def _end(text, code):
    """Ends the process, also where others of the run wait for it: they notice."""
    print(text, file=sys.stderr, flush=True)
    os._exit(code)


if __name__ == "__main__":
    main()
