"""Training: the state and the step, compiled once over the mesh (paper, Sec. 4)."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from btsrn_jax import inference, mesh, network, schedules, trees
from btsrn_jax.data import Degradation, degradation, sampler
from btsrn_jax.errors import InputError


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


def updates_made(opt_state: Any) -> jax.Array:
    """Returns by how many updates an optimiser's schedule has moved on, () int32: steps
    that were skipped do not count."""

    def has_count(node):
        return isinstance(node, optax.ScaleByScheduleState)

    found = jax.tree.leaves(opt_state, is_leaf=has_count)
    return next(node.count for node in found if has_count(node))


def in_parts(
    function: Callable, params: Any, batch: tuple, parts: int, divided: NamedSharding
) -> Any:
    """Returns function(params, *batch), computed part by part.

    Only one part's activations are in memory at a time; on a CPU those of a small part
    stay in the caches.

    Args:
      function: a mean over the batch, or a pytree of such means.
      params: its first argument, whole on every device.
      batch: arrays with the batch as their leading axis.
      parts: equal ones, computed one after the other and averaged; each is divided over
        all devices.
      divided: the sharding of the batch.
    """
    if parts == 1:
        return function(params, *batch)

    def share(params, *batch):
        return _one_after_the_other(function, params, batch, parts)

    if divided.mesh.size == 1:
        return share(params, *batch)

    # Each device averages the parts of its own share, and the averages are summed over
    # devices once. Left to itself, XLA would do so after each part.
    def averaged(params, *batch):
        return jax.lax.pmean(share(params, *batch), divided.spec[0])

    whole = PartitionSpec()
    specs = (whole, *(divided.spec for _ in batch))
    return jax.shard_map(
        averaged, mesh=divided.mesh, in_specs=specs, out_specs=whole, check_vma=False
    )(params, *batch)


def _one_after_the_other(function, params, batch, parts):
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
        raise InputError(f"no schedule {train.schedule!r} in training/step.py")
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
        raise InputError(f"no optimizer {train.optimizer!r} in training/step.py")

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
