"""A network, images and processes small enough for many tests."""

import os
import pathlib
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from btsrn_jax import config as schema
from btsrn_jax.data import degradation, sampler

ROOT = pathlib.Path(__file__).parents[2]
SIZES = ((20, 30), (12, 9), (8, 40))  # of LR images, height and width
# With photos of these a run is the very program that a step on `store` is.
HR_SIZES = tuple((2 * h, 2 * w) for h, w in SIZES)
# All that can be done to a patch, often.
DEGRADED = degradation.Degradation(
    blur=0.5,
    blur_width=(0.2, 0.8),
    blur_uneven=0.5,
    noise=0.5,
    noise_level=(1.0, 6.0),
    noise_shot=0.5,
    noise_grey=0.5,
    jpeg=0.8,
    jpeg_quality=(30, 98),
    jpeg_subsampled=0.75,
)


def config(**train):
    """x2, 8 wide, one block a stage: 8 px LR patches, 10 px HR targets."""
    c = schema.defaults()
    c.scale = 2
    c.model.features, c.model.bottleneck = 8, 4
    c.model.low_blocks = c.model.high_blocks = 1
    c.train.batch_size, c.train.patch = 8, 16
    c.train.steps, c.train.decay_steps = 10, 5
    c.train.update(train)
    return c


def pairs(sizes=SIZES, scale=2, seed=0):
    """[(lr, hr)] of noise."""
    rng = np.random.default_rng(seed)
    return [
        tuple(
            rng.integers(0, 256, (k * h, k * w, 3), dtype=np.uint8) for k in (1, scale)
        )
        for h, w in sizes
    ]


def store(sizes=SIZES, scale=2):
    return on_device(sampler.make_store(pairs(sizes, scale), scale))


def on_device(store):
    return jax.tree.map(jnp.asarray, store)


def write_photos(folder, sizes=((40, 60), (36, 44), (50, 38)), seed=1):
    """HR images as PNG files: smooth ones, so that there is something to learn."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i, (h, w) in enumerate(sizes):
        small = rng.integers(0, 256, (h // 4, w // 4, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((w, h), Image.Resampling.BICUBIC)
        image.save(folder / f"photo{i}.png")
    return folder


def command(workdir, hr_dir, *more, sets=None, **train):
    """The command line of a tiny run on a folder of photos."""
    c = config(**train)
    fields = {
        "scale": 2,
        "model.features": 8,
        "model.bottleneck": 4,
        "model.low_blocks": 1,
        "model.high_blocks": 1,
        "data.source": "folder",
        "data.hr_dir": str(hr_dir),
        "eval.sets": repr((str(sets),)) if sets else "()",
        "eval.tile": 16,
        **{f"train.{name}": value for name, value in c.train.items()},
    }
    del fields["train.init_from"]
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    entry = [sys.executable, "-m", "btsrn_jax.main", "--config", "configs/x2.py"]
    return [*entry, f"--workdir={workdir}", *flags, *more]


def start(args, devices=1, **environment):
    """Starts a process on simulated devices; `said` of it collects its lines."""
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        **environment,
    }
    process = subprocess.Popen(
        args, cwd=ROOT, env=env, text=True, stdout=-1, stderr=subprocess.STDOUT
    )
    process.said = []
    return process


def until_said(process, text, timeout=200):
    """Waits for a line with this text; fails where the process ends before."""
    if not _read(process, timeout, text):
        said = finish(process, code=None)
        raise AssertionError(f"{text!r} was not said: {said}")


def finish(process, code=0, timeout=300):
    """Waits for a process, which is killed after `timeout`; returns what it said.

    `code` is the exit code that is expected, None if any is fine."""
    _read(process, timeout)
    process.stdout.close()
    text = "".join(process.said)
    assert code in (None, process.wait()), text
    return text


def _read(process, timeout, text=None):
    """Collects lines up to one with this text, by default to the end."""
    timer = threading.Timer(timeout, process.kill)
    timer.start()
    try:
        for line in process.stdout:
            process.said.append(line)
            if text is not None and text in line:
                return True
    finally:
        timer.cancel()
    return False
