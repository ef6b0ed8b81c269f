"""The peer that `btsrn bench --peer torch` measures is the same network, export's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from btsrn_jax import export
from btsrn_jax.export import torch_file
from btsrn_jax.network import btsrn as network
from btsrn_jax.network import geometry, ops

torch = pytest.importorskip("torch", reason="the extra [peer] is not installed")

SIZES = {"features": 12, "bottleneck": 8, "low_blocks": 2, "high_blocks": 2}


@pytest.fixture(params=[2, 3, 4])
def pair(request):
    """Our network, its parameters (no layer zero), and the peer with the same ones."""
    model = network.BTSRN(scale=request.param, **SIZES)
    variables = network.init(model, jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda a: a + 0.1 * rng.standard_normal(a.shape).astype(np.float32),
        variables["params"],
    )
    return model, params, export.torch_network().BTSRN.from_state(state(model, params))


def state(model, params):
    arrays = torch_file.state_dict(model, {"params": params})
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


def draw(*shape):
    return np.random.default_rng(1).random(shape, np.float32)


def test_outputs_and_gradients_of_the_peer_are_ours(pair):
    model, params, net = pair
    lr = draw(2, 13, 13, 3)
    side = model.output_size(13)
    hr = draw(2, side, side, 3)

    def loss(params):
        sr, _ = network.super_resolve(model, {"params": params}, jnp.asarray(lr))
        return jnp.mean((sr - hr) ** 2), sr

    (ours, sr), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    theirs = net.super_resolve(torch.from_numpy(lr.transpose(0, 3, 1, 2)))
    assert theirs.shape == (2, 3, side, side)
    np.testing.assert_allclose(
        theirs.detach().permute(0, 2, 3, 1).numpy(), sr, atol=1e-4
    )
    error = torch.mean((theirs - torch.from_numpy(hr.transpose(0, 3, 1, 2))) ** 2)
    error.backward()
    assert error.item() == pytest.approx(float(ours), rel=1e-4)
    expected = state(model, gradient)
    for name, parameter in net.named_parameters():
        wanted = expected.pop(name).numpy()
        np.testing.assert_allclose(
            parameter.grad, wanted, atol=1e-4 * np.abs(wanted).max()
        )
    assert not expected


def test_the_peers_skip_is_ours_when_the_network_says_nothing(pair):
    model, _, net = pair
    with torch.no_grad():
        net.last.weight.zero_()
        net.last.bias.zero_()
    lr = draw(1, 16, 16, 3)
    skip = np.asarray(ops.bicubic_skip(jnp.asarray(lr), model.scale))
    border = model.valid_border - geometry.SKIP_MARGIN * model.scale
    theirs = net.super_resolve(torch.from_numpy(lr.transpose(0, 3, 1, 2)))
    np.testing.assert_allclose(
        theirs.detach().permute(0, 2, 3, 1).numpy(),
        skip[:, border : skip.shape[1] - border, border : skip.shape[2] - border],
        atol=1e-6,
    )
