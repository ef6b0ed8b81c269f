"""What a run says of itself: what it is about to do, and how to go on after its end."""

import importlib.util
import math
import pathlib
import shlex
from collections.abc import Mapping

from jax.sharding import Mesh
from ml_collections import ConfigDict

from btsrn_jax import mesh, network, schedules, storage
from btsrn_jax.training.validation import Validation

LITTLE = 1 / 1000  # of the first learning rate: next to nothing is learned below it
SHARE = 1 / 5  # of the steps; the paper's own last eighth lies below LITTLE


def describe(
    config: ConfigDict,
    sizes: list[tuple[int, int]],
    one_pass: int,
    validation: Validation | None,
    devices: Mesh,
    workdir: pathlib.Path,
) -> str:
    """Returns what is about to happen: five lines, one more if LR patches are degraded,
    and one more with a warning.

    Args:
      config: resolved.
      sizes: (height, width) in HR pixels of every training image.
      one_pass: steps in which the images are seen once.
      validation: None: nothing is validated.
      devices: what the run is on.
      workdir: the run directory.
    """
    model, train = network.build(config.model, config.scale), config.train
    megapixels = sum(h * w for h, w in sizes) / 1e6
    sets = validation.sets if validation else {}
    names = ", ".join(f"{name} ({len(pairs)})" for name, pairs in sets.items())
    names += f", LR {config.eval.degrade}" * bool(names and config.eval.degrade)
    best = config.eval.best_set
    often = f"every {_steps(train.eval_every)} and " * (train.eval_every < train.steps)
    lines = [
        f"{config.model.name.upper()} x{config.scale}:"
        f" {network.parameter_count(model):,} parameters, on {mesh.describe(devices)}",
        f"data: {_count(len(sizes), 'image')}, {megapixels:.1f} HR megapixels; a pass"
        f" is {_steps(one_pass)} of {train.batch_size} patches (one every 84 pixels,"
        " upright and turned)",
        describe_degradation(config.data.degradation),
        f"schedule: {_steps(train.steps)}, {train.steps / one_pass:.3g} passes;"
        f" {describe_rate(train)}",
        warn_of_rate(train),
        f"validation: {names or 'none (config.eval.sets is empty)'}"
        + f", {often}at the end" * bool(names)
        + f"; the best checkpoint is that of {best}" * bool(best),
        f"run directory: {workdir}, metrics every {_steps(train.log_every)}; watch it:"
        f" {_watch(workdir, train.tracker)}",
    ]
    return "\n".join(filter(None, lines))


def describe_degradation(section: Mapping) -> str:
    """Returns how often and how much LR patches are degraded, in a line; "" if they
    are not.

    Args:
      section: `data.degradation` of a config.
    """
    kinds = {
        "blur": ("blur_width", "of {:g} to {:g} LR pixels"),
        "noise": ("noise_level", "of {:g} to {:g} grey levels"),
        "jpeg": ("jpeg_quality", "of quality {:g} to {:g}"),
    }
    parts = [
        f"{kind} {words.format(*section[limits])} ({section[kind]:.3g} of patches)"
        for kind, (limits, words) in kinds.items()
        if section[kind]
    ]
    return f"LR patches are degraded: {', '.join(parts)}" if parts else ""


def describe_rate(train: Mapping) -> str:
    """Returns the course of the learning rate in words: from, to, and when.

    Args:
      train: the section of a resolved config.
    """
    rate, steps = train["learning_rate"], train["steps"]
    rise = ""
    if train["warmup_steps"]:
        rise = f"from 0 to {rate:.3g} in {_steps(train['warmup_steps'])}, then "
    if train["schedule"] == "cosine":
        rise = rise or f"from {rate:.3g} "
        return f"learning rate {rise}along a cosine to 0 at step {steps:,}"
    if train["schedule"] == "wsd":
        start = schedules.decay_start(steps, train["decay_share"])
        fall = f"to step {start:,}, then along 1 - sqrt to 0 at step {steps:,}"
        fall = fall if start < steps else "at every step"
        return f"learning rate {rise}{rate:.3g} {fall}"
    decays = (steps - 1) // train["decay_steps"]
    if not decays or train["decay_rate"] == 1:
        return f"learning rate {rate:.3g} at every step"
    end = rate * train["decay_rate"] ** decays
    return (
        f"learning rate from {rate:.3g}, x {train['decay_rate']:g} after every"
        f" {_steps(train['decay_steps'])}, to {end:.2g}"
    )


def warn_of_rate(train: Mapping) -> str:
    """Returns a warning if many of the last steps are made at a learning rate that
    teaches next to nothing; "" if they are few.

    Args:
      train: the section of a resolved config.
    """
    steps, decay = train["steps"], train["decay_steps"]
    if train["schedule"] != "exponential" or train["decay_rate"] == 1:
        return ""
    first = decay * math.ceil(math.log(LITTLE) / math.log(train["decay_rate"]))
    if steps - first <= SHARE * steps:
        return ""
    return (
        f"warning: after step {first:,} of {steps:,} the learning rate is below"
        f" {LITTLE * train['learning_rate']:.2g}, and little is learned; a new run with"
        f" --config.train.decay_steps={math.ceil(steps / 16)} spreads the decay out"
    )


def _steps(count):
    return _count(count, "step")


def _count(count, noun):
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _watch(workdir, tracker):
    """Returns where the curves of a run can be seen while it goes on."""
    if tracker == "wandb":
        return "at Weights & Biases"
    if tracker != "tensorboard":
        return shlex.join(["tail", "-f", str(storage.path(workdir) / "metrics.jsonl")])
    command = f"tensorboard --logdir {shlex.quote(str(workdir))}"
    if importlib.util.find_spec("tensorboard") is None:
        command += " (pip install tensorboard)"
    return command


def complete(config: Mapping, workdir: pathlib.Path) -> str:
    """Returns what is said when a finished run is started again."""
    steps = config["train"]["steps"]
    to_go_on = go_on(config, workdir, steps)
    return f"complete: {steps} of {steps} steps; to go on: {to_go_on}"


def go_on(
    config: Mapping, workdir: pathlib.Path, made: int, steps: int | None = None
) -> str:
    """Returns how the length of a run is changed, in words and flags.

    Under exponential decay the run itself can be continued, if decay_steps stays, and
    under wsd before its decay. Otherwise a new run starts from the weights.

    Args:
      config: of the run, resolved.
      workdir: the run directory.
      made: the steps that the run has made.
      steps: how long the run is to be; by default twice as long.
    """
    train = config["train"]
    schedule, share = train["schedule"], train.get("decay_share")
    start = f"--config.train.init_from={workdir}"
    anew = shlex.join([start, f"--workdir={_free_name(workdir)}"])
    longer = steps or 2 * train["steps"]
    if schedule == "exponential":
        flag = f"decay_steps={train['decay_steps']}"
    elif schedule == "wsd" and made <= schedules.decay_start(train["steps"], share):
        flag = f"decay_share={share}"
        longer = max(longer, schedules.fewest_steps(made, share))
    else:
        why = f"ends at step {train['steps']} and cannot be extended"
        if schedule == "wsd":
            fallen = schedules.decay_start(train["steps"], share)
            why = f"can be extended before its rate falls, here up to step {fallen}"
        return (
            f"the same command with {anew}, a new run that starts from these weights"
            f" (schedule={schedule} {why})"
        )
    return (
        f"the same command with --config.train.steps={longer} --config.train.{flag}; or"
        f" with {anew}, a new run that starts from these weights at the first learning"
        " rate"
    )


def _free_name(workdir):
    number = 2
    while storage.path(f"{workdir}-{number}").exists():
        number += 1
    return f"{workdir}-{number}"


def next_steps(workdir: pathlib.Path) -> str:
    """Returns the commands that fit a finished run, a line each."""
    run = shlex.quote(str(workdir))
    lines = [
        f"next: btsrn upscale photo.jpg enlarged.png --model {run}",
        f"      btsrn evaluate --model {run} --sets FOLDER",
    ]
    if not storage.in_bucket(storage.path(workdir)):  # a report wants a local folder
        lines.append(f"      btsrn report {run} --out report")
    return "\n".join(lines)
