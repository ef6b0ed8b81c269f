"""Our side of `btsrn bench`, in a process of its own, set up as a user's would be.

    python -m btsrn_jax.benchmark.worker SPEC

SPEC is a `protocol.Spec` as JSON; `protocol.answer` says what is printed.
"""

import functools
import os
import pathlib
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import DTypeLike
from ml_collections import ConfigDict

from btsrn_jax import config as schema
from btsrn_jax import images, inference, mesh, network, training
from btsrn_jax.benchmark import protocol
from btsrn_jax.data import sampler


def make_config(spec: protocol.Spec) -> ConfigDict:
    """Returns the config that a spec is about."""
    config = schema.defaults()
    config.scale = spec.scale
    for name in ("features", "bottleneck", "low_blocks", "high_blocks", "dtype"):
        config.model[name] = getattr(spec, name)
    config.train.batch_size, config.train.patch = spec.batch, spec.patch
    config.train.steps = config.train.decay_steps = 1000
    if spec.dtype == "bfloat16":
        config.eval.dtype = spec.dtype
    return config


def measure_training(spec: protocol.Spec) -> tuple[dict, dict]:
    """Returns the actions and facts, as `protocol.answer` takes them, of a training
    step with the cutting of its batch, on all devices."""
    config, devices = make_config(spec), mesh.make_mesh()
    schema.validate(config, devices.size)
    recipe = training.make_recipe(config, devices)
    rng = np.random.default_rng(0)
    side = max(2 * recipe.side, 128)
    shapes = [(side, side, 3), (spec.scale * side, spec.scale * side, 3)]
    pairs = [tuple(rng.integers(0, 256, s, np.uint8) for s in shapes) for _ in range(4)]
    store = sampler.make_store(pairs, spec.scale)
    store = jax.device_put(store, mesh.replicated(devices))
    state = training.create_state(recipe, devices)
    start = time.perf_counter()
    compiled = training.compile_step(recipe, devices).lower(state, store).compile()
    seconds = time.perf_counter() - start

    def cut(store, step):
        return sampler.batch(
            store, 0, step, spec.batch, recipe.side, recipe.target, mesh.split(devices)
        )

    cut = jax.jit(cut).lower(store, state.step).compile()

    def step():
        nonlocal state
        start = time.perf_counter()
        state, metrics = compiled(state, store)
        jax.block_until_ready((state, metrics))
        return time.perf_counter() - start

    memory = compiled.memory_analysis()
    actions = {
        "step": step,
        "input": lambda: training.timed(cut, store, state.step),
        "peak": peak_bytes,
    }
    times = {"input": 0.01, "loop": 32}
    if spec.loop:
        actions["loop"] = lambda: loop_seconds(config, devices, pairs)
    for name in ("step", "input"):
        actions[name]()
    return actions, {
        "compile": seconds,
        "flops": spec.batch
        * network.train_flops(recipe.model, recipe.side)
        / devices.size,
        "matmul": training.matmul_rate(recipe.model.compute.dtype),
        "step_bytes": memory.temp_size_in_bytes + memory.argument_size_in_bytes,
        "more": [name for name in actions if name in times],
        "times": times,
        **about(devices, recipe.model.compute.dtype),
    }


def loop_seconds(config: ConfigDict, devices: Mesh, pairs: list) -> float:
    """Returns the seconds a step of a whole run: images from files, metrics, and one
    checkpoint in 24 steps."""
    first, steps = 8, 32
    config = ConfigDict(config)
    config.train.steps = steps
    config.train.log_every = first
    config.train.checkpoint_every = steps // 2
    config.data.source = "folder"
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for i, (lr, hr) in enumerate(pairs):
            for kind, image in (("lr", lr), ("hr", hr)):
                (root / kind).mkdir(exist_ok=True)
                images.write_image(root / kind / f"{i}.png", image)
        config.data.hr_dir, config.data.lr_dir = str(root / "hr"), str(root / "lr")
        with training.Preemption() as watch:
            training.run(config, root / "run", devices, preemption=watch)
        lines = training.read_metrics(root / "run" / training.METRICS)
        times = {line["step"]: line["time"] for line in lines}
    return (times[steps] - times[first]) / (steps - first)


def noise(model: Any) -> dict:
    """Returns variables of a network that are small noise."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: (rng.standard_normal(leaf.shape) / 50).astype(leaf.dtype),
        jax.eval_shape(functools.partial(network.init, model), jax.random.key(0)),
    )


def measure_inference(spec: protocol.Spec) -> tuple[dict, dict]:
    """Returns the actions and facts, as `protocol.answer` takes them, of upscaling
    uint8 images to uint8, from memory to memory."""
    config, devices = make_config(spec), mesh.make_mesh()
    upscale = inference.tiled_upscaler(config, devices, ensemble=False)
    rng = np.random.default_rng(0)
    variables = noise(upscale.model)

    def timing(upscale, h, w):
        image = rng.integers(0, 256, (h, w, 3), np.uint8)
        return lambda: training.timed(upscale, variables, image)

    actions = {"image": timing(upscale, spec.side, spec.side), "peak": peak_bytes}
    times = {}
    for name in spec.frames:
        w, h = (side // spec.scale for side in protocol.FRAMES[name])
        actions[name] = timing(upscale, h, w)
        times[name] = w * h / spec.side**2
    eight = inference.tiled_upscaler(config, devices, ensemble=True)
    actions["ensemble"] = timing(eight, spec.side, spec.side)
    actions["compile_ensemble"] = actions["ensemble"]
    times |= {"compile_ensemble": 8, "ensemble": 8}
    pixels = (spec.scale * spec.side) ** 2
    first, second = actions["image"](), actions["image"]()
    return actions, {
        "compile": max(first - second, 0.0),
        "flops": 2 * upscale.model.multiply_adds * pixels,
        "matmul": training.matmul_rate(upscale.model.compute.dtype),
        "tile": upscale.plan.tile,
        "more": list(times),
        "times": times,
        **about(devices, upscale.model.compute.dtype),
    }


def about(devices: Mesh, dtype: DTypeLike) -> dict:
    """Returns the devices, and how they were set up."""
    return {
        "devices": mesh.describe(devices),
        "dtype": jnp.dtype(dtype).name,
        "versions": {"jax": jax.__version__, "numpy": np.__version__},
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def peak_bytes() -> int:
    """Returns the device's peak of memory where it keeps one, else the process's."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use") or protocol.resident_peak()


def main() -> None:
    """Measures what the first argument asks for."""
    mesh.prepare()
    measures = {"train": measure_training, "infer": measure_inference}
    protocol.answer(lambda spec: measures[spec.mode](spec))


if __name__ == "__main__":
    main()
