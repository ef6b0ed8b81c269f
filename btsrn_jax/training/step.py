"""Training: the state and the step, compiled once over the mesh (paper, Sec. 4)."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from btsrn_jax import checkpoint, inference, mesh, network
from btsrn_jax.data import sampler
from btsrn_jax.errors import InputError


class TrainState(NamedTuple):
    """Everything that changes. step: updates tried, int32. model_state: batch
    statistics. ema: averaged params, {} without. skipped: updates not made because the
    loss or the gradient was not finite, in a row, int32."""

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any
    ema: Any
    skipped: jax.Array


class Recipe(NamedTuple):
    """What the step is compiled for. side, target: LR and HR pixels of a patch.
    candidates: patches drawn for each that is taken. parts: how many the batch is
    computed in."""

    model: network.BTSRN
    optimizer: optax.GradientTransformation
    schedule: Callable
    loss: str
    ema: float
    seed: int
    batch_size: int
    candidates: int
    side: int
    target: int
    parts: int


LOSSES = {
    "mse": lambda error: jnp.mean(error**2),
    "l1": lambda error: jnp.mean(jnp.abs(error)),
    "charbonnier": lambda error: jnp.mean(jnp.sqrt(error**2 + 1e-6)),
}


def train_step(state: TrainState, data: Any, recipe: Recipe, divided: Any):
    """One update, pure. The batch is a function of (seed, step) alone.

    Args:
      data: a sampler.Store, on every device; or the step's sampler.Patches, divided.
      divided: sharding of a batch; the mean over it makes the all-reduce.

    Returns:
      The next state, and metrics: loss, grad_norm, learning_rate, skipped.
    """
    r = recipe
    lr, hr = sampler.batch(
        data,
        r.seed,
        state.step,
        r.batch_size,
        r.side,
        r.target,
        divided,
        r.candidates,
    )

    def loss_of(params, lr, hr):
        variables = {"params": params, **state.model_state}
        sr, model_state = network.super_resolve(r.model, variables, lr, train=True)
        # HR - B(LR) less the residual is HR less their sum.
        return LOSSES[r.loss](r.model.loss_difference(sr, hr)), model_state

    gradient_of = jax.value_and_grad(loss_of, has_aux=True)
    (loss, model_state), gradient = in_parts(
        gradient_of, state.params, (lr, hr), r.parts
    )
    norm = optax.tree.norm(gradient)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    updates, opt_state = r.optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    # Early averages follow quickly, so that the start is forgotten.
    decay = jnp.minimum(r.ema, (1.0 + state.step) / (10.0 + state.step))
    ema = (
        jax.tree.map(
            lambda old, new: decay * old + (1 - decay) * new, state.ema, params
        )
        if r.ema
        else {}
    )
    made = state._replace(
        params=params, model_state=model_state, opt_state=opt_state, ema=ema
    )
    state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), made, state)
    state = state._replace(
        step=state.step + 1, skipped=jnp.where(finite, 0, state.skipped + 1)
    )
    return state, {
        "loss": loss,
        "grad_norm": norm,
        "learning_rate": r.schedule(state.step - 1),
        "skipped": state.skipped,
    }


def in_parts(function: Callable, params: Any, batch: tuple, parts: int) -> Any:
    """function(params, *batch), a mean over the batch, as the mean over equal parts,
    one after the other: on a CPU the activations of one patch stay in the caches."""
    if parts == 1:
        return function(params, *batch)
    batch = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch)
    first = jax.tree.map(lambda x: x[0], batch)
    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype),
        jax.eval_shape(function, params, *first),
    )

    def add(total, part):
        return jax.tree.map(jnp.add, total, function(params, *part)), None

    total, _ = jax.lax.scan(add, zeros, batch)
    return jax.tree.map(lambda x: x / parts, total)


def make_schedule(train: ConfigDict) -> Callable:
    """Learning rate by step: staircase exponential as in the paper, or cosine."""
    if train.schedule == "exponential":
        return optax.exponential_decay(
            train.learning_rate, train.decay_steps, train.decay_rate, staircase=True
        )
    return optax.warmup_cosine_decay_schedule(
        0.0 if train.warmup_steps else train.learning_rate,
        train.learning_rate,
        train.warmup_steps,
        train.steps,
    )


def make_optimizer(train: ConfigDict, schedule: Callable):
    """Adam (paper, Sec. 4); or Muon (Jordan, 2024; Liu et al., 2025) for the kernels as
    matrices of inputs by features: momentum made orthogonal by five Newton-Schulz
    steps, its root mean square 0.6, three times Adam's usual one (measured: 1 times
    gains less, see configs/release.py). The rest, and what has three inputs or
    features, is left to Adam with Nesterov's momentum."""
    if train.optimizer == "adam":
        return optax.adam(schedule)

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


def make_recipe(config: ConfigDict, devices) -> Recipe:
    """The recipe of a resolved config on a mesh."""
    train = config.train
    schedule = make_schedule(train)
    clip = [optax.clip_by_global_norm(train.clip_norm)] if train.clip_norm else []
    platform = mesh.platform(devices)
    dtype = config.model.dtype
    if dtype == "auto":
        dtype = "float32" if platform == "cpu" else "bfloat16"
    compute = network.Compute(jnp.dtype(dtype), platform)
    model = network.build(config.model, config.scale, compute)
    side = train.patch // config.scale
    # Patch by patch on a CPU; batch statistics need the batch as a whole.
    by_patch = platform == "cpu" and devices.size == 1 and model.norm != "batch"
    return Recipe(
        model,
        optax.chain(*clip, make_optimizer(train, schedule)),
        schedule,
        train.loss,
        train.ema,
        train.seed,
        train.batch_size,
        train.candidates,
        side,
        model.output_size(side),
        train.batch_size if by_patch else 1,
    )


def create_state(recipe: Recipe, devices, params: Any = None) -> TrainState:
    """The state at step 0, born on the mesh; `params` replace fresh ones."""

    def create(params):
        variables = network.init(recipe.model, jax.random.key(recipe.seed))
        fresh = variables.pop("params")
        params = fresh if params is None else params
        zero = jnp.zeros((), jnp.int32)
        ema = jax.tree.map(jnp.copy, params) if recipe.ema else {}
        opt_state = recipe.optimizer.init(params)
        return TrainState(zero, params, variables, opt_state, ema, zero)

    return jax.jit(create, out_shardings=mesh.replicated(devices))(params)


def compile_step(recipe: Recipe, devices, from_host: bool = False) -> Callable:
    """step(state, data) -> (state, metrics), jitted on the mesh; state is donated.
    from_host: data is a step's patches instead of the store."""
    whole, divided = mesh.replicated(devices), mesh.split(devices)
    return jax.jit(
        functools.partial(train_step, recipe=recipe, divided=divided),
        in_shardings=(whole, divided if from_host else whole),
        out_shardings=(whole, whole),
        donate_argnums=0,
    )


def inference_variables(state: TrainState) -> dict:
    """The variables to evaluate: averaged params where there are any."""
    return {"params": state.ema or state.params, **state.model_state}


def initial_params(source: str, recipe: Recipe) -> Any:
    """Parameters from another model: all layers at the same scale, all but the
    upsampler from another one (x3 and x4 start from x2). What the source lacks, such as
    mid blocks, starts fresh."""
    loaded = inference.load_weights(source)
    theirs = checkpoint.flatten(loaded.variables["params"])
    fresh = jax.jit(functools.partial(network.init, recipe.model))
    variables = fresh(jax.random.key(recipe.seed))
    ours = checkpoint.flatten(variables["params"])
    for name, array in ours.items():
        upsampler = (
            name.startswith("up") and loaded.config["scale"] != recipe.model.scale
        )
        if upsampler or name not in theirs:
            continue
        if theirs[name].shape != array.shape:
            raise InputError(
                f"config.train.init_from={source}: {name} is {theirs[name].shape},"
                f" {array.shape} was expected"
            )
        ours[name] = jnp.asarray(theirs[name])
    return checkpoint.fill(variables["params"], ours)
