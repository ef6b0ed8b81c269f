"""A run: steps, validations, checkpoints, until the end or a signal."""

import dataclasses
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
    Batches,
    check_names,
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
    check_names(config)
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


@dataclasses.dataclass(frozen=True)
class _Parts:
    """What a run has open while it steps, and what it does with that at some steps."""

    config: ConfigDict
    saved: dict[str, Any]
    validation: Validation | None
    preemption: Preemption
    split: goodput.TimeSplit
    checkpoints: checkpoint.Checkpoints
    log: MetricsLog
    scores: Scores
    batches: Batches
    recorder: Recorder
    trace: Trace

    def save(self, step: int, state: stepping.TrainState, stopping: bool) -> None:
        """Does what there is to do after a step that is due, or where the run stops.

        The order matters:
          1. its metrics are written;
          2. the state is saved, in the background;
          3. it is validated meanwhile: the device is stopped for the forward passes,
             and the score is added to the checkpoint some steps later, before the next
             one is saved. If the run is stopping, validation is left out; the resumed
             run begins with it.

        Raises:
          Stopped: the run is stopping before its last step; the state is saved.
        """
        self.recorder.flush()
        with self.split.part("validation"):
            self.scores.wait()
        with self.split.part("checkpoint"):
            lock.confirm()
            self.log.flush()
            self.checkpoints.save(step, state, self.saved)
            if stopping and step < self.config.train.steps:
                self.checkpoints.wait()
                raise Stopped(step)
            self.validate(step, state)

    def validate(self, step: int, state: stepping.TrainState) -> None:
        """Validates a step that is saved, if it is due; raises Stopped if the run was
        told to stop."""
        if self.validation is None or not is_due(self.config, step):
            return
        self.preemption.attentive = False  # from here on a signal ends the process
        if self.preemption.signalled():
            raise Stopped(step)
        with self.split.part("validation"):
            self.scores.begin(step, lambda: stepping.inference_variables(state))


def _open_parts(
    config,
    saved,
    workdir,
    devices,
    store,
    validation,
    preemption,
    split,
    recipe,
    start,
    enter,
):
    """Returns the parts of a run that goes on from the step `start`.

    They are closed in the reverse order, which matters: `enter` is that of the stack
    that closes them. The other arguments are those of `train`.
    """
    settings, last = config.train, config.train.steps
    checkpoints = enter(closing(checkpoint.Checkpoints(workdir)))
    preemption.finish = checkpoints.wait
    if start == last:
        logger.info(announce.complete(config, workdir))
    elif start:
        logger.info(f"continuing from step {start}")
    first = mesh.is_first()
    log = enter(MetricsLog(workdir, start, first, settings.tracker, saved))
    every = settings.log_every
    scores = Scores(validation, log, checkpoints, every)
    batches = enter(closing(open_batches(store, recipe, devices, start, last)))
    progress = enter(closing(TrainingProgress(start, last, settings.batch_size)))
    recorder = Recorder(log, progress, batches, start, every, last, split.training)
    enter(goodput.recorded(split, log, recipe, devices, start, last))
    trace = Trace(workdir, settings.profile, start, lambda: split.part("other"))
    enter(closing(trace))
    return _Parts(
        config,
        saved,
        validation,
        preemption,
        split,
        checkpoints,
        log,
        scores,
        batches,
        recorder,
        trace,
    )


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
    """Makes the steps that are left, from the newest whole checkpoint to the end. What
    is done at steps that are due for validation or a checkpoint: `_Parts.save`.

    Raises:
      Stopped: early, by a signal or the time limit; the state of its step is saved.
      Diverged: the loss or its gradient stayed non-finite.
      SaveFailed: a checkpoint could not be written.
      ReadFailed: no checkpoint could be read, though there are some.
    """
    settings = config.train
    recipe = stepping.make_recipe(config, devices)
    with ExitStack() as stack:
        resumes = checkpoint.steps_in(checkpoint.folder_of(workdir))
        with split.part("restore" if resumes else "compile"):
            state = restore(workdir, recipe, devices, settings.init_from)
        start, last = int(state.step), settings.steps
        given = config, saved, workdir, devices, store, validation, preemption, split
        parts = _open_parts(*given, recipe, start, stack.enter_context)
        from_host = isinstance(store, host_store.HostStore)
        train_step = stepping.compile_step(recipe, devices, from_host)
        if start:
            parts.validate(start, state)
        split.switch("steps")
        for step in range(start + 1, last + 1):
            with split.part("data_wait"):
                data = parts.batches(step - 1)
            if step == start + 1:
                with split.part("compile"):
                    train_step = compile_now(train_step, state, data)
            with parts.trace.step(step, state):
                state, metrics = train_step(state, data)
                parts.recorder.add(step, metrics)
            parts.trace.end(step, state)
            with split.part("validation"):
                parts.scores.look(step)
            preemption.attentive = True
            stopping = preemption.should_stop(step)
            saving = is_due(config, step) or step % settings.checkpoint_every == 0
            if saving or stopping:
                parts.save(step, state, stopping)
        split.switch("other")
        preemption.attentive = False
        with split.part("validation"):
            parts.scores.wait()
        with split.part("checkpoint"):
            parts.checkpoints.wait()
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
