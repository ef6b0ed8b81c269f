"""A run: data, state, steps, validation, checkpoints, until the end or a signal."""

import functools
import hashlib
import json
import math
import pathlib
import time
from collections.abc import Callable

import jax
import numpy as np
from ml_collections import ConfigDict

from btsrn_jax import checkpoint, evaluation, inference, mesh, network, storage
from btsrn_jax import config as schema
from btsrn_jax.data import (
    evaluation_sets,
    host_store,
    load_store,
    open_batches,
    sampler,
    training_pairs,
)
from btsrn_jax.errors import InputError
from btsrn_jax.training import preemption
from btsrn_jax.training.metrics_log import MetricsLog, Progress
from btsrn_jax.training.step import (
    TrainState,
    compile_step,
    create_state,
    inference_variables,
    initial_params,
    make_recipe,
)

MAX_SKIPPED = 20  # updates in a row that were not finite, then the run has failed


class Diverged(RuntimeError):
    """The loss or its gradient stayed non-finite."""


class Run:
    """What the loop holds on to; `run` below puts it together."""

    def __init__(self, config, saved_config, workdir, devices, watch, log):
        self.config, self.saved_config = config, saved_config
        self.workdir, self.devices = workdir, devices
        self.watch, self.log = watch, log
        self.recipe = make_recipe(config, devices)
        self.checkpoints = checkpoint.Checkpoints(workdir, log)
        self.validate = None  # variables, limit -> mean PSNR
        self.source = None  # step -> what train_step takes its batch from
        self.step_fn = None

    def restore(self) -> TrainState:
        """The newest whole checkpoint, or a new state."""
        found = self.checkpoints.restore_latest()
        if found is None:
            source = self.config.train.init_from
            params = initial_params(source, self.recipe) if source else None
            return create_state(self.recipe, self.devices, params)
        step, arrays = found
        self.log(f"continuing from step {step}")
        create = functools.partial(create_state, self.recipe, self.devices)
        state = checkpoint.fill(jax.eval_shape(create), arrays)
        return jax.device_put(state, mesh.replicated(self.devices))

    def steps(self, state: TrainState, journal: MetricsLog):
        """Steps to the end; returns the state, and whether it was reached.

        At a step that is due for it:
          1. its metrics are written;
          2. the state is saved, in the background;
          3. it is validated meanwhile, and its score added to the checkpoint. Where a
             stop is wanted, this is left to the continued run, which begins by it.
        """
        settings = self.config.train
        start, last = int(state.step), settings.steps
        self.progress = Progress(start, last, settings.batch_size)
        if start and not self._validate(journal, state, start):
            return state, False
        self.watch.attentive = False  # compiles
        pending = None  # metrics are fetched a step late: the device never waits
        losses = []
        for step in range(start + 1, last + 1):
            state, metrics = self.step_fn(state, self.source(step - 1))
            losses.append(metrics["loss"])
            if pending:
                self._record(journal, *pending)
            elif step == start + 1:  # compiled now; the clock starts
                self.progress.begin(step)
                self.watch.attentive = True
            due = step % settings.log_every == 0 or step == last
            pending = (step, metrics, losses if due else None)
            if due:
                losses = []
            stopping = self.watch.should_stop(step)
            validating = step % settings.eval_every == 0 or step == last
            if validating or stopping or step % settings.checkpoint_every == 0:
                self._record(journal, *pending)
                pending = None
                journal.flush()
                self.checkpoints.save(step, state, self.saved_config)
                if stopping and step < last:
                    return state, False
                if not self._validate(journal, state, step):
                    return state, False
                self.progress.begin(step)
        return state, True

    def _record(self, journal, step, metrics, losses):
        """Progress on the console; at a logging step, one with losses, a line."""
        values = {name: float(value) for name, value in metrics.items()}
        if values["skipped"] >= MAX_SKIPPED:
            raise Diverged(
                f"the loss or its gradient was not finite for {MAX_SKIPPED} steps up to"
                f" step {step}; the last good checkpoint is intact. A lower"
                " train.learning_rate or a train.clip_norm may help"
            )
        if losses is not None:
            values["loss"] = float(np.mean(jax.device_get(losses)))
            if self.progress.rate:
                values["steps_per_second"] = self.progress.rate
            waited = self.source.share_waited()
            if waited is not None:
                values["data_wait"] = waited
            journal.write(step, **values)
        self.progress.update(step, loss=values["loss"])

    def _validate(self, journal, state, step):
        """Validates a step that is due and has no score yet; False where a stop was
        wanted meanwhile."""
        settings = self.config.train
        due = step % settings.eval_every == 0 or step == settings.steps
        if self.validate is None or not due:
            return True
        self.watch.attentive = False  # a stop may end the process from here on
        if self.watch.signalled():
            return False
        name = f"psnr_{self.config.eval.protocol}"
        known = journal.last(step).get(name, math.nan)
        psnr = float(mesh.gather(np.float64(known))[0, 0])
        if math.isnan(psnr):
            # The same images at every step, or scores would not compare.
            limit = self.config.eval.max_images
            psnr = self.validate(inference_variables(state), limit)
            journal.write(step, **{name: psnr})
            self.progress.note(f"step {step}: validation PSNR ({name[5:]}) {psnr:.3f}")
        self.checkpoints.set_score(step, psnr)
        self.watch.attentive = True
        return True


def run(
    config: ConfigDict,
    workdir: pathlib.Path,
    devices,
    log: Callable = print,
    watch: preemption.Preemption | None = None,
) -> int:
    """Trains, or continues what `workdir` holds, to the end of `config`.

    Returns:
      0 when done; 75 when stopped by SIGTERM, SIGINT or the time limit, all saved.
    """
    started = time.monotonic()
    watch = watch or preemption.Preemption()
    pairs = training_pairs(config)
    sets = evaluation_sets(config)
    store = load_store(config, pairs)
    sizes = host_store.hr_sizes(store)
    one_pass = sampler.steps_per_pass(sizes, config.train.batch_size)
    config = schema.resolve_steps(config, one_pass)
    schema.validate(config, devices.size)
    saved_config = open_run(workdir, config, pairs, sizes, devices)
    log(describe(config, sizes, one_pass, sets, devices))

    this = Run(config, saved_config, workdir, devices, watch, log)
    if sets:
        this.validate = make_validation(config, sets, devices)
    if config.train.time_limit:
        watch.deadline = started + 60 * config.train.time_limit
    state = this.restore()
    start = int(state.step)
    from_host = isinstance(store, host_store.HostStore)
    this.step_fn = compile_step(this.recipe, devices, from_host)
    last = config.train.steps
    this.source = open_batches(store, this.recipe, devices, start, last)
    del store  # or the host would keep a copy of what lies on the devices
    journal = MetricsLog(workdir, start, mesh.is_first())
    watch.finish = this.checkpoints.wait
    try:
        state, done = this.steps(state, journal)
        watch.attentive = False
        this.checkpoints.wait()
    finally:
        watch.attentive = False
        this.source.close()
        journal.close()
        this.checkpoints.close()
    if not done or watch.signalled():
        log(f"stopped at step {int(state.step)}, saved; the same command continues")
        return preemption.STOPPED
    return 0


def open_run(workdir, config, pairs, sizes, devices) -> dict:
    """Writes config.json into a new run directory, and returns what it holds;
    InputError where there is a run already that this config contradicts."""
    text = "".join(
        f"{p.name} {h} {w}\n" for p, (h, w) in zip(pairs, sizes, strict=True)
    )
    digest = hashlib.sha256(text.encode()).hexdigest()
    known = {"data_sha256": digest, "devices": mesh.describe(devices)}
    wanted = config.to_dict() | known
    wanted = json.loads(json.dumps(wanted))  # tuples become lists
    path = storage.path(workdir) / "config.json"
    if path.exists():
        try:
            saved = json.loads(path.read_text())
        except ValueError:
            raise InputError(f"{path} is damaged: not a config") from None
        if saved.get("data_sha256", digest) != digest:
            raise InputError(
                f"{workdir} holds a run on other training images: their names or sizes"
                f" have changed, now {len(pairs)} images. Take another --workdir"
            )
        found = schema.contradictions(saved, wanted)
        if found:
            raise InputError(
                f"{workdir} holds a run of another config: {'; '.join(found)}."
                " Take another --workdir, or the config of that run"
            )
    mesh.gather(0)  # all have read what there was
    if mesh.is_first():
        storage.write(path, json.dumps(wanted, indent=2) + "\n")
    return wanted


def describe(config, sizes, one_pass, sets, devices) -> str:
    """What is about to happen, for the console."""
    model = network.build(config.model, config.scale)
    megapixels = sum(h * w for h, w in sizes) / 1e6
    validated = ", ".join(f"{name} ({len(pairs)})" for name, pairs in sets.items())
    name = config.model.name.upper()
    return (
        f"{name} x{config.scale}: {network.parameter_count(model):,} parameters\n"
        f"data: {len(sizes)} images, {megapixels:.1f} HR megapixels; a pass is"
        f" {one_pass} steps of {config.train.batch_size} patches\n"
        f"training: {config.train.steps} steps on {mesh.describe(devices)}\n"
        f"validation: {validated or 'none (config.eval.sets is empty)'}"
    )


def make_validation(config: ConfigDict, sets: dict, devices) -> Callable:
    """validate(variables, limit) -> the mean PSNR over the images of all sets, of at
    most `limit` images a set; no ensemble. Compiled once.

    Every process takes its share of the images, on its own devices.
    """
    alone = jax.process_count() == 1
    enlarge = inference.tiled_upscaler(
        config, devices if alone else mesh.local(), ensemble=False
    )
    protocols = [config.eval.protocol]

    def validate(variables, limit=None):
        if not alone:
            variables = jax.tree.map(np.asarray, variables)
        function = functools.partial(enlarge, variables)
        subject = evaluation.Upscaler(config.model.name, config.scale, False, function)
        images = [(name, p) for name, pairs in sets.items() for p in pairs[:limit]]
        found = np.full(len(images), np.nan)
        for i in range(jax.process_index(), len(images), jax.process_count()):
            name, pair = images[i]
            rows = evaluation.evaluate_set(
                name, [pair], subject, protocols, progress=False
            )
            found[i] = rows[0].psnr
        return float(np.mean(np.nansum(mesh.gather(found), axis=0)))

    return validate
