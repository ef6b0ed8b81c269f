"""What a network costs: parameters and arithmetic.

Counts come from the shapes of the variables, which are traced and never computed, so
that they hold for every kind of block.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from btsrn_jax.network.geometry import upsamplings


@functools.cache
def shapes(model: Any) -> dict:
    """Returns the variables of a network as shapes and dtypes; nothing is computed."""
    side = 2 * model.halo + 1
    lr = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    # A real key would be made on a device; `btsrn info` takes none.
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(model.init, key, lr)


def parameter_count(model: Any) -> int:
    """Returns the number of trainable parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(model)["params"]))


def multiply_adds(model: Any) -> float:
    """Returns the multiply-adds per HR pixel of a large image; halos are not counted.

    Each weight of a kernel is used once for every pixel that its layer reads.
    """
    total = 0.0
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes(model)["params"]):
        if len(leaf.shape) == 4:  # a kernel; all else is added, not multiplied
            total += leaf.size * model.pixels_read(path[0].key)
    return total


def forward_flops(model: Any, side: int) -> int:
    """Returns the operations of the convolutions on one LR square of a BTSRN.

    VALID sizes are counted exactly; a multiply-add is two operations. Additions,
    activations and the skip are left out.

    Raises:
      ValueError: for a kind of block that has no formula here.
    """
    f, n = model.features, model.bottleneck
    inside = {  # multiply-adds per pixel of the 3x3 convolution and what follows it
        "pconv": 9 * n * f,
        "pixelcnn": 9 * n * n + n * f,
        "gated": 9 * n * 2 * f,
        "gated_pp": 9 * n * 2 * f,
    }
    if model.block not in inside:
        raise ValueError(f"no formula for the operations of block {model.block!r}")
    total = 3 * f * side**2

    def stage(side, blocks):
        """Returns the multiply-adds of some blocks, and the side after them."""
        count = 0
        for _ in range(blocks):
            count += f * n * side**2 + inside[model.block] * (side - 2) ** 2
            side -= 2
        return count, side

    count, side = stage(side, model.low_blocks)
    total += count
    for i, step in enumerate(upsamplings(model.scale)):
        if i:
            count, side = stage(side, model.mid_blocks)
            total += count
        side *= step
        total += f * f * side**2
    count, side = stage(side, model.high_blocks)
    return 2 * (total + count + f * 3 * side**2)


def train_flops(model: Any, side: int) -> int:
    """Returns the operations of forward and backward pass on one LR square.

    Each product occurs three times, except for the gradient of the first layer's input,
    which nobody needs.
    """
    return 3 * forward_flops(model, side) - 2 * 3 * model.features * side**2
