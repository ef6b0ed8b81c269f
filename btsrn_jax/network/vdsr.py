"""VDSR, the peer of the paper's Table 4 (Kim et al., "Accurate Image Super-Resolution
Using Very Deep Convolutional Networks", CVPR 2016).

Twenty 3x3 convolutions of 64 features read the bicubic-enlarged luminance, with ReLU
between them. Their result is added to that luminance. Two things differ from its paper.
The convolutions are VALID instead of zero-padded, so that tiles are exact here, too.
And a network is trained for one scale, by the optimisers that BTSRN is trained by.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from btsrn_jax.network import cost, ops
from btsrn_jax.network.geometry import SKIP_MARGIN, VDSR_LAYERS, Geometry

LUMINANCE = (65.481 / 255, 128.553 / 255, 24.966 / 255)  # BT.601 without its offset


def luminance(image: jax.Array) -> jax.Array:
    """Returns the luminance (BT.601, without its offset of 16) of RGB images.

    Args:
      image: (..., 3) float32 in [0, 1].

    Returns:
      (..., 1) float32 in [0, 219/255].
    """
    # Sums of products: accelerators would round the inputs of a matrix product.
    red, green, blue = LUMINANCE
    y = red * image[..., 0] + green * image[..., 1] + blue * image[..., 2]
    return y[..., None]


class VDSR(Geometry, nn.Module):
    """The network.

    Attributes:
      scale: Factor of the enlargement.
      features: Channels of its layers; 64 in its paper.
      compute: How the arithmetic is done, a `btsrn.Compute`.
      layers: Number of its layers; no config changes it.
    """

    scale: int
    features: int
    compute: Any
    layers: int = VDSR_LAYERS

    # Its sizes are those of a BTSRN with these blocks: two LR pixels a side for the
    # bicubic skip, then one HR pixel a layer.
    low_blocks = SKIP_MARGIN
    mid_blocks = 0
    high_blocks = property(lambda self: self.layers)
    bottleneck = 0
    norm = "none"

    @nn.compact
    def __call__(self, lr: jax.Array, train: bool = False) -> jax.Array:
        """Predicts the residual over the bicubic skip.

        Args:
          lr: (B, h, w, 3) float32 in [0, 1].
          train: has no effect, since nothing is normalised.

        Returns:
          (B, H, W, 3) float32 with H = s h - 2 valid_border and W likewise. Its three
          channels are equal, and change the luminance by what the layers give.
        """
        del train
        dtype, platform, precision = self.compute
        x = luminance(ops.bicubic_skip(lr, self.scale)) - 0.5
        for i, features in enumerate([self.features] * (self.layers - 1) + [1]):
            shape = (3, 3, x.shape[-1], features)
            # He's initialisation, as in its paper: twenty plain layers would fade under
            # Glorot's. The last one is zero: the untrained network is bicubic.
            last = i == self.layers - 1
            start = nn.initializers.zeros if last else nn.initializers.he_normal()
            kernel = self.param(f"kernel{i}", start, shape, jnp.float32)
            bias = self.param(f"bias{i}", nn.initializers.zeros, (features,))
            x = nn.relu(x) if i else x
            x, kernel = x.astype(dtype), kernel.astype(dtype)
            x = ops.conv3x3(x, kernel, bias, platform, precision)
        # The three weights add up to 219 / 255.
        return jnp.repeat(x.astype(jnp.float32) / sum(LUMINANCE), 3, axis=-1)

    multiply_adds = property(cost.multiply_adds)

    def loss_difference(self, sr: jax.Array, hr: jax.Array) -> jax.Array:
        """Returns what a loss is taken of: the difference in luminance, (B, H, W, 1).

        Args:
          sr, hr: (B, H, W, 3) float32 in [0, 1].
        """
        return luminance(sr - hr)
