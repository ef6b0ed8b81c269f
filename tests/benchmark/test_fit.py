"""Claims of fit.py: what `btsrn info` says of a config."""

import jax
import pytest
from helpers import tiny

from btsrn_jax import config as schema
from btsrn_jax import mesh
from btsrn_jax.benchmark import fit
from btsrn_jax.errors import InputError


def facts(text):
    return dict(line.split(": ", 1) for line in text.splitlines())


@pytest.mark.parametrize(("scale", "count"), [(2, 887683), (3, 969603), (4, 953347)])
def test_parameters_are_whole_numbers(scale, count):
    config = schema.defaults()
    config.scale = scale
    assert facts(fit.describe_config(config))["parameters"] == str(count)


def test_steps_are_told_where_the_config_tells_them():
    config = schema.defaults()
    config.train.steps = 1600
    found = facts(fit.describe_config(config))
    assert (found["steps"], found["decay steps"]) == ("1600", "100")


def test_compiling_counts_the_work_of_a_device_and_its_memory():
    config = tiny.config()
    config.model.features, config.model.bottleneck = 32, 16
    training = {
        n: fit.compile_training(config, mesh.make_mesh(jax.devices()[:n]), kept=False)
        for n in (2, 8)
    }
    assert training[8].flops == pytest.approx(training[2].flops / 4, rel=0.2)
    assert training[8].collectives == {"all-reduce": 1}
    assert training[8].used > training[8].temporary > 0


def test_evaluation_gathers_its_pixels_and_nothing_else(monkeypatch):
    """As on accelerators, where a device takes eight tiles or views at once."""
    monkeypatch.setattr(mesh, "platform", lambda devices: "plain")
    config = tiny.config()
    config.eval.tile, config.eval.ensemble = 8, True
    evaluation = fit.compile_evaluation(config, mesh.make_mesh(), 0.1)
    assert evaluation.flops > 0
    assert evaluation.collectives == {"all-gather": 1}


def test_the_largest_batch_is_found_by_doubling(monkeypatch, tmp_path):
    """On a device that holds a batch of 8 and a half more, not one of 16."""
    config, devices, said = tiny.config(), mesh.make_mesh(jax.devices()[:2]), []
    config.data.source = "samples"
    used = {}
    with tiny.compiled_once(tmp_path):
        for size in (8, 16):
            config.train.batch_size = size
            used[size] = fit.compile_training(config, devices, kept=False).used
        between = (used[8] + used[16]) / 2
        monkeypatch.setattr(fit, "memory_of", lambda devices: between)
        config.train.batch_size = 4
        assert fit.largest_batch(config, devices, said.append) == 8
        assert [x.split(":")[0] for x in said] == ["batch 4", "batch 8", "batch 16"]
        monkeypatch.setattr(fit, "memory_of", lambda devices: used[8] / 8)
        assert fit.largest_batch(config, devices, said.append) == 0


@pytest.mark.parametrize("name", ["v5e", "v9:2x4", "v5e:2xx4", "h100:8"])
def test_a_slice_that_does_not_exist_is_one_line(name):
    with pytest.raises(InputError, match="--topology"):
        fit.topology_mesh(name)
