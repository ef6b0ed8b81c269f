"""Run directories as training leaves them, with a network of noise, in a moment."""

import json
import os
import pathlib

import jax
import numpy as np

from btsrn_jax import checkpoint, resize
from btsrn_jax import config as schema
from btsrn_jax.evaluation import figures
from btsrn_jax.network import btsrn as network
from helpers import reference

# Of LR images; the last two are smaller than the halo of a tiny network, 2.
SIZES = [(1, 9, 9), (2, 6, 11), (1, 1, 1), (1, 2, 1)]
TINY = {"features": 6, "bottleneck": 4, "low_blocks": 1, "high_blocks": 2}


def build(scale=2, **fields):
    """(the resolved config of a tiny network, the network)."""
    config = schema.defaults().to_dict()
    config["scale"] = scale
    config["model"] |= TINY | fields
    config["data"]["source"] = "samples"
    config["eval"]["tile"] = 16
    config["train"] |= {"steps": 10, "decay_steps": 1, "ema": 0.9, "loss": "l1"}
    exact = network.Compute(precision=jax.lax.Precision.HIGHEST)
    return config, network.build(config["model"], scale, exact)


def noise(model, seed=0):
    """Variables that let every layer matter; sr stays in [0, 1] for the most part."""
    rng = np.random.default_rng(seed)
    variables = jax.eval_shape(lambda: network.init(model, jax.random.key(0)))

    def draw(path, leaf):
        positive = "var" in str(path[-1]) or "length" in str(path[-1])
        values = rng.uniform(0.1, 0.9, leaf.shape) if positive else None
        values = rng.normal(0, 0.15, leaf.shape) if values is None else values
        return values.astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, variables)


def make(folder: pathlib.Path, steps=((10, 30.0),), scale=2, **fields):
    """A run directory with a checkpoint per (step, validation PSNR); parameters and
    their averages differ. Returns {step: the averaged variables}."""
    config, model = build(scale, **fields)
    checkpoints = checkpoint.Checkpoints(folder)
    averaged = {}
    lines = []
    for step, psnr in steps:
        now, averaged[step] = noise(model, step), noise(model, step + 1000)
        state = {
            "params": now["params"],
            "model_state": {k: v for k, v in averaged[step].items() if k != "params"},
            "ema": averaged[step]["params"],
        }
        checkpoints.save(step, state, config, psnr)
        lines.append({"step": step, "time": 1.7e9, "psnr_modern": psnr})
    checkpoints.close()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    return averaged


def write_figures(path: pathlib.Path, psnr: float, age: float = 0.0):
    """An evaluation file: bicubic at 30 dB, the network at `psnr`; `age` in seconds."""
    rows = []
    for model, value in (("bicubic", 30.0), ("btsrn", psnr)):
        row = figures.Row("Kodak24", "k01", 2, model, 0, "modern", value, 0.9)
        rows += [row, row._replace(image="mean")]
    figures.write_csv(path, rows)
    then = path.stat().st_mtime - age
    os.utime(path, (then, then))


def expected(params, lr, scale=2, low=1, mid=0, high=2):
    """The contract in NumPy and float64: network, imresize, np.pad, np.clip."""
    pad, s = low + high + 2, scale
    images = []
    for image in lr.astype(np.float64):
        padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="symmetric")
        residual = reference.forward(params, padded, s, low, mid, high)
        top = (residual.shape[0] - s * image.shape[0]) // 2
        left = (residual.shape[1] - s * image.shape[1]) // 2
        h, w = s * image.shape[0], s * image.shape[1]
        residual = residual[top : top + h, left : left + w]
        images.append(np.clip(resize.imresize(image, s) + residual, 0, 1))
    return np.stack(images)


def draw(size, seed=0):
    return np.random.default_rng(seed).random((*size, 3), dtype=np.float32)
