"""The balanced two-stage residual network (paper, Sec. 3; docs/PAPER.md, section 1).

    in    conv 1x1, 3 -> features                                       LR
    low   low_blocks x residual block                                   LR
    up    nearest(x) + deconv(act(x)), kernel = stride                  LR -> HR
    high  high_blocks x residual block                                  HR
    out   act, conv 1x1, features -> 3                                  HR

Every convolution is VALID, so an output pixel depends on real pixels alone and the
network has no border effects: a crop of the input gives a crop of the output. It
predicts the residual over the bicubic skip; `super_resolve` adds the two.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from btsrn_jax.network import cost, ops, vdsr
from btsrn_jax.network.geometry import SKIP_MARGIN, Geometry, upsamplings

_ACTIVATIONS = {
    "relu": nn.relu,
    "leaky_relu": lambda x: nn.leaky_relu(x, 0.2),  # the released code's slope
}


class Compute(NamedTuple):
    """How the arithmetic is done; never what is computed.

    dtype: of the convolutions; parameters, skip and sum stay float32.
    platform: "cpu" takes the formulations of `ops` made for it, else plain ones.
    precision: as of `jax.lax.dot_general`; HIGHEST where figures are quoted.
    """

    dtype: Any = jnp.float32
    platform: str = "plain"
    precision: Any = None


FLOAT32 = Compute()


class Conv(nn.Module):
    """A 1x1 or 3x3 VALID convolution; with a scale, a deconvolution of that stride.

    Weight normalisation (norm="weight") learns a direction and a length per output
    feature; the length starts at the kernel's own norm, so that nothing changes at
    step 0. A zero-initialised layer starts at length 0 with a Glorot direction: a zero
    direction has no gradient to speak of.
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


class Block(nn.Module):
    """A residual block: crop1(x) + branch(x), (B, h, w, c) -> (B, h - 2, w - 2, c).

    The branches of the paper's Figure 2, at bottleneck width n; act comes before each
    convolution:
      pconv      1x1 -> n, 3x3 -> c: projected convolution, two layers
      pixelcnn   1x1 -> n, 3x3 -> n, 1x1 -> c
      gated      1x1 -> n, 3x3 -> 2c, tanh(a) * sigmoid(b)     (gated PixelCNN)
      gated_pp   the same with a * sigmoid(b)                  (gated PixelCNN++)
    """

    kind: str
    bottleneck: int
    pre: Any  # (normalisation and) activation, called with a name
    conv: Any  # Conv with everything but its width and size filled in

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
        else:
            y = self.conv(2 * features, 3, name="conv")(y)
            a, b = jnp.split(y, 2, axis=-1)
            y = (jnp.tanh(a) if self.kind == "gated" else a) * nn.sigmoid(b)
        return ops.crop(x, 1) + y


class BTSRN(Geometry, nn.Module):
    """The network; its fields are the config's `model` section and the scale."""

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
        """lr: (B, h, w, 3) float32 in [0, 1] -> residual (B, H, W, 3) float32, where
        H = s h - 2 valid_border. `train` matters to batch normalisation alone."""

        def pre(x, name):
            if self.norm == "batch":
                x = nn.BatchNorm(not train, dtype=x.dtype, name=f"{name}_norm")(x)
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

    def pixels_read(self, layer: str) -> float:
        """Returns how many pixels a layer reads per HR pixel.

        Args:
          layer: the first part of the path of its parameters, such as "low0" or "up1".
        """
        if layer.startswith(("high", "out")):
            return 1.0
        at_twice = layer.startswith("mid") or layer == "up1"  # between x4's two x2
        return (2 if at_twice else 1) ** 2 / self.scale**2

    def loss_difference(self, sr: jax.Array, hr: jax.Array) -> jax.Array:
        """Returns what a loss is taken of: sr - hr, (B, H, W, 3), of RGB in [0, 1]."""
        return sr - hr


def build(config: Mapping, scale: int, compute: Compute = FLOAT32) -> BTSRN | vdsr.VDSR:
    """The network of a config's `model` section, for one scale."""
    if config.get("name") == "vdsr":
        return vdsr.VDSR(scale, config["features"], compute)
    fields = {name: config[name] for name in config if name not in ("name", "dtype")}
    return BTSRN(scale=scale, compute=compute, **fields)


def init(model: BTSRN, key: jax.Array) -> dict:
    """Fresh variables: `params`, and `batch_stats` where there are any."""
    side = 2 * model.halo + 1
    return model.init(key, jnp.zeros((1, side, side, 3)))


def super_resolve(
    model: BTSRN, variables: Mapping, lr: jax.Array, train: bool = False
) -> tuple[jax.Array, dict]:
    """Bicubic skip plus residual, on real pixels alone.

    Args:
      lr: (B, h, w, 3) float32 in [0, 1]; h and w above 2 model.halo.

    Returns:
      sr: (B, H, W, 3) float32, not clipped, the centre of the enlarged input: as many
        pixels as both the network and the skip determine.
      model_state: updated batch statistics ({} without batch normalisation).
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


def kept_for_gradient(model: BTSRN, batch: int, side: int) -> int:
    """Bytes that a training step of `batch` LR patches of `side` keeps from the forward
    pass for the backward one, as differentiation asks for them; the compiler may do
    with less, and a CPU's step goes patch by patch. Traced, nothing is computed."""
    variables = cost.shapes(model)
    lr = jax.ShapeDtypeStruct((batch, side, side, 3), jnp.float32)

    def keep(variables, lr):
        def forward(params):
            return super_resolve(model, variables | {"params": params}, lr, True)[0]

        return jax.vjp(forward, variables["params"])[1]

    kept = jax.tree.leaves(jax.eval_shape(keep, variables, lr))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in kept)
