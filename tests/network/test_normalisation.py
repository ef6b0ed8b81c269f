"""Claims of the normalisations of Sec. 3.4, against NumPy in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import reference

from btsrn_jax import mesh
from btsrn_jax.network import btsrn
from btsrn_jax.network.btsrn import BTSRN, Compute

EXACT = Compute(precision=jax.lax.Precision.HIGHEST)
MOMENTUM, EPSILON = 0.99, 1e-5  # Linen's defaults
NORMED = ("pre_up0_norm", "pre_out_norm")


def images(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


def without_blocks(norm):
    return BTSRN(2, features=8, low_blocks=0, high_blocks=0, norm=norm, compute=EXACT)


def random_tree(tree, seed=1):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: rng.uniform(0.2, 1, leaf.shape).astype(np.float32), tree
    )


def by_hand(variables, lr, statistics=None):
    """Computes the batch-normalised network without blocks.

    Returns its residual and the statistics that were used; where none are given, they
    are those of the batch.
    """
    params, used = variables["params"], {}

    def pre(x, name):
        if statistics is None:
            pixels = x.reshape(-1, x.shape[-1])
            used[name] = pixels.mean(axis=0), pixels.var(axis=0)
        else:
            used[name] = statistics[name]["mean"], statistics[name]["var"]
        mean, variance = used[name]
        x = (x - mean) / np.sqrt(variance + EPSILON)
        return reference.relu(x * params[name]["scale"] + params[name]["bias"])

    lr = lr.astype(np.float64) - 0.5
    x = np.stack([reference.convolve(image, params["in"]) for image in lr])
    y = pre(x, "pre_up0_norm")
    y = np.stack([reference.deconvolve(image, params["up0"], 2) for image in y])
    x = np.stack([reference.nearest(image, 2) for image in x]) + y
    y = pre(x, "pre_out_norm")
    y = np.stack([reference.convolve(image, params["out"]) for image in y])
    return y, used


@functools.cache
def batch_case():
    model = without_blocks("batch")
    variables = random_tree(btsrn.init(model, jax.random.key(0)))
    return model, variables, images(16, 5, 6, 3)


def check_statistics(state, before, used):
    for name in NORMED:
        old, new = before[name], state["batch_stats"][name]
        mean, variance = used[name]
        for key, value in (("mean", mean), ("var", variance)):
            expected = MOMENTUM * old[key] + (1 - MOMENTUM) * value
            np.testing.assert_allclose(new[key], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("devices", [1, 8])
def test_batch_statistics_are_those_of_the_whole_batch_on_any_devices(devices):
    model, variables, lr = batch_case()
    on = mesh.make_mesh(jax.devices()[:devices])
    apply = jax.jit(
        lambda variables, lr: model.apply(variables, lr, True, mutable=["batch_stats"]),
        in_shardings=(mesh.replicated(on), mesh.split(on)),
    )
    residual, state = apply(variables, lr)
    expected, used = by_hand(variables, lr)
    assert len(residual.sharding.device_set) == devices
    np.testing.assert_allclose(residual, expected, rtol=1e-4, atol=1e-5)
    check_statistics(state, variables["batch_stats"], used)
    # Statistics of a device's own share would give another result.
    share, _ = by_hand(variables, lr[:2])
    assert np.abs(share - expected[:2]).max() > 1e-3


def test_at_test_time_the_statistics_are_those_that_were_learned():
    model, variables, lr = batch_case()
    expected, _ = by_hand(variables, lr[:2], variables["batch_stats"])
    residual = model.apply(variables, lr[:2])
    np.testing.assert_allclose(residual, expected, rtol=1e-4, atol=1e-5)
    # One image alone gives what it gives among others.
    alone = model.apply(variables, lr[1:2])
    np.testing.assert_allclose(alone, residual[1:], rtol=1e-5, atol=1e-6)


def test_a_weight_normalised_layer_is_length_times_direction():
    model = without_blocks("weight")
    variables = random_tree(btsrn.init(model, jax.random.key(0)))
    params = {}
    for name, layer in variables["params"].items():
        kernel = np.asarray(layer["kernel"], np.float64)
        unit = kernel / np.sqrt((kernel**2).sum(axis=(0, 1, 2)))
        params[name] = {"kernel": unit * layer["length"], "bias": layer["bias"]}
    lr = images(1, 4, 5, 3)
    expected = reference.forward(params, lr[0], 2, 0, 0, 0)
    np.testing.assert_allclose(model.apply(variables, lr)[0], expected, rtol=1e-5)


def test_weight_normalisation_starts_as_the_same_network_with_gradients_of_its_size():
    """This holds in the last layer, too, which starts at zero: its length has the
    gradient, and its direction has none yet. Divided by a length of zero the gradient
    would be in the millions."""
    lr, hr = images(2, 3, 3, 3), images(2, 6, 6, 3, seed=1)

    def start(model):
        def loss(params):
            residual = model.apply({"params": params}, lr)
            return jnp.mean((residual - hr) ** 2)

        params = btsrn.init(model, jax.random.key(0))["params"]
        return params, *jax.jit(jax.value_and_grad(loss))(params)

    plain, normed = (without_blocks(norm) for norm in ("none", "weight"))
    params, loss, gradient = start(plain)
    normed_params, normed_loss, normed_gradient = start(normed)
    for name in ("in", "up0"):
        kernels = params[name]["kernel"], normed_params[name]["kernel"]
        np.testing.assert_array_equal(*kernels)
    assert not normed_params["out"]["length"].any()
    assert normed_params["out"]["kernel"].all()
    np.testing.assert_allclose(normed_loss, loss, rtol=1e-6)
    # The length's gradient is the kernel's, projected on the direction.
    kernel = np.asarray(normed_params["out"]["kernel"], np.float64)
    direction = kernel / np.sqrt((kernel**2).sum(axis=(0, 1, 2)))
    along = (direction * gradient["out"]["kernel"]).sum(axis=(0, 1, 2))
    np.testing.assert_allclose(normed_gradient["out"]["length"], along, rtol=1e-4)
    assert not normed_gradient["out"]["kernel"].any()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(normed_gradient))
