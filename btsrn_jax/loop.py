"""A run: data, state, steps, validation, checkpoints, until the end or a signal."""

import contextlib
import functools
import hashlib
import json
import pathlib
import signal
import threading
import time
from collections.abc import Callable

import jax
import numpy as np
from ml_collections import ConfigDict

from btsrn_jax import checkpoint, datasets, evaluate, inference, mesh, sampler, train
from btsrn_jax import config as schema
from btsrn_jax import model as network
from btsrn_jax.errors import InputError
from btsrn_jax.journal import Journal, Progress

STOPPED = 75  # exit code: stopped early; the same command continues
MAX_SKIPPED = 20  # updates in a row that were not finite, then the run has failed


class Diverged(RuntimeError):
    """The loss or its gradient stayed non-finite."""


class Run:
    """What the loop holds on to; `run` below puts it together."""

    def __init__(self, config, saved_config, workdir, devices, validate, log):
        self.config, self.saved_config = config, saved_config
        self.recipe = train.make_recipe(config, devices)
        self.step_fn = train.compile_step(self.recipe, devices)
        self.devices, self.validate, self.log = devices, validate, log
        self.checkpoints = checkpoint.Checkpoints(workdir, log)
        self.stop = threading.Event()
        self.deadline = float("inf")

    def restore(self) -> train.TrainState:
        """The newest whole checkpoint, or a new state."""
        found = self.checkpoints.restore_latest()
        if found is None:
            source = self.config.train.init_from
            params = train.initial_params(source, self.recipe) if source else None
            return train.create_state(self.recipe, self.devices, params)
        step, arrays = found
        self.log(f"continuing from step {step}")
        create = functools.partial(train.create_state, self.recipe, self.devices)
        state = checkpoint.fill(jax.eval_shape(create), arrays)
        return jax.device_put(state, mesh.replicated(self.devices))

    def steps(self, state: train.TrainState, store: sampler.Store, journal: Journal):
        """Steps to the end; returns the state, and whether it was reached."""
        settings = self.config.train
        start, last = int(state.step), settings.steps
        self.progress = Progress(start, last, settings.batch_size)
        pending = None  # metrics are fetched a step late: the device never waits
        losses = []
        for step in range(start + 1, last + 1):
            state, metrics = self.step_fn(state, store)
            losses.append(metrics["loss"])
            if pending:
                self._record(journal, *pending)
            elif step == start + 1:  # compiled now; the clock starts
                self.progress.begin(step)
            due = step % settings.log_every == 0 or step == last
            pending = (step, metrics, losses if due else None)
            if due:
                losses = []
            stopping = self.stop.is_set() or time.monotonic() > self.deadline
            validating = step % settings.eval_every == 0 or step == last
            if validating or stopping or step % settings.checkpoint_every == 0:
                self._record(journal, *pending)
                pending = None
                ended = stopping and step < last
                psnr = None
                if validating and not ended:
                    psnr = self._validate(journal, state, step == last, step)
                self.checkpoints.save(step, state, self.saved_config, psnr)
                self.progress.begin(step)
                if ended:
                    return state, False
        return state, True

    def _record(self, journal, step, metrics, losses):
        """Progress on the console; at a logging step (with losses) a line of metrics."""
        values = {name: float(value) for name, value in metrics.items()}
        if values["skipped"] >= MAX_SKIPPED:
            raise Diverged(
                f"the loss or its gradient was not finite for {MAX_SKIPPED} steps up to"
                f" step {step}; the last good checkpoint is intact. A lower"
                " train.learning_rate or a train.clip_norm may help"
            )
        if losses is not None:
            values["loss"] = float(np.mean(jax.device_get(losses)))
            rate = self.progress.rate
            journal.write(
                step, **values, **({"steps_per_second": rate} if rate else {})
            )
        self.progress.update(step, loss=values["loss"])

    def _validate(self, journal, state, everything, step):
        if self.validate is None:
            return None
        limit = None if everything else self.config.eval.max_images
        rows = self.validate(train.inference_variables(state), limit)
        psnr = mean_psnr(rows)
        protocol = self.config.eval.protocol
        journal.write(step, **{f"psnr_{protocol}": psnr})
        self.progress.note(f"step {step}: validation PSNR ({protocol}) {psnr:.3f} dB")
        return psnr


def run(
    config: ConfigDict, workdir: pathlib.Path, devices, log: Callable = print
) -> int:
    """Trains, or continues what `workdir` holds, to the end of `config`.

    Returns:
      0 when done; 75 when stopped by SIGTERM, SIGINT or the time limit, all saved.
    """
    started = time.monotonic()
    pairs = datasets.training_pairs(config)
    sets = datasets.evaluation_sets(config)
    loaded = datasets.load_training(pairs, config.scale, config.train.patch)
    sizes = [hr.shape[:2] for _, hr in loaded]
    one_pass = sampler.steps_per_pass(sizes, config.train.batch_size)
    config = schema.resolve_steps(config, one_pass)
    schema.validate(config, devices.size)
    saved_config = claim(workdir, config, pairs, sizes)
    log(describe(config, sizes, one_pass, sets, devices))

    validate = make_validation(config, sets, devices) if sets else None
    this = Run(config, saved_config, workdir, devices, validate, log)
    if config.train.time_limit:
        this.deadline = started + 60 * config.train.time_limit
    state = this.restore()
    store = sampler.make_store(loaded, config.scale)
    store = jax.device_put(store, mesh.replicated(devices))
    del loaded
    journal = Journal(workdir, int(state.step))
    try:
        with stop_on_signals(this.stop):
            state, done = this.steps(state, store, journal)
    finally:
        journal.close()
        this.checkpoints.close()
    if not done:
        log(f"stopped at step {int(state.step)}, saved; the same command continues")
        return STOPPED
    return 0


def claim(workdir, config, pairs, sizes) -> dict:
    """Writes config.json into a new run directory, and returns what it holds;
    InputError where there is a run already that this config contradicts."""
    text = "".join(
        f"{p.name} {h} {w}\n" for p, (h, w) in zip(pairs, sizes, strict=True)
    )
    digest = hashlib.sha256(text.encode()).hexdigest()
    wanted = config.to_dict() | {"data_sha256": digest}
    wanted = json.loads(json.dumps(wanted))  # tuples become lists
    path = pathlib.Path(workdir) / "config.json"
    if path.exists():
        try:
            saved = json.loads(path.read_text())
        except ValueError:
            raise InputError(f"{path} is damaged: not a config") from None
        found = schema.contradictions(saved, wanted)
        if found:
            raise InputError(
                f"{workdir} holds a run of another config: {'; '.join(found)}."
                " Take another --workdir, or the config of that run"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(wanted, indent=2) + "\n")
    temporary.replace(path)
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
    """validate(variables, limit) -> rows of evaluate.py, no ensemble; of at most
    `limit` images a set, all where it is None. Compiled once."""
    enlarge = inference.enlarge_for(config, devices, ensemble=False)

    def validate(variables, limit=None):
        function = functools.partial(enlarge, variables)
        subject = evaluate.Subject(config.model.name, config.scale, False, function)
        rows = []
        for name, pairs in sets.items():
            rows += evaluate.evaluate_set(
                name, pairs[:limit], subject, [config.eval.protocol], progress=False
            )
        return rows

    return validate


def mean_psnr(rows: list) -> float:
    """The mean over all images of all sets."""
    return float(np.mean([row.psnr for row in rows if row.image != "mean"]))


@contextlib.contextmanager
def stop_on_signals(event: threading.Event):
    """SIGTERM (preemption) and SIGINT (Ctrl-C) set the event; a second one of the same
    kind acts as usual. Elsewhere than in the main thread nothing is installed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)
    }

    def handle(number, frame):
        event.set()
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
