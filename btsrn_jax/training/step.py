"""Training: the state and the step, compiled once over the mesh (paper, Sec. 4)."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from btsrn_jax import inference, mesh, network, trees
from btsrn_jax.data import Degradation, degradation, sampler
from btsrn_jax.errors import InputError
from btsrn_jax.training.optimizer import make_optimizer, make_schedule, updates_made
from btsrn_jax.training.parts import in_parts


class TrainState(NamedTuple):
    """Everything that a step changes; a pytree.

    step: () int32, the number of steps attempted, skipped ones included.
    params: the parameters of the network.
    model_state: its batch statistics; {} if it has none.
    opt_state: the state of the optimiser.
    ema: the averaged parameters; {} if none are kept.
    skipped: () int32, the number of the last steps in a row whose update was skipped,
      because the loss or the gradient was not finite.
    """

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any
    ema: Any
    skipped: jax.Array


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a step is compiled for."""

    model: network.BTSRN
    """The network, with the precision of its convolutions."""

    optimizer: optax.GradientTransformation
    """Clips the gradient where that is wanted, then Adam or Muon."""

    schedule: optax.Schedule
    """The learning rate as a function of the number of updates."""

    loss: str
    """One of `LOSSES`."""

    ema: float
    """Decay of the averaged parameters; 0: there are none."""

    seed: int
    """The seed of the initial parameters and of every batch."""

    batch_size: int
    """Patches a step, over all devices."""

    candidates: int
    """Patches that are drawn for each one that is taken."""

    side: int
    """LR pixels a side of a patch."""

    target: int
    """HR pixels a side of what the loss sees of a patch."""

    parts: int
    """How many equal parts each device computes its share of the batch in, one after
    the other: `train.micro_batches`, or patch by patch on a single CPU device."""

    degradation: Degradation | None = None
    """What is done to LR patches."""

    @property
    def margin(self) -> int:
        """LR pixels that are cut around a patch, because degrading it needs them."""
        return self.degradation.margin(self.side) if self.degradation else 0


LOSSES = {
    "mse": lambda error: jnp.mean(error**2),
    "l1": lambda error: jnp.mean(jnp.abs(error)),
    "charbonnier": lambda error: jnp.mean(jnp.sqrt(error**2 + 1e-6)),
}


def train_step(
    state: TrainState,
    data: sampler.Store | sampler.Patches,
    recipe: Recipe,
    divided: NamedSharding,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Makes one update; pure. The batch is a function of (seed, step) alone.

    Args:
      state: before the update.
      data: the store, whole on every device; or the step's patches, divided.
      recipe: what stays the same in all steps.
      divided: sharding of a batch; the mean over it makes the all-reduce.

    Returns:
      The next state, and scalar metrics: loss, grad_norm (before clipping),
      learning_rate (of this update), skipped.
    """
    r = recipe
    size = r.batch_size, r.side, r.target
    lr, hr = sampler.batch(
        data, r.seed, state.step, *size, divided, r.candidates, r.degradation
    )

    def loss_of(params, lr, hr):
        variables = {"params": params, **state.model_state}
        sr, model_state = network.super_resolve(r.model, variables, lr, train=True)
        # What the paper compares, HR - B(LR) and the residual, differ by HR - SR.
        return LOSSES[r.loss](r.model.loss_difference(sr, hr)), model_state

    gradient_of = jax.value_and_grad(loss_of, has_aux=True)
    (loss, model_state), gradient = in_parts(
        gradient_of, state.params, (lr, hr), r.parts, divided
    )
    norm = optax.tree.norm(gradient)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    updates = updates_made(state.opt_state)
    change, opt_state = r.optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, change)
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
        "learning_rate": r.schedule(updates),
        "skipped": state.skipped,
    }


def make_recipe(config: ConfigDict, devices: Mesh) -> Recipe:
    """Returns the recipe of a resolved config on a mesh."""
    train = config.train
    if train.loss not in LOSSES:
        raise InputError(f"no loss {train.loss!r} in training/step.py")
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
        model=model,
        optimizer=optax.chain(*clip, make_optimizer(train, schedule)),
        schedule=schedule,
        loss=train.loss,
        ema=train.ema,
        seed=train.seed,
        batch_size=train.batch_size,
        candidates=train.candidates,
        side=side,
        target=model.output_size(side),
        parts=train.batch_size if by_patch else train.micro_batches,
        degradation=degradation.from_config(config.data.degradation),
    )


def create_state(recipe: Recipe, devices: Mesh, params: Any = None) -> TrainState:
    """Returns the state at step 0, born on the mesh; `params` replace fresh ones."""

    def create(params):
        variables = network.init(recipe.model, jax.random.key(recipe.seed))
        fresh = variables.pop("params")
        params = fresh if params is None else params
        zero = jnp.zeros((), jnp.int32)
        ema = jax.tree.map(jnp.copy, params) if recipe.ema else {}
        opt_state = recipe.optimizer.init(params)
        return TrainState(zero, params, variables, opt_state, ema, zero)

    return jax.jit(create, out_shardings=mesh.replicated(devices))(params)


def compile_step(recipe: Recipe, devices: Mesh, from_host: bool = False) -> Callable:
    """Returns step(state, data) -> (state, metrics), jitted; the state is donated.

    Args:
      recipe: what the step is compiled for.
      devices: a mesh.
      from_host: `data` is a step's `Patches` in place of the `Store`.
    """
    whole, divided = mesh.replicated(devices), mesh.split(devices)
    return jax.jit(
        functools.partial(train_step, recipe=recipe, divided=divided),
        in_shardings=(whole, divided if from_host else whole),
        out_shardings=(whole, whole),
        donate_argnums=0,
    )


def inference_variables(state: TrainState) -> dict:
    """Returns the variables to evaluate: averaged params where there are any."""
    return {"params": state.ema or state.params, **state.model_state}


def initial_params(source: str, recipe: Recipe) -> Any:
    """Returns initial parameters that are another model's.

    From a model of the same scale all layers are copied; from another scale, all but
    the upsampler (x3 and x4 start from x2). What the source lacks, such as mid blocks,
    starts fresh.

    Args:
      source: whatever `inference.load_weights` takes.
      recipe: of the network to be trained.

    Raises:
      InputError: there is no such model, or a layer of it has another shape.
    """
    loaded = inference.load_weights(source)
    theirs = trees.flatten(loaded.variables["params"])
    fresh = jax.jit(functools.partial(network.init, recipe.model))
    variables = fresh(jax.random.key(recipe.seed))
    ours = trees.flatten(variables["params"])
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
    return trees.fill(variables["params"], ours)
