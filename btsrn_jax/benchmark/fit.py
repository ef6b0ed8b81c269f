"""`btsrn info`: what a config is, and whether it fits a device.

No data is opened. Programs are compiled only where that is asked for: `--compile` takes
the devices that are here, `--topology` a slice of TPUs that need not be here, since
libtpu compiles without any TPU.
"""

import collections
import math
import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from btsrn_jax import config as schema
from btsrn_jax import inference, mesh, network, schedules, training
from btsrn_jax.data import sampler
from btsrn_jax.errors import InputError, first_line

# HBM of one JAX device in bytes; the compiler may use a little less.
HBM = {"v4": 32e9, "v5e": 16e9, "v5p": 95e9, "v6e": 32e9}
# DIV2K's images as the device store holds them: rows of one on average, and width.
DIV2K_IMAGES = {"train": 800, "validation": 100, "train+validation": 900}
DIV2K_HR_ROWS, DIV2K_HR_WIDTH = 1405, 2040
COLLECTIVES = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"


class Compiled(NamedTuple):
    """What the compiler says of one program, for each device: the bytes used in all,
    those of them that are temporary, the operations of a call, and how many collectives
    of each kind there are (None where the program cannot be read)."""

    used: float
    temporary: float
    flops: float
    collectives: dict[str, int] | None


def describe_config(config: ConfigDict) -> str:
    """Returns the facts of a config, a line `name: value` each; takes no device."""
    model = network.build(config.model, config.scale)
    parameters = network.parameter_count(model)
    settings = config.train
    side = settings.patch // config.scale
    target = model.output_size(side)

    def known(value):
        return "from data" if value is None else counted(value)

    def counted(number):
        # As a program reads it, and as people do.
        return f"{number} ({number:,})" if number >= 1000 else str(number)

    decay_steps = settings.decay_steps
    if decay_steps is None and settings.steps is not None:
        decay_steps = schema.resolve_steps(config, 1).train.decay_steps
    steps = settings.steps
    if steps is None and decay_steps is not None:
        steps = schema.resolve_steps(config, 1).train.steps
    if settings.schedule == "wsd" and steps is not None:
        decay_steps = steps - schedules.decay_start(steps, settings.decay_share)
    # Parameters, gradient, two moments (Muon keeps one, of the kernels), average.
    copies = 4 - (settings.optimizer == "muon") + bool(settings.ema)
    lines = {
        "scale": config.scale,
        "parameters": counted(parameters),
        "multiply-adds per HR pixel": f"{model.multiply_adds / 1e6:.3f} M",
        "halo": f"{model.halo} LR pixels",
        "patch": f"{side} x {side} LR -> {target} x {target} HR pixels of loss",
        "batch": f"{settings.batch_size} patches"
        + f", in {settings.micro_batches} parts" * (settings.micro_batches > 1),
        "steps": known(steps),
        "decay steps": known(decay_steps),
        "parameters and optimiser": f"{copies * 4 * parameters / 1e6:.1f} MB a device",
        "kept for the gradient": _kept(config, side),
        "training images on a device": _images(config),
    }
    return "\n".join(f"{name}: {value}" for name, value in lines.items())


def _images(config):
    """Returns how much of a device's memory the training images take, in words."""
    if config.data.source != "div2k":
        return "from data"
    if config.data.cache == "host":
        return "none (data.cache=host)"
    return f"{_store_bytes(config) / 1e9:.2f} GB of DIV2K, if they fit"


def _store_bytes(config):
    leaves = jax.tree.leaves(_store(config))
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


def _kept(config, side):
    """Returns the size of the activations of a batch, or of one part of it. The dtype
    "auto" is float32 or bfloat16 by platform, hence both are told."""
    dtype = config.model.dtype
    patches = config.train.batch_size // config.train.micro_batches
    found = []
    for name in ("float32", "bfloat16") if dtype == "auto" else (dtype,):
        compute = network.Compute(jnp.dtype(name))
        model = network.build(config.model, config.scale, compute)
        size = network.kept_for_gradient(model, patches, side)
        found.append(f"{size / 1e9:.2f} GB in {name}")
    return ", ".join(found)


def topology_mesh(name: str) -> Mesh:
    """Returns a mesh over the devices of a slice of TPUs that need not be here.

    Args:
      name: KIND:AxB or KIND:AxBxC, such as v5e:2x4.

    Raises:
      InputError: for another name, or where libtpu does not know the slice.
    """
    from jax.experimental import topologies

    kind = name.partition(":")[0]
    if kind not in HBM or not re.fullmatch(r"\w+:\d+x\d+(x\d+)?", name):
        raise InputError(
            f"--topology {name!r}: KIND:AxB or KIND:AxBxC, such as v5e:2x4 or"
            f" v4:2x2x1; kinds are {', '.join(HBM)}"
        )
    try:
        found = topologies.get_topology_desc(name, "tpu")
    except Exception as error:
        raise InputError(
            f"--topology {name}: libtpu does not know it ({first_line(error, 200)});"
            " libtpu comes with pip install 'btsrn-jax[tpu]'"
        ) from None
    return mesh.make_mesh(list(found.devices))


def compile_training(config: ConfigDict, devices: Mesh, kept: bool = True) -> Compiled:
    """Compiles the train step for a mesh.

    Args:
      config: a whole config.
      devices: the mesh.
      kept: True if DIV2K's images lie on every device, False if batches come from the
        host.
    """
    config = schema.resolve_steps(config, 1000)
    schema.validate(config, devices.size)
    recipe = training.make_recipe(config, devices)
    state = jax.eval_shape(lambda: training.create_state(recipe, devices))
    step = training.compile_step(recipe, devices, from_host=not kept)
    data = _store(config) if kept else _patches(recipe)
    found = _read(step.lower(state, data).compile())
    if recipe.parts > 1:  # XLA counts what is repeated once
        flops = recipe.batch_size * network.train_flops(recipe.model, recipe.side)
        found = found._replace(flops=flops / devices.size)
    return found


def _store(config):
    """Returns the shapes of a device store of DIV2K."""
    scale, count = config.scale, DIV2K_IMAGES[config.data.split]
    image = jax.ShapeDtypeStruct((count,), jnp.int32)
    index = sampler.Index(*3 * [image], jax.ShapeDtypeStruct((count,), jnp.uint32))
    rows, width = count * DIV2K_HR_ROWS // scale, DIV2K_HR_WIDTH // scale
    shapes = sampler.store_shapes(rows, width, scale)
    lr, hr = (jax.ShapeDtypeStruct(shape, jnp.uint8) for shape in shapes)
    return sampler.Store(lr, hr, index)


def _patches(recipe):
    """Returns the shapes of a batch from the host."""
    n = recipe.batch_size
    return sampler.Patches(
        *(
            jax.ShapeDtypeStruct((n, side, side, 3), jnp.uint8)
            for side in (recipe.side, recipe.target)
        ),
        jax.ShapeDtypeStruct((n,), jnp.int32),
    )


def compile_evaluation(config: ConfigDict, devices: Mesh, memory_gb: float) -> Compiled:
    """Compiles the tiled evaluation of a config for a mesh.

    Args:
      config: a whole config.
      devices: the mesh.
      memory_gb: for the activations, where config.eval.memory_gb does not say.
    """
    limit = {"memory_gb": config.eval.memory_gb or memory_gb}
    config = config.to_dict() | {"eval": config.eval.to_dict() | limit}
    tiled = inference.tiled_upscaler(config, devices, config["eval"]["ensemble"])
    model, tile, batch = tiled.model, tiled.plan.tile, tiled.plan.batch
    variables = jax.eval_shape(lambda: network.init(model, jax.random.key(0)))
    side = tile + 2 * model.halo
    tiles = jax.ShapeDtypeStruct((batch, side, side, 3), np.uint8)
    return _read(tiled.compiled.lower(variables, tiles).compile())


def _read(compiled) -> Compiled:
    memory = compiled.memory_analysis()
    used = (
        memory.argument_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
    )
    flops = compiled.cost_analysis()["flops"]
    try:
        text = compiled.as_text()
    except jax.errors.JaxRuntimeError:  # libtpu's programs may be newer than jaxlib
        return Compiled(used, memory.temp_size_in_bytes, flops, None)
    kinds = re.findall(rf" ({COLLECTIVES})(?:-start)?\(", text)
    kinds = dict(collections.Counter(kinds))
    return Compiled(used, memory.temp_size_in_bytes, flops, kinds)


def memory_of(devices: Mesh) -> float:
    """Returns the memory of one device of a mesh in bytes, inf where it is unknown."""
    device = devices.devices.flat[0]
    kind = device.device_kind.lower().replace(" ", "")
    names = {"v5lite": "v5e", "v6lite": "v6e", "v5": "v5p"}
    for part, name in [*names.items(), *((name, name) for name in HBM)]:
        if f"tpu{part}" in kind:
            return HBM[name]
    return mesh.device_memory(device)[0]


def report_fit(config: ConfigDict, devices: Mesh) -> str:
    """Compiles training and evaluation, and returns in lines whether they fit."""
    total = memory_of(devices)
    kept = config.data.source == "div2k" and config.data.cache != "host"
    training, kept = _training_that_fits(config, devices, kept, total)
    free = total if math.isfinite(total) else 4e9
    evaluation = compile_evaluation(config, devices, free / 2e9)
    where = "on the host, or not counted"
    if kept:
        size = f"{_store_bytes(config) / 1e9:.2f} GB of what training uses"
        where = f"on every device, {size}"
    lines = [f"devices: {mesh.describe(devices)}", f"DIV2K's images: {where}"]
    lines += _lines("training", training, total)
    lines += _lines("evaluation", evaluation, total)
    return "\n".join(lines)


def _training_that_fits(config, devices, kept, total):
    """Returns what the compiler says, and whether the images are on the device: where
    they do not fit, `data.cache=auto` leaves them on the host."""
    found = _attempt(config, devices, kept)
    if kept and config.data.cache == "auto" and (not found or found.used > total):
        return _attempt(config, devices, False), False
    return found, kept


def _attempt(config, devices, kept):
    """Returns what the compiler says, None where it runs out of the device's memory."""
    try:
        return compile_training(config, devices, kept)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            return None
        raise


def _lines(name, found, total):
    if found is None:
        return [f"{name}: does not fit"]
    memory = f"{found.used / 1e9:.2f} GB used"
    if math.isfinite(total):
        memory += f", {(total - found.used) / 1e9:.2f} GB free of {total / 1e9:.0f}"
    if found.collectives is None:
        kinds = "unknown (jaxlib cannot read this program)"
    else:
        kinds = ", ".join(f"{n} {kind}" for kind, n in found.collectives.items())
    fits = "fits" if found.used <= total else "does not fit"
    return [
        f"{name}: {fits}: {memory} ({found.temporary / 1e6:.0f} MB temporary)",
        f"{name}, FLOPs a device and call: {found.flops / 1e9:.1f} G",
        f"{name}, collectives: {kinds or 'none'}",
    ]


def largest_batch(config: ConfigDict, devices: Mesh, log: Callable[[str], None]) -> int:
    """Returns the largest batch whose training fits, found by doubling the config's
    own; 0 if not even that fits. `train.micro_batches` stays as it is.

    Raises:
      InputError: where the memory of the devices is unknown.
    """
    total, largest = memory_of(devices), 0
    if not math.isfinite(total):
        raise InputError("--largest needs a device of known memory, or --topology")
    config = ConfigDict(config, convert_dict=True)
    parts = config.train.micro_batches
    size = math.lcm(config.train.batch_size, parts * devices.size)
    kept = config.data.source == "div2k" and config.data.cache != "host"
    while True:
        config.train.batch_size = size
        found, _ = _training_that_fits(config, devices, kept, total)
        if found is None or found.used > total:
            hint = f"; more than {parts} train.micro_batches need less"
            log(f"batch {size}: does not fit{hint * (not largest)}")
            return largest
        log(f"batch {size}: {found.used / 1e9:.2f} GB of {total / 1e9:.0f}")
        largest, size = size, 2 * size
