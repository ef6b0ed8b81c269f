"""What a network costs: parameters, arithmetic, and memory in training.

Everything is counted in traced shapes and nothing is computed, so that the counts hold
for every network and every kind of block.
"""

import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core


@functools.cache
def shapes(model: Any) -> dict:
    """Returns a network's variables as `jax.ShapeDtypeStruct`s."""
    # A real key would be made on a device; `btsrn info` takes none.
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(model.init, key, _lr(1, 2 * model.halo + 1))


def _lr(batch, side):
    return jax.ShapeDtypeStruct((batch, side, side, 3), jnp.float32)


def parameter_count(model: Any) -> int:
    """Returns the number of trainable parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(model)["params"]))


@functools.cache
def multiply_adds(model: Any) -> float:
    """Returns the multiply-adds per HR pixel of a large image; halos are not counted.

    Those of a square of n LR pixels a side are a n^2 + b n + c: the halos are in b and
    c, and a is what is returned, for each of the HR pixels that an LR pixel becomes.
    """
    least = 2 * model.halo + 1
    first, second, third = (sum(_products(model, least + i)) for i in range(3))
    return (third - 2 * second + first) / 2 / model.scale**2


def forward_flops(model: Any, side: int) -> int:
    """Returns the floating-point operations of the network on one LR square.

    A multiply-add is two operations. Only convolutions and matrix products count:
    additions, activations and the bicubic skip are left out.

    Args:
      model: the network.
      side: of the square, in LR pixels.
    """
    return 2 * sum(_products(model, side))


def train_flops(model: Any, side: int) -> int:
    """Returns the floating-point operations of forward and backward pass on one square.

    Each product of the forward pass occurs three times. The exception is the gradient
    of the first layer's input, which nobody needs.
    """
    products = _products(model, side)
    return 2 * (3 * sum(products) - products[0])


def _products(model, side):
    """Returns the multiply-adds of each layer's convolution or product, in order."""
    # In the plain form a layer is one product; on a CPU it may be three.
    compute = model.compute._replace(dtype=jnp.float32, platform="plain")
    model = model.clone(compute=compute)
    traced = jax.make_jaxpr(model.apply)(shapes(model), _lr(1, side))
    return list(_count(traced.jaxpr))


def _count(jaxpr) -> Iterator[int]:
    for equation in jaxpr.eqns:
        for value in equation.params.values():  # of nested functions
            if isinstance(value, core.ClosedJaxpr):
                yield from _count(value.jaxpr)
            elif isinstance(value, core.Jaxpr):
                yield from _count(value)
        if equation.primitive.name == "conv_general_dilated":
            kernel, out = equation.invars[1].aval, equation.outvars[0].aval.size
            features = equation.params["dimension_numbers"].rhs_spec[0]
            yield out * kernel.size // kernel.shape[features]
        elif equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            x, out = equation.invars[0].aval.shape, equation.outvars[0].aval.size
            yield out * math.prod(x[axis] for axis in contracted)


def kept_for_gradient(model: Any, batch: int, side: int) -> int:
    """Returns the bytes that a step's forward pass keeps for its backward pass.

    These are the arrays that differentiation asks for. The compiler may do with less,
    and a training step on a CPU goes patch by patch.

    Args:
      model: the network.
      batch: number of LR patches.
      side: of a patch, in LR pixels.
    """
    variables = shapes(model)

    def keep(variables, lr):
        def forward(params):
            known = variables | {"params": params}
            return model.apply(known, lr, True, mutable=["batch_stats"])[0]

        return jax.vjp(forward, variables["params"])[1]

    kept = jax.tree.leaves(jax.eval_shape(keep, variables, _lr(batch, side)))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in kept)
