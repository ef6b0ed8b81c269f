"""BTSRN in plain NumPy, float64, written from the paper's Section 3 and Figure 2 alone.

Slow and obvious: no batch, no JAX, one line per layer. `params` is the tree of
`btsrn_jax.network.btsrn`: kernels are (height, width, in, out), a deconvolution's too.
"""

import numpy as np


def relu(x):
    return np.maximum(x, 0)


def leaky_relu(x):
    return np.where(x > 0, x, 0.2 * x)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def convolve(x, layer):
    """(h, w, i) -> (h - k + 1, w - k + 1, o): VALID, the kernel not turned."""
    kernel = np.asarray(layer["kernel"], np.float64)
    size = len(kernel)
    h, w = x.shape[0] - size + 1, x.shape[1] - size + 1
    out = np.zeros((h, w, kernel.shape[3]))
    for dy in range(size):
        for dx in range(size):
            out += x[dy : dy + h, dx : dx + w] @ kernel[dy, dx]
    return out + np.asarray(layer["bias"], np.float64)


def deconvolve(x, layer, step):
    """(h, w, i) -> (step h, step w, o): kernel = stride, each pixel paints a square."""
    kernel = np.asarray(layer["kernel"], np.float64)
    out = np.zeros((step * x.shape[0], step * x.shape[1], kernel.shape[3]))
    for dy in range(step):
        for dx in range(step):
            out[dy::step, dx::step] = x @ kernel[dy, dx]
    return out + np.asarray(layer["bias"], np.float64)


def nearest(x, step):
    """(h, w, c) -> (step h, step w, c): each pixel copied."""
    return x.repeat(step, axis=0).repeat(step, axis=1)


def block(x, layers, act, kind="pconv"):
    """(h, w, c) -> (h - 2, w - 2, c): the four blocks of Figure 2."""
    narrow = convolve(act(x), layers["down"])
    branch = convolve(act(narrow), layers["conv"])
    if kind == "pixelcnn":
        branch = convolve(act(branch), layers["up"])
    if kind in ("gated", "gated_pp"):
        half = branch.shape[2] // 2
        a, b = branch[..., :half], branch[..., half:]
        branch = (np.tanh(a) if kind == "gated" else a) * sigmoid(b)
    return x[1:-1, 1:-1] + branch


def forward(params, lr, scale, low, mid, high, activation="relu", kind="pconv"):
    """The residual over the bicubic skip.

    Args:
      params: the tree of parameters.
      lr: (h, w, 3) in [0, 1].
      scale: 2, 3 or 4.
      low, mid, high: blocks before, between (x4 alone) and after the upsamplings.
      activation: "relu" or "leaky_relu" (slope 0.2).
      kind: "pconv", "pixelcnn", "gated" or "gated_pp".

    Returns:
      (H, W, 3) float64, where no convolution has reached beyond the input.
    """
    act = {"relu": relu, "leaky_relu": leaky_relu}[activation]
    x = convolve(np.asarray(lr, np.float64) - 0.5, params["in"])
    for i in range(low):
        x = block(x, params[f"low{i}"], act, kind)
    if scale == 4:
        x = nearest(x, 2) + deconvolve(act(x), params["up0"], 2)
        for i in range(mid):
            x = block(x, params[f"mid{i}"], act, kind)
        x = nearest(x, 2) + deconvolve(act(x), params["up1"], 2)
    else:
        x = nearest(x, scale) + deconvolve(act(x), params["up0"], scale)
    for i in range(high):
        x = block(x, params[f"high{i}"], act, kind)
    return convolve(act(x), params["out"])
