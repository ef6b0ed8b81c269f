"""The learning rate and the optimiser (paper, Sec. 4)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from btsrn_jax import schedules
from btsrn_jax.errors import InputError


def make_schedule(train: ConfigDict) -> optax.Schedule:
    """Returns the learning rate by step: exponential in stairs (paper, Sec. 4), cosine
    to zero, or wsd: constant, then to zero (Hu et al., 2024, arXiv:2404.06395)."""
    if train.schedule == "exponential":
        return optax.exponential_decay(
            train.learning_rate, train.decay_steps, train.decay_rate, staircase=True
        )
    if train.schedule == "wsd":
        return functools.partial(_warm_up_stable_decay, train=train)
    if train.schedule != "cosine":
        raise InputError(f"no schedule {train.schedule!r} in training/optimizer.py")
    return optax.warmup_cosine_decay_schedule(
        0.0 if train.warmup_steps else train.learning_rate,
        train.learning_rate,
        train.warmup_steps,
        train.steps,
    )


def _warm_up_stable_decay(count, train):
    start = schedules.decay_start(train.steps, train.decay_share)
    risen = jnp.minimum(count / train.warmup_steps, 1.0) if train.warmup_steps else 1.0
    gone = jnp.clip((count - start) / max(1, train.steps - start), 0.0, 1.0)
    # 1 - sqrt was better than a straight line (Hägele et al., 2024, arXiv:2405.18392):
    # it leaves the high rates at once, and makes more steps at low ones.
    return train.learning_rate * risen * (1.0 - jnp.sqrt(gone))


def make_optimizer(
    train: ConfigDict, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """Returns Adam (paper, Sec. 4), or Muon (Jordan, 2024; Liu et al., 2025).

    Muon treats each kernel as a matrix of inputs by features, and makes its momentum
    orthogonal by five Newton-Schulz steps. The root mean square of an update is 0.6,
    three times Adam's usual one; Adam's own gained less (configs/release.py). Biases,
    and kernels of at most three inputs or features, use Adam with Nesterov's momentum.
    """
    if train.optimizer == "adam":
        return optax.adam(schedule)
    if train.optimizer != "muon":
        raise InputError(f"no optimizer {train.optimizer!r} in training/optimizer.py")

    def matrices(params):
        kernel = optax.contrib.MuonDimensionNumbers((0, 1, 2), 3)
        return jax.tree.map(
            lambda x: kernel if x.ndim == 4 and min(x.shape[2:]) > 3 else None, params
        )

    return optax.contrib.muon(
        schedule,
        muon_weight_dimension_numbers=matrices,
        adam_learning_rate=schedule,
        consistent_rms=0.6,
    )


def updates_made(opt_state: Any) -> jax.Array:
    """Returns by how many updates an optimiser's schedule has moved on, () int32: steps
    that were skipped do not count."""

    def has_count(node):
        return isinstance(node, optax.ScaleByScheduleState)

    found = jax.tree.leaves(opt_state, is_leaf=has_count)
    return next(node.count for node in found if has_count(node))
