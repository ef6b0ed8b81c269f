"""Claims about the step: the same on any topology, and made of what the paper says."""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import tiny

from btsrn_jax import checkpoint, mesh, trees
from btsrn_jax.data import sampler
from btsrn_jax.errors import InputError
from btsrn_jax.network import btsrn as network
from btsrn_jax.training import optimizer
from btsrn_jax.training import step as train


class Trained(NamedTuple):
    """A tiny run. states: of all steps (NumPy), states[0] before the first."""

    step: Callable
    recipe: train.Recipe
    states: list
    metrics: list


def run(config, devices=1, steps=1, params=None):
    """So many steps on so many devices; initial `params` save compiling fresh ones."""
    on = mesh.make_mesh(jax.devices()[:devices])
    recipe = train.make_recipe(config, on)
    state = train.create_state(recipe, on, params)
    step = train.compile_step(recipe, on)
    store = jax.device_put(tiny.store(), mesh.replicated(on))
    states, metrics = [jax.device_get(state)], []
    for _ in range(steps):
        state, found = step(state, store)
        states.append(jax.device_get(state))
        metrics.append(jax.device_get(found))
    return Trained(step, recipe, states, metrics)


@functools.cache
def trained(devices):
    """Ten steps of the plain recipe."""
    return run(tiny.config(), devices, 10)


def vector(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_devices_share_the_work_and_agree_with_one(devices):
    """After 1 step to 1e-6, after 10 to 1e-3 of the norm of the change: Adam amplifies
    rounding. All topologies see the same batches."""
    alone, shared = trained(1), trained(devices)
    start, one, ten = (vector(alone.states[i].params) for i in (0, 1, 10))
    np.testing.assert_allclose(vector(shared.states[1].params), one, atol=1e-6)
    change = np.linalg.norm(ten - start)
    apart = np.linalg.norm(ten - vector(shared.states[10].params))
    assert change > 0.1
    assert apart < 1e-3 * change
    for ours, theirs in zip(shared.metrics, alone.metrics, strict=True):
        np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-5)


@functools.cache
def compiled(devices, parts=1, batch_size=8, degraded=None):
    """The step at a size where its convolutions dominate, in so many parts."""
    config = tiny.config(patch=32, batch_size=batch_size)
    config.model.features, config.model.bottleneck = 32, 16
    on = mesh.make_mesh(jax.devices()[:devices])
    recipe = train.make_recipe(config, on)
    recipe = dataclasses.replace(recipe, parts=parts, degradation=degraded)
    state = jax.eval_shape(lambda: train.create_state(recipe, on))
    store = tiny.store([(20, 30), (16, 40)])
    return train.compile_step(recipe, on).lower(state, store).compile()


def test_each_of_eight_devices_does_an_eighth_of_the_arithmetic():
    flops = {n: compiled(n).cost_analysis()["flops"] for n in (1, 8)}
    assert flops[8] == pytest.approx(flops[1] / 8, rel=0.1)


@pytest.mark.parametrize(
    ("parts", "degraded"), [(1, None), (4, None), (1, tiny.DEGRADED)]
)
def test_the_gradients_are_summed_once_and_nothing_is_gathered(parts, degraded):
    """Also where a step goes through its batch in parts: not once a part."""
    text = compiled(8, parts, 32 if parts > 1 else 8, degraded).as_text()
    kinds = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    found = re.findall(rf" ({kinds})(?:-start)?\(", text)
    assert found == ["all-reduce"]
    operands = re.search(r"= \((.*?)\) all-reduce\(", text)[1]
    arrays = len(re.findall(r"f32\[", operands))
    parameters = jax.tree.leaves(trained(1).states[0].params)
    assert arrays == len(parameters) + 1  # and the loss


def test_a_config_without_degradation_has_a_step_without_it():
    on = mesh.make_mesh(jax.devices()[:1])
    config = tiny.config()
    assert train.make_recipe(config, on).degradation is None
    assert train.make_recipe(config, on).margin == 0
    config.data.degradation.jpeg = 0.5
    recipe = train.make_recipe(config, on)
    assert recipe.degradation.jpeg_quality == (30, 98)
    assert recipe.margin == recipe.degradation.margin(recipe.side) > 0


def test_the_activations_of_a_micro_batch_are_all_that_is_in_memory():
    whole, parts = (
        compiled(8, parts, 32).memory_analysis().temp_size_in_bytes for parts in (1, 4)
    )
    assert parts < 0.35 * whole


@pytest.mark.parametrize(("devices", "parts"), [(1, 1), (2, 4), (4, 2)])
def test_micro_batches_change_the_gradient_by_rounding_only(devices, parts):
    """Each is divided over all devices. One CPU device goes patch by patch anyway."""
    start = trained(1).states[0].params
    made = run(tiny.config(micro_batches=parts), devices, params=start)
    assert made.recipe.parts == (8 if devices == 1 else parts)
    alone = trained(1)
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(
            made.metrics[0][name], alone.metrics[0][name], rtol=1e-5
        )
    mine, theirs = (vector(x.states[1].opt_state[0][0].mu) for x in (made, alone))
    np.testing.assert_allclose(mine, theirs, atol=1e-6 * np.abs(theirs).max())


def test_the_step_is_traced_once():
    assert trained(1).step._cache_size() == 1
    assert trained(8).step._cache_size() == 1


def first_updates(optimizer, gradient, params):
    """As NumPy; compiled as one program."""

    def update(gradient, params):
        return optimizer.update(gradient, optimizer.init(params), params)[0]

    return jax.device_get(jax.jit(update)(gradient, params))


def test_a_step_is_adam_on_the_mean_squared_error_of_its_batch():
    """The whole step, from its parts: batch, forward pass, gradient of the mean over
    all elements, optax's Adam."""
    _, recipe, states, metrics = trained(1)
    lr, hr = sampler.batch(tiny.store(), 0, 0, 8, recipe.side, recipe.target)

    def loss_of(params):
        sr, _ = network.super_resolve(recipe.model, {"params": params}, lr)
        return jnp.sum((hr - sr) ** 2) / hr.size

    start = states[0].params
    loss, gradient = jax.jit(jax.value_and_grad(loss_of))(start)
    updates = first_updates(optax.adam(1e-3), gradient, start)
    expected = optax.apply_updates(start, updates)
    np.testing.assert_allclose(metrics[0]["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(
        metrics[0]["grad_norm"], np.linalg.norm(vector(gradient)), rtol=1e-4
    )
    np.testing.assert_allclose(vector(states[1].params), vector(expected), atol=1e-6)
    assert int(states[10].step) == 10


def orthogonal(matrix):
    """Muon's polynomial in the singular values, five times (Jordan, 2024)."""
    u, values, v = np.linalg.svd(matrix, full_matrices=False)
    values = values / np.linalg.norm(values)
    for _ in range(5):
        values = 3.4445 * values - 4.775 * values**3 + 2.0315 * values**5
    return u @ np.diag(values) @ v


def test_a_first_step_of_muon_by_singular_values():
    """Kernels: the gradient made orthogonal, times 0.6 sqrt(the longer side), as of Liu
    et al. (2025); in float64. All else: Nesterov's Adam, the sign of the gradient."""
    on = mesh.make_mesh(jax.devices()[:1])
    recipe = train.make_recipe(tiny.config(optimizer="muon"), on)
    lr, hr = sampler.batch(tiny.store(), 0, 0, 8, recipe.side, recipe.target)

    def loss_of(params):
        sr, _ = network.super_resolve(recipe.model, {"params": params}, lr)
        return jnp.mean((hr - sr) ** 2)

    # `out` starts at 0, and lets no gradient through to the others.
    start = trained(1).states[0].params
    params = jax.tree.map(lambda x: x + np.float32(0.1), start)
    gradient = jax.device_get(jax.jit(jax.grad(loss_of))(params))
    updates = first_updates(recipe.optimizer, gradient, params)
    made = 0
    for name, update in trees.flatten(updates).items():
        g = trees.flatten(gradient)[name].astype(np.float64)
        if g.ndim == 4 and not name.startswith(("in", "out")):
            g = g.reshape(-1, g.shape[-1])
            expected = 0.6 * max(g.shape) ** 0.5 * orthogonal(g)
            made += 1
        else:
            # Nesterov's first step: 0.9 * 0.1 / (1 - 0.9**2) + 1
            expected = 1.473684 * g / (np.abs(g) + 1e-8)
        expected = -1e-3 * expected.reshape(update.shape)
        np.testing.assert_allclose(update, expected, rtol=1e-3, atol=1e-7)
    assert made == 5  # two of each block, and the deconvolution


def test_losses_by_hand():
    error = jnp.array([[0.0, -0.5], [1.0, 0.1]])
    assert train.LOSSES["mse"](error) == pytest.approx((0.25 + 1 + 0.01) / 4)
    assert train.LOSSES["l1"](error) == pytest.approx(1.6 / 4)
    root = [1e-3, (0.25 + 1e-6) ** 0.5, (1 + 1e-6) ** 0.5, (0.01 + 1e-6) ** 0.5]
    assert train.LOSSES["charbonnier"](error) == pytest.approx(sum(root) / 4)


def test_the_paper_decays_by_0_6_after_each_pass_in_stairs():
    """Paper, section 4: Adam at 0.001, x 0.6 after each pass."""
    settings = tiny.config(decay_steps=100, steps=1600).train
    schedule = optimizer.make_schedule(settings)
    rates = {0: 1e-3, 99: 1e-3, 100: 6e-4, 199: 6e-4, 200: 3.6e-4}
    rates[1599] = 1e-3 * 0.6**15
    for step, rate in rates.items():
        assert schedule(step) == pytest.approx(rate, rel=1e-5)
    assert [m["learning_rate"] for m in trained(1).metrics] == pytest.approx(
        [1e-3] * 5 + [6e-4] * 5
    )


def test_cosine_rises_linearly_and_falls_to_zero():
    settings = tiny.config(schedule="cosine", warmup_steps=10, steps=110).train
    schedule = optimizer.make_schedule(settings)
    for step, share in {0: 0, 5: 0.5, 10: 1, 60: 0.5, 110: 0}.items():
        assert schedule(step) == pytest.approx(1e-3 * share, abs=1e-9)


def test_cosine_without_warmup_starts_at_the_top():
    settings = tiny.config(schedule="cosine", steps=100).train
    schedule = optimizer.make_schedule(settings)
    assert schedule(0) == pytest.approx(1e-3)
    assert schedule(50) == pytest.approx(5e-4)


def test_wsd_rises_stays_and_falls_to_zero_as_1_minus_sqrt():
    settings = tiny.config(schedule="wsd", warmup_steps=10, steps=100).train
    schedule = optimizer.make_schedule(settings)
    shares = {0: 0, 5: 0.5, 10: 1, 79: 1, 80: 1, 85: 0.5, 100: 0}
    for step, share in shares.items():
        assert schedule(step) == pytest.approx(1e-3 * share, abs=1e-9)
    # In the stable phase the rate is the same number however long the run is.
    longer = optimizer.make_schedule(tiny.config(schedule="wsd", steps=10**7).train)
    assert {float(s(n)) for s in (schedule, longer) for n in (10, 40, 79)} == {
        float(jnp.float32(1e-3))
    }


@pytest.mark.parametrize(("share", "halved"), [(1.0, 25), (0.0, None)])
def test_wsd_may_fall_at_once_or_never(share, halved):
    settings = tiny.config(schedule="wsd", decay_share=share, steps=100).train
    schedule = optimizer.make_schedule(settings)
    assert schedule(0) == pytest.approx(1e-3)
    assert schedule(halved or 99) == pytest.approx(5e-4 if halved else 1e-3)


@functools.cache
def clipped_and_averaged():
    start = trained(1).states[0].params
    return run(tiny.config(clip_norm=1e-4, ema=0.2), steps=3, params=start)


def test_clipping_bounds_the_norm_of_the_gradient():
    """Adam's first moment after one step is a tenth of the gradient that it got."""
    _, _, states, metrics = clipped_and_averaged()
    assert metrics[0]["grad_norm"] > 1e-3  # as it was before
    first_moment = vector(states[1].opt_state[1][0].mu)
    assert np.linalg.norm(first_moment) == pytest.approx(1e-5, rel=1e-3)


def test_averaged_weights_follow_the_weights_by_the_recurrence():
    """The decay is the configured one, at first less: (1 + n) / (10 + n)."""
    states = clipped_and_averaged().states
    average = vector(states[0].params)
    for n, state in enumerate(states[1:]):
        decay = min(0.2, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * vector(state.params)
        np.testing.assert_allclose(vector(state.ema), average, atol=1e-6)
    assert train.inference_variables(states[-1])["params"] is states[-1].ema


def test_an_update_that_is_not_finite_is_skipped_and_counted():
    step, _, states, _ = trained(1)
    good = states[3]
    nan = np.float32(np.nan)
    bad = good._replace(params=jax.tree.map(lambda x: x * nan, good.params))
    everywhere = mesh.replicated(mesh.make_mesh(jax.devices()[:1]))
    state = jax.device_put(bad, everywhere)
    for skipped in (1, 2, 3):
        state, metrics = step(state, tiny.store())
        assert int(metrics["skipped"]) == skipped
        # The rate decays after 5 updates; of the 6 attempts 3 were none.
        assert metrics["learning_rate"] == np.float32(1e-3)
        assert not np.isfinite(metrics["loss"])
        assert int(state.step) == 3 + skipped  # another batch is tried
    # Neither the moments nor the schedule's count moved.
    np.testing.assert_array_equal(vector(state.opt_state), vector(good.opt_state))

    mended = state._replace(params=jax.device_put(good.params, everywhere))
    state, metrics = step(mended, tiny.store())
    assert int(metrics["skipped"]) == 0
    assert not np.array_equal(vector(state.params), vector(good.params))
    assert metrics["learning_rate"] == np.float32(1e-3)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_the_logged_learning_rate_is_the_one_that_was_applied(optimizer):
    """After skipped steps the schedule lags behind the count of attempts."""
    recipe = train.make_recipe(
        tiny.config(optimizer=optimizer, clip_norm=0.5), mesh.make_mesh()
    )
    create = functools.partial(train.create_state, recipe, mesh.make_mesh())
    state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(create))
    assert train.updates_made(state.opt_state) == 0
    _, moved = recipe.optimizer.update(state.params, state.opt_state, state.params)
    assert train.updates_made(moved) == 1


@pytest.fixture(scope="module")
def x2_run(tmp_path_factory):
    """A run directory of an x2 network whose last layer is not zero."""
    workdir = tmp_path_factory.mktemp("x2")
    state = trained(1).states[2]
    checkpoints = checkpoint.Checkpoints(workdir)
    checkpoints.save(2, state, tiny.config().to_dict() | {"eval": {}})
    checkpoints.close()
    return workdir, state


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_network_starts_from_an_x2_one_in_all_but_the_upsampler(x2_run, scale):
    workdir, theirs = x2_run
    config = tiny.config(init_from=str(workdir), patch=24)
    config.scale = scale
    recipe = train.make_recipe(config, mesh.make_mesh(jax.devices()[:1]))
    params = trees.flatten(train.initial_params(str(workdir), recipe))
    fresh = jax.jit(functools.partial(network.init, recipe.model))
    fresh = trees.flatten(fresh(jax.random.key(0))["params"])
    theirs = trees.flatten(theirs.params)
    assert params.keys() == fresh.keys()
    for name, array in params.items():
        source = fresh if name.startswith("up") and scale != 2 else theirs
        np.testing.assert_array_equal(array, source[name], err_msg=name)


def test_a_start_of_another_width_is_refused(x2_run):
    config = tiny.config()
    config.model.features = 16
    recipe = train.make_recipe(config, mesh.make_mesh(jax.devices()[:1]))
    with pytest.raises(InputError, match=r"init_from.*was expected"):
        train.initial_params(str(x2_run[0]), recipe)


def test_batch_statistics_are_those_of_the_whole_batch_wherever_its_parts_lie():
    config = tiny.config()
    config.model.norm = "batch"
    first = run(config)
    second = run(config, devices=4, params=first.states[0].params)
    alone, shared = (
        vector((made.states[1].params, made.states[1].model_state))
        for made in (first, second)
    )
    np.testing.assert_allclose(alone, shared, atol=2e-6)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_the_step_lowers_for_accelerators(platform):
    config = tiny.config()
    config.model.dtype = "bfloat16"
    on = mesh.make_mesh()
    recipe = train.make_recipe(config, on)
    plain = network.Compute(jnp.bfloat16, "plain")
    recipe = dataclasses.replace(recipe, model=network.build(config.model, 2, plain))
    state = jax.eval_shape(lambda: train.create_state(recipe, on))
    step = train.compile_step(recipe, on)
    traced = step.trace(state, tiny.store())
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert "bf16" in text
    assert "sdy.sharding_constraint" in text or "mhlo.sharding" in text
