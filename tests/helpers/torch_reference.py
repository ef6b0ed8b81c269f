"""What model.pth.safetensors computes, in plain NumPy and float64, from the file alone.

Names, shapes and layout are as PyTorch has them: kernels (out, in, height, width), of
transposed convolutions (in, out, height, width). PyTorch itself is not needed.
"""

import re

import numpy as np
from safetensors.numpy import load_file

from btsrn_jax import resize
from helpers import reference


def upscale(path, lr):
    """(h, w, 3) in [0, 1] -> (s h, s w, 3) float64, as `btsrn_torch.BTSRN` does."""
    state = {k: x.astype(np.float64) for k, x in load_file(path).items()}
    steps = [state[f"up.{i}.weight"].shape[-1] for i in range(count(state, "up"))]
    s = int(np.prod(steps))

    def conv(x, name):
        kernel = state[f"{name}.weight"].transpose(2, 3, 1, 0)
        return reference.convolve(x, {"kernel": kernel, "bias": state[f"{name}.bias"]})

    def up(x, name, step):
        kernel = state[f"{name}.weight"].transpose(2, 3, 0, 1)
        layer = {"kernel": kernel, "bias": state[f"{name}.bias"]}
        return reference.deconvolve(x, layer, step)

    def act(x, name):
        if f"{name}.norm.weight" in state:
            weight, bias, mean, var = (
                state[f"{name}.norm.{kind}"]
                for kind in ("weight", "bias", "running_mean", "running_var")
            )
            x = (x - mean) / np.sqrt(var + 1e-5) * weight + bias
        return np.where(x > 0, x, state.get("slope", 0) * x)

    def block(x, name):
        y = act(conv(act(x, f"{name}.pre_down"), f"{name}.down"), f"{name}.pre_conv")
        if f"{name}.gated.weight" in state:
            a, b = np.split(conv(y, f"{name}.gated"), 2, axis=-1)
            y = np.tanh(a) * reference.sigmoid(b)
        elif f"{name}.gated_pp.weight" in state:
            a, b = np.split(conv(y, f"{name}.gated_pp"), 2, axis=-1)
            y = a * reference.sigmoid(b)
        else:
            y = conv(y, f"{name}.conv")
            if f"{name}.up.weight" in state:
                y = conv(act(y, f"{name}.pre_up"), f"{name}.up")
        return x[1:-1, 1:-1] + y

    def stage(x, name):
        for i in range(count(state, name)):
            x = block(x, f"{name}.{i}")
        return x

    pad = 2 + sum(count(state, name) for name in ("low", "mid", "high"))
    lr = np.asarray(lr, np.float64)
    x = np.pad(lr, ((pad, pad), (pad, pad), (0, 0)), mode="symmetric")
    x = stage(conv(x - 0.5, "first"), "low")
    for i, step in enumerate(steps):
        x = stage(x, "mid") if i else x
        y = up(act(x, f"pre_up.{i}"), f"up.{i}", step)
        x = reference.nearest(x, step) + y
    x = conv(act(stage(x, "high"), "pre_last"), "last")
    h, w = s * lr.shape[0], s * lr.shape[1]
    top, left = (x.shape[0] - h) // 2, (x.shape[1] - w) // 2
    return (resize.imresize(lr, s) + x[top : top + h, left : left + w]).clip(0, 1)


def count(state, stage):
    """Returns the number of layers or blocks of a stage."""
    found = [re.match(rf"{stage}\.(\d+)\.", name) for name in state]
    return 1 + max((int(match[1]) for match in found if match), default=-1)
