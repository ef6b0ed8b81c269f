"""The course of the learning rate: what it needs of the fields, and what a run's length
has to do with it. Loads neither JAX nor Optax; the rates are `training/optimizer.py`'s.

Under the schedule wsd (warm-up, stable, decay; Hu et al., 2024) no rate before the
decay depends on how long the run is. So a run may be made longer, or shorter to let it
decay at once, until its rate has begun to fall.
"""

from collections.abc import Mapping
from typing import Any

from btsrn_jax.errors import InputError
from btsrn_jax.fields import FIELDS

LENGTHS = ("train.steps", "train.decay_steps", "train.decay_share")


def check(train: Mapping) -> None:
    """Raises InputError if fields of the section `train` contradict the schedule."""
    schedule, steps, warmup = train.schedule, train.steps, train.warmup_steps
    share = train.decay_share
    if warmup and schedule == "exponential":
        raise InputError(
            "config.train.warmup_steps needs config.train.schedule=cosine or wsd, not"
            f" {schedule}"
        )
    if schedule != "wsd" and share != FIELDS["train.decay_share"].default:
        raise InputError(
            f"config.train.decay_share is {share:g}: it needs"
            f" config.train.schedule=wsd, not {schedule}"
        )
    if steps is None:
        return
    if warmup >= steps:
        raise InputError(
            f"config.train.warmup_steps {warmup} leaves nothing of {steps} steps"
        )
    if schedule == "wsd" and warmup > decay_start(steps, share):
        raise InputError(
            f"config.train.warmup_steps is {warmup}, but the decay begins after step"
            f" {decay_start(steps, share)} of {steps} (config.train.decay_share is"
            f" {share:g}): a shorter warm-up or a smaller share"
        )


def decay_start(steps: int, decay_share: float) -> int:
    """Returns after which step of a run the rate falls under wsd; `steps` if it never
    does, which a share of 0 asks for."""
    if not decay_share:
        return steps
    return steps - max(1, round(decay_share * steps))


def fewest_steps(made: int, decay_share: float) -> int:
    """Returns the length of the shortest run under wsd whose rate does not fall before
    the step `made`; `decay_share` is below 1."""
    steps = max(made, int((made - 0.5) / (1 - decay_share)) - 1)
    while decay_start(steps, decay_share) < made:
        steps += 1
    return steps


def free_lengths(old: Mapping[str, Any], new: Mapping[str, Any], made: int) -> set[str]:
    """Returns in which of `LENGTHS` a run may differ from its continuation: the rates
    of the steps that are made stay as they were.

    Args:
      old, new: values by the full names of fields.
      made: steps of the run.
    """
    schedule = new["train.schedule"]
    if schedule == "exponential":
        same = old["train.decay_steps"] == new["train.decay_steps"]
        return {"train.steps"} if same else set()
    if schedule == "wsd" and all(_is_stable(config, made) for config in (old, new)):
        return set(LENGTHS)
    return {"train.decay_steps"}  # it follows from the steps, and is of no effect here


def _is_stable(config, made):
    steps, share = config["train.steps"], config["train.decay_share"]
    return not made or made <= decay_start(steps, share)
