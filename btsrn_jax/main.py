"""Trains or evaluates a config.

    btsrn train --config configs/x4.py
    python -m btsrn_jax.main --config configs/x4.py         the same
    btsrn train --config configs/x4.py:unknown --workdir runs/x4u
    btsrn train --config configs/x4.py --config.train.batch_size=16
    btsrn train --config configs/x4.py --workdir runs/x4 --mode=eval

Every field of the config can be set on the command line; they are listed and
explained below, with their values in the paper's x4 setting. The same command
continues a run that was stopped. In every path, ~ is the home directory.
Exit codes: 0 done, 1 failed, 2 bad usage or input, 75 stopped early and
resumable.
"""

import contextlib
import dataclasses
import os
import pathlib
import sys
import textwrap
import traceback

from absl import flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from btsrn_jax import (
    arguments,
    data,
    evaluation,
    inference,
    lock,
    storage,
    streams,
    training,
)
from btsrn_jax import config as schema
from btsrn_jax.errors import InputError, first_line, foreseen
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
    located = arguments.locate_config(argv)
    argv = arguments.find_config(argv)
    values = _define(argv)
    path, arg = arguments.config_file(argv)
    arguments.check_flags(argv, values)
    argv = arguments.quote_sets(argv)
    try:
        rest = values(argv)
        config = values.config
    except Exception as error:  # ml_collections raises many types for a user's mistake
        raise InputError(_one_line(error, path)) from error
    if values.help:
        print(f"{__doc__.strip()}\n\nFlags:\n")
        for name in ("config", "workdir", "mode", "distributed"):
            text = textwrap.fill(values[name].help, 74)
            print(f"  --{name}\n{textwrap.indent(text, 6 * ' ')}")
        print(schema.to_help())
        return None
    if len(rest) > 1:
        near = arguments.suggest_flag(*rest[1].partition("=")[::2])
        raise InputError(
            f"unexpected argument {rest[1]!r}; options start with --{near}"
        )
    if config is None:
        raise InputError("--config is missing, such as --config configs/x4.py")
    schema.validate(config)
    config = schema.resolve_places(config)
    name = "-".join(part for part in (pathlib.Path(path).stem, arg) if part)
    workdir = storage.path(values.workdir or f"runs/{name}")
    storage.check_array_path(workdir)
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
        "Join the other processes of this run. Under Slurm and MPI, on GKE's TPUs and"
        " with JAX_COORDINATOR_ADDRESS set that happens by itself.",
        flag_values=values,
    )
    flags.DEFINE_boolean("help", False, "Show this help.", flag_values=values)
    return values


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
    _check_folders(options.config)
    several = options.distributed or training.cluster.announced(os.environ)
    trains = options.mode == "train"
    evaluation.degradations_of(options.config)  # a mistake is refused before JAX
    if trains:
        data.check_names(options.config)
        if not several:  # or the first process does, once all have joined
            training.check_tracker(options.config.train.tracker)
    with contextlib.ExitStack() as stack:
        # To evaluate a run disturbs no other one.
        # Before JAX is loaded, and takes a device's memory. Of several processes the
        # first one takes the lock once all have joined. What each finds before is
        # another run's, which they would end by joining it at the same address.
        if trains and several:
            lock.check(options.workdir, "run")
        elif trains:
            stack.enter_context(lock.hold(options.workdir, "run"))
        from btsrn_jax import mesh, program_cache

        mesh.prepare()
        training.distributed.join(options.distributed)
        if trains and several:
            stack.enter_context(training.distributed.hold_run(options.workdir))
            if mesh.is_first():
                training.check_tracker(options.config.train.tracker)
        program_cache.keep_compiled()
        preemption = stack.enter_context(training.Preemption())
        return _work(options, preemption)


def _check_folders(config):
    """Raises InputError for a folder of images that is not there, before JAX is loaded:
    the rest is checked with the images."""
    places = {name: getattr(config.data, name) for name in ("hr_dir", "lr_dir")}
    named = {f"config.data.{name}": place for name, place in places.items() if place}
    for i, name in enumerate(config.eval.sets):
        if not data.is_reserved(name, config.data.root):
            named[f"config.eval.sets[{i}]"] = name
    for field, place in named.items():
        if not os.path.exists(storage.local(place)):
            raise InputError(f"{field}: {storage.missing(place)}")


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
        how = validation.degradations
        evaluation.compare(upscaler, validation.sets, protocols, workdir, name, how)
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
    streams.secure()
    log_to_stderr()
    argv = sys.argv if argv is None else argv
    try:
        process, count, _ = training.cluster.place(os.environ)
        log_to_stderr(process or 0, 1 if process is None else count or 1)
        code = run(argv)
    except BaseException as error:
        logger.error(_explain(error))
        # Not sys.exit: it would wait for the other processes of the run, and they for
        # this one. So they notice, and end too.
        os._exit(USAGE if isinstance(error, InputError) else FAILED)
    sys.exit(streams.exit_code(code, prints="--help" in argv))


def _explain(error):
    """Returns one line for a failure that was foreseen, a traceback for any other."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if (text := foreseen(error)) is not None:
        return f"error: {text}"
    if training.distributed.lost_another(error):
        return (
            "error: this process lost contact with another one of the run; start all"
            f" of them again, and the run continues ({first_line(error)})"
        )
    return "".join(traceback.format_exception(error))


if __name__ == "__main__":
    main()
