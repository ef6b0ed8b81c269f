"""The balanced two-stage residual network (paper, Sec. 3; docs/paper.md, section 1).

    in    conv 1x1, 3 -> features                                       LR
    low   low_blocks x residual block                                   LR
    up    nearest(x) + deconv(act(x)), kernel = stride                  LR -> HR
    high  high_blocks x residual block                                  HR
    out   act, conv 1x1, features -> 3                                  HR

At x4 there are two upsamplings by 2, with mid_blocks residual blocks between them.

Every convolution is VALID, so an output pixel depends on real pixels alone. There are
no border effects: a crop of the input gives a crop of the output. The network predicts
the residual over the bicubic skip, and `super_resolve` adds the two.

To add a kind of block: a name in `choices.py` and a branch in `Block`. Parameters and
arithmetic are counted from what it does. To export it to ONNX, also its name and a
branch of `_block` in `onnx_graph.py`; to PyTorch, its name in `export/torch_file.py`
and a branch of `Block` in `export/btsrn_torch.py`. Until then exports are made without.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from btsrn_jax.errors import InputError
from btsrn_jax.network import choices, cost, ops, vdsr
from btsrn_jax.network.geometry import SKIP_MARGIN, Geometry, upsamplings

_ACTIVATIONS = {
    "relu": nn.relu,
    "leaky_relu": lambda x: nn.leaky_relu(x, 0.2),  # the released code's slope
}


def _no_form(part, name, known):
    """Returns the error of a name that nothing here stands for."""
    hint = f"one of {', '.join(known)}"
    if name in known:
        hint = "network/choices.py has its name, network/btsrn.py lacks it"
    return InputError(f"no {part} of kind {name!r}: {hint}")


def missing_form(model: Any, form: str, forms: Mapping[str, tuple]) -> str:
    """Returns what of a network another form of it lacks; "" for nothing.

    Args:
      model: a network.
      form: what the form is called, such as "ONNX".
      forms: the names that it knows, by the field of `BTSRN`.

    Returns:
      Such as "no ONNX form of block X".
    """
    if not isinstance(model, BTSRN):
        return f"no {form} form of {type(model).__name__}"
    for field, known in forms.items():
        if getattr(model, field) not in known:
            return f"no {form} form of {field} {getattr(model, field)}"
    return ""


class Compute(NamedTuple):
    """How the arithmetic is done: it decides rounding and speed alone.

    Attributes:
      dtype: Type of the convolutions. Parameters, skip and sum stay float32.
      platform: "cpu" selects the formulations that `ops` has for CPUs; any other name
        selects the plain ones.
      precision: As of `jax.lax.dot_general`; HIGHEST where figures are quoted.
    """

    dtype: Any = jnp.float32
    platform: str = "plain"
    precision: Any = None


FLOAT32 = Compute()


class Conv(nn.Module):
    """A VALID convolution of 1x1 or 3x3, or a deconvolution whose kernel is its stride.

    Kernels start Glorot uniform and biases zero, as in the released code.

    Weight normalisation (norm="weight"; Sec. 3.4) learns a direction and a length for
    each output feature. The length starts at the kernel's own norm, so that the layer
    starts as it would without. A layer that is to start at zero has length 0 and a
    Glorot direction, because a direction of zero would hardly get a gradient.

    Attributes:
      features: Channels of the output.
      size: Side of the kernel.
      compute: How the arithmetic is done.
      scale: Stride of a deconvolution; 0 for a convolution.
      norm: "weight" for weight normalisation.
      zero: True if the layer starts at zero.
    """

    features: int
    size: int
    compute: Compute
    scale: int = 0
    norm: str = "none"
    zero: bool = False

    @nn.compact
    def __call__(self, x):
        shape = (self.size, self.size, x.shape[-1], self.features)
        glorot = nn.initializers.glorot_uniform()
        weight_norm = self.norm == "weight"
        init = nn.initializers.zeros if self.zero and not weight_norm else glorot
        kernel = self.param("kernel", init, shape, jnp.float32)
        if weight_norm:
            norm = jnp.sqrt(jnp.sum(kernel**2, axis=(0, 1, 2)))
            start = jnp.zeros_like(norm) if self.zero else norm
            kernel = kernel * (self.param("length", lambda _: start) / norm)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)

        dtype, platform, precision = self.compute
        x, kernel, bias = (a.astype(dtype) for a in (x, kernel, bias))
        if self.scale:
            return ops.deconv(x, kernel, bias, self.scale, platform, precision)
        conv = ops.conv1x1 if self.size == 1 else ops.conv3x3
        return conv(x, kernel, bias, platform, precision)


def folded_kernel(kernel: np.ndarray, length: np.ndarray | None) -> np.ndarray:
    """Returns a kernel of `Conv` as it is applied, weight normalisation worked in.

    Args:
      kernel: (..., features out), float32.
      length: (features out,), as weight normalisation learns it; None without it.
    """
    kernel = np.asarray(kernel, np.float32)
    if length is None:
        return kernel
    norm = np.sqrt(np.sum(kernel**2, axis=tuple(range(kernel.ndim - 1))))
    return kernel * (np.asarray(length) / norm)


class Block(nn.Module):
    """A residual block: crop1(x) + branch(x), (B, h, w, c) -> (B, h - 2, w - 2, c).

    The branches of the paper's Figure 2, with n for the bottleneck; `pre` comes before
    each convolution:

        pconv      1x1 -> n, 3x3 -> c                            (projected convolution)
        pixelcnn   1x1 -> n, 3x3 -> n, 1x1 -> c
        gated      1x1 -> n, 3x3 -> 2c, tanh(a) * sigmoid(b)     (gated PixelCNN)
        gated_pp   1x1 -> n, 3x3 -> 2c, a * sigmoid(b)           (gated PixelCNN++)

    Attributes:
      kind: One of `choices.BLOCKS`.
      bottleneck: Channels that the input is projected to.
      pre: pre(x, name), the activation, after a normalisation of that name if any.
      conv: conv(features, size, name=name), a layer of the network's own settings.
    """

    kind: str
    bottleneck: int
    pre: Callable
    conv: Callable

    @nn.compact
    def __call__(self, x):
        features = x.shape[-1]
        y = self.conv(self.bottleneck, 1, name="down")(self.pre(x, "pre_down"))
        y = self.pre(y, "pre_conv")
        if self.kind == "pconv":
            y = self.conv(features, 3, name="conv")(y)
        elif self.kind == "pixelcnn":
            y = self.conv(self.bottleneck, 3, name="conv")(y)
            y = self.conv(features, 1, name="up")(self.pre(y, "pre_up"))
        elif self.kind in ("gated", "gated_pp"):
            y = self.conv(2 * features, 3, name="conv")(y)
            a, b = jnp.split(y, 2, axis=-1)
            y = (jnp.tanh(a) if self.kind == "gated" else a) * nn.sigmoid(b)
        else:
            raise _no_form("block", self.kind, choices.BLOCKS)
        x = ops.crop(x, 1)
        if y.shape != x.shape:  # adding might stretch one of them
            raise InputError(
                f"block {self.kind} makes {y.shape} where {x.shape} was expected: it"
                " takes one pixel off each side and keeps the channels, by which halos"
                " are counted (network/geometry.py)"
            )
        return x + y


class BTSRN(Geometry, nn.Module):
    """The network. Its fields are the scale and the config's `model` section."""

    scale: int
    features: int = 128
    bottleneck: int = 64
    low_blocks: int = 6
    mid_blocks: int = 0
    high_blocks: int = 4
    block: str = "pconv"
    norm: str = "none"
    activation: str = "relu"
    compute: Compute = FLOAT32

    @nn.compact
    def __call__(self, lr: jax.Array, train: bool = False) -> jax.Array:
        """Predicts the residual over the bicubic skip.

        Args:
          lr: (B, h, w, 3) float32 in [0, 1].
          train: True to normalise by the batch's own statistics; it matters to batch
            normalisation alone.

        Returns:
          (B, H, W, 3) float32 with H = s h - 2 valid_border and W likewise.
        """

        if self.activation not in _ACTIVATIONS:
            raise _no_form("activation", self.activation, choices.ACTIVATIONS)

        def pre(x, name):
            if self.norm == "batch":
                x = nn.BatchNorm(not train, dtype=x.dtype, name=f"{name}_norm")(x)
            elif self.norm not in ("none", "weight"):  # "weight" is in `Conv`
                raise _no_form("norm", self.norm, choices.NORMS)
            return _ACTIVATIONS[self.activation](x)

        def conv(features, size, **kwargs):
            return Conv(features, size, self.compute, norm=self.norm, **kwargs)

        def stage(x, name, count):
            for i in range(count):
                x = Block(self.block, self.bottleneck, pre, conv, name=f"{name}{i}")(x)
            return x

        x = conv(self.features, 1, name="in")(lr - 0.5)
        x = stage(x, "low", self.low_blocks)
        for i, step in enumerate(upsamplings(self.scale)):
            if i:
                x = stage(x, "mid", self.mid_blocks)
            up = conv(self.features, step, scale=step, name=f"up{i}")
            x = ops.nearest(x, step) + up(pre(x, f"pre_up{i}"))
        x = stage(x, "high", self.high_blocks)
        x = conv(3, 1, zero=True, name="out")(pre(x, "pre_out"))
        return x.astype(jnp.float32)

    multiply_adds = property(cost.multiply_adds)

    def loss_difference(self, sr: jax.Array, hr: jax.Array) -> jax.Array:
        """Returns what a loss is taken of: sr - hr, both (B, H, W, 3) in [0, 1]."""
        return sr - hr


def build(config: Mapping, scale: int, compute: Compute = FLOAT32) -> BTSRN | vdsr.VDSR:
    """Returns the network of a config's `model` section for one scale.

    Raises:
      InputError: its name is in `choices.NAMES`, but is no network's.
    """
    kind = config.get("name", "btsrn")
    if kind == "vdsr":
        return vdsr.VDSR(scale, config["features"], compute)
    if kind != "btsrn":
        raise _no_form("network", kind, choices.NAMES)
    fields = {name: config[name] for name in config if name not in ("name", "dtype")}
    return BTSRN(scale=scale, compute=compute, **fields)


def init(model: BTSRN | vdsr.VDSR, key: jax.Array) -> dict:
    """Returns fresh variables: `params`, and `batch_stats` with batch normalisation.

    The last layer starts at zero, so that an untrained network is bicubic.
    """
    side = 2 * model.halo + 1
    lr = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    return model.lazy_init(key, lr)  # without running the network


def super_resolve(
    model: BTSRN | vdsr.VDSR, variables: Mapping, lr: jax.Array, train: bool = False
) -> tuple[jax.Array, dict]:
    """Enlarges images: the sum of bicubic skip and residual, on real pixels alone.

    Args:
      model: the network.
      variables: of `init` or of training.
      lr: (B, h, w, 3) float32 in [0, 1]; h and w above 2 model.halo.
      train: True to normalise by the batch's own statistics.

    Returns:
      sr: (B, H, W, 3) float32, not clipped, with H = model.output_size(h): the centre
        of the enlarged input, as far as both the network and the skip reach.
      model_state: the updated `batch_stats`; {} if none are learned.
    """
    if train:
        residual, state = model.apply(variables, lr, True, mutable=["batch_stats"])
    else:
        residual, state = model.apply(variables, lr), {}
    skip = ops.bicubic_skip(lr, model.scale)
    border = model.valid_border - SKIP_MARGIN * model.scale  # both in HR pixels a side
    if border >= 0:
        return ops.crop(skip, border) + residual, state
    return skip + ops.crop(residual, -border), state
