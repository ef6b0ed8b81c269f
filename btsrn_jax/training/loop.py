"""A run: steps, validations, checkpoints, until the end or a signal."""

import functools
import pathlib
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from btsrn_jax import checkpoint, lock, mesh, trees
from btsrn_jax import config as schema
from btsrn_jax.data import (
    check_best_set,
    host_store,
    load_store,
    name_folders,
    open_batches,
    sampler,
    training_pairs,
)
from btsrn_jax.progress import TrainingProgress, logger
from btsrn_jax.training import announce, goodput
from btsrn_jax.training import step as stepping
from btsrn_jax.training.metrics_log import MetricsLog, Recorder
from btsrn_jax.training.preemption import STOPPED, Preemption, Stopped
from btsrn_jax.training.run_dir import open_run
from btsrn_jax.training.scores import Scores, is_due
from btsrn_jax.training.tracing import Trace
from btsrn_jax.training.validation import Validation


def run(
    config: ConfigDict,
    workdir: pathlib.Path,
    devices: Mesh,
    validation: Validation | None = None,
    preemption: Preemption | None = None,
    config_file: str | None = None,
    config_argument: str | None = None,
) -> int:
    """Trains, or continues what `workdir` holds, to the end of `config`.

    Args:
      config: valid; `steps` and `decay_steps` may be left to the data.
      workdir: the run directory.
      devices: a mesh over the devices of all processes.
      validation: from `prepare_validation`; None: nothing is validated.
      preemption: entered by the caller; None: no signal is heard.
      config_file, config_argument: see `open_run`.

    Returns:
      0 when done; 75 when stopped by SIGTERM, SIGINT or the time limit, all saved.
    """
    split = goodput.TimeSplit()
    preemption = preemption or Preemption()
    if config.train.time_limit:
        preemption.deadline = time.monotonic() + 60 * config.train.time_limit
    check_best_set(config)
    pairs = training_pairs(config)
    config = name_folders(config, pairs)
    store = load_store(config, pairs, devices)
    sizes = host_store.hr_sizes(store)
    one_pass = sampler.steps_per_pass(sizes, config.train.batch_size)
    config = schema.resolve_steps(config, one_pass)
    schema.validate(config, devices.size)
    saved = open_run(
        workdir, config, pairs, sizes, devices, config_file, config_argument
    )
    logger.info(
        announce.describe(config, sizes, one_pass, validation, devices, workdir)
    )
    try:
        train(config, saved, workdir, devices, store, validation, preemption, split)
    except Stopped as stop:
        logger.info(f"stopped at step {stop.step}, saved; the same command continues")
        return STOPPED
    return 0


def train(
    config: ConfigDict,
    saved: dict[str, Any],
    workdir: pathlib.Path,
    devices: Mesh,
    store: sampler.Store | host_store.HostStore,
    validation: Validation | None,
    preemption: Preemption,
    split: goodput.TimeSplit,
) -> None:
    """Makes the steps that are left, from the newest whole checkpoint to the end.

    At each step that is due for validation or a checkpoint:
      1. its metrics are written;
      2. the state is saved, in the background;
      3. it is validated meanwhile: the device is stopped for the forward passes, and
         the score is added to the checkpoint some steps later, before the next one is
         saved. If the run is stopping, validation is left out; the resumed run begins
         with it.

    Raises:
      Stopped: early, by a signal or the time limit; the state of its step is saved.
      Diverged: the loss or its gradient stayed non-finite.
      SaveFailed: a checkpoint could not be written.
      ReadFailed: no checkpoint could be read, though there are some.
    """
    settings = config.train
    recipe = stepping.make_recipe(config, devices)
    with ExitStack() as stack:
        enter = stack.enter_context
        resumes = checkpoint.steps_in(checkpoint.folder_of(workdir))
        with split.part("restore" if resumes else "compile"):
            state = restore(workdir, recipe, devices, settings.init_from)
        checkpoints = enter(closing(checkpoint.Checkpoints(workdir)))
        preemption.finish = checkpoints.wait
        start, last = int(state.step), settings.steps
        if start == last:
            logger.info(announce.complete(config, workdir))
        elif start:
            logger.info(f"continuing from step {start}")
        first = mesh.is_first()
        log = enter(MetricsLog(workdir, start, first, settings.tracker, saved))
        scores = Scores(validation, log, checkpoints, settings.log_every)
        batches = open_batches(store, recipe, devices, start, last)
        enter(closing(batches))
        progress = TrainingProgress(start, last, settings.batch_size)
        enter(closing(progress))
        every = settings.log_every
        recorder = Recorder(log, progress, batches, start, every, last, split.training)
        enter(goodput.recorded(split, log, recipe, devices, start, last))
        trace = Trace(workdir, settings.profile, start, lambda: split.part("other"))
        enter(closing(trace))
        from_host = isinstance(store, host_store.HostStore)
        train_step = stepping.compile_step(recipe, devices, from_host)

        def validate(step: int) -> None:
            if validation is None or not is_due(config, step):
                return
            preemption.attentive = False  # from here on a signal ends the process
            if preemption.signalled():
                raise Stopped(step)
            with split.part("validation"):
                scores.begin(step, lambda: stepping.inference_variables(state))

        if start:
            validate(start)
        split.switch("steps")
        for step in range(start + 1, last + 1):
            with split.part("data_wait"):
                data = batches(step - 1)
            if step == start + 1:
                with split.part("compile"):
                    train_step = compile_now(train_step, state, data)
            with trace.step(step, state):
                state, metrics = train_step(state, data)
                recorder.add(step, metrics)
            trace.end(step, state)
            with split.part("validation"):
                scores.look(step)
            preemption.attentive = True
            stopping = preemption.should_stop(step)
            saving = is_due(config, step) or step % settings.checkpoint_every == 0
            if saving or stopping:
                recorder.flush()
                with split.part("validation"):
                    scores.wait()
                with split.part("checkpoint"):
                    lock.confirm()
                    log.flush()
                    checkpoints.save(step, state, saved)
                    if stopping and step < last:
                        checkpoints.wait()
                        raise Stopped(step)
                    validate(step)
        split.switch("other")
        preemption.attentive = False
        with split.part("validation"):
            scores.wait()
        with split.part("checkpoint"):
            checkpoints.wait()
        if preemption.signalled():
            raise Stopped(last)


def compile_now(step: Callable, state: stepping.TrainState, data: Any) -> Callable:
    """Returns a jitted step compiled for these arguments; says so, and how long it
    took."""
    logger.info("compiling the train step (once) ...")
    begun = time.monotonic()
    compiled = step.lower(state, data).compile()
    logger.info(f"compiled in {time.monotonic() - begun:.0f} s")
    return compiled


def restore(
    workdir: pathlib.Path,
    recipe: stepping.Recipe,
    devices: Mesh,
    init_from: str = "",
) -> stepping.TrainState:
    """Returns the state of the newest whole checkpoint, on the mesh.

    Damaged ones are moved aside. Without any checkpoint it is a new state, with
    parameters of the model `init_from` if that is given.

    Raises:
      ReadFailed: no checkpoint could be read, though there are some.
    """
    found = checkpoint.restore_latest(checkpoint.folder_of(workdir))
    if found is None:
        params = stepping.initial_params(init_from, recipe) if init_from else None
        return stepping.create_state(recipe, devices, params)
    _, arrays = found
    create = functools.partial(stepping.create_state, recipe, devices)
    state = trees.fill(jax.eval_shape(create), arrays)
    return jax.device_put(state, mesh.replicated(devices))
