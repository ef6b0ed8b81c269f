"""Claims of fit.py: what `btsrn info` says of a config."""

import jax
import pytest
from helpers import tiny

from btsrn_jax import config as schema
from btsrn_jax import mesh
from btsrn_jax.benchmark import fit
from btsrn_jax.errors import InputError
from btsrn_jax.network import btsrn as network
from btsrn_jax.network import cost


def told(text):
    return dict(line.split(": ", 1) for line in text.splitlines())


@pytest.mark.parametrize(("scale", "count"), [(2, 887683), (3, 969603), (4, 953347)])
def test_parameters_are_whole_numbers(scale, count):
    config = schema.defaults()
    config.scale = scale
    assert told(fit.describe_config(config))["parameters"] == f"{count} ({count:,})"


def test_steps_are_told_where_the_config_tells_them():
    config = schema.defaults()
    config.train.steps = 1600
    found = told(fit.describe_config(config))
    assert (found["steps"], found["decay steps"]) == ("1600 (1,600)", "100")
    config.train.schedule = "wsd"  # here it is how long the rate falls
    assert told(fit.describe_config(config))["decay steps"] == "320"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "7.34 GB of DIV2K, if they fit"),
        ({"split": "validation"}, "0.92 GB of DIV2K, if they fit"),
        ({"cache": "host"}, "none (data.cache=host)"),
        ({"source": "samples"}, "from data"),
    ],
)
def test_it_is_told_how_much_of_the_memory_the_images_take(data, said):
    config = schema.defaults()
    config.data.update(data)
    assert told(fit.describe_config(config))["training images on a device"] == said


def config_of_training():
    config = tiny.config(batch_size=8, patch=40)
    config.model.features, config.model.bottleneck = 32, 16
    return config


@pytest.fixture(scope="module")
def training():
    """What the compiler says of that step, by the number of devices."""
    return {
        n: fit.compile_training(
            config_of_training(), mesh.make_mesh(jax.devices()[:n]), kept=False
        )
        for n in (2, 8)
    }


def test_compiling_counts_the_work_of_a_device_and_its_memory(training):
    assert training[8].flops == pytest.approx(training[2].flops / 4, rel=0.2)
    assert training[8].collectives == {"all-reduce": 1}
    assert training[2].used > training[8].used > training[8].temporary > 0


def test_train_flops_are_what_xla_counts_and_divide_over_devices(training):
    config = config_of_training()
    model = network.build(config.model, config.scale)
    formula = 8 * cost.train_flops(model, config.train.patch // config.scale)
    counted = {n: n * compiled.flops for n, compiled in training.items()}
    # Beside the products there is the optimiser, done by every device.
    assert 0.75 * counted[2] < formula < counted[2]
    assert counted[8] < 1.25 * counted[2]


def test_evaluation_gathers_its_pixels_and_nothing_else(monkeypatch):
    """As on accelerators, where a device takes eight tiles or views at once."""
    monkeypatch.setattr(mesh, "platform", lambda devices: "plain")
    config = tiny.config()
    config.eval.tile, config.eval.ensemble = 8, True
    evaluation = fit.compile_evaluation(config, mesh.make_mesh(), 0.1)
    assert evaluation.flops > 0
    assert evaluation.collectives == {"all-gather": 1}


def test_the_largest_batch_is_found_by_doubling(training, monkeypatch):
    """On devices that hold three times what a batch of 8 takes: 16, but not 32."""
    config, devices, said = config_of_training(), mesh.make_mesh(jax.devices()[:2]), []
    config.data.source = "samples"
    used = training[2].used
    monkeypatch.setattr(fit, "memory_of", lambda devices: 3 * used)
    assert fit.largest_batch(config, devices, said.append) == 16
    assert [x.split(":")[0] for x in said] == ["batch 8", "batch 16", "batch 32"]
    monkeypatch.setattr(fit, "memory_of", lambda devices: used / 8)
    assert fit.largest_batch(config, devices, said.append) == 0


def test_micro_batches_stay_and_are_counted_whole(training, monkeypatch):
    """A batch of four parts fits where the whole would not, and does the same work."""
    config, devices, said = config_of_training(), mesh.make_mesh(jax.devices()[:2]), []
    config.train.micro_batches = 4
    found = fit.compile_training(config, devices, kept=False)
    assert found.collectives == {"all-reduce": 1}
    assert found.temporary < 0.4 * training[2].temporary
    assert found.flops == pytest.approx(training[2].flops, rel=0.25)
    config.data.source, config.train.batch_size = "samples", 4
    monkeypatch.setattr(fit, "memory_of", lambda devices: found.used - 1)
    assert fit.largest_batch(config, devices, said.append) == 0
    assert said == ["batch 8: does not fit; more than 4 train.micro_batches need less"]
    config.train.batch_size = 8
    assert told(fit.describe_config(config))["batch"] == "8 patches, in 4 parts"


@pytest.mark.parametrize("name", ["v5e", "v9:2x4", "v5e:2xx4", "h100:8"])
def test_a_slice_that_does_not_exist_is_one_line(name):
    with pytest.raises(InputError, match="--topology"):
        fit.topology_mesh(name)
