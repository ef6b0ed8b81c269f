"""Claims about what is added to the network: a new kind of block trains, is counted and
exported by what it does, and what nothing is known of is refused in a line."""

import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest
from helpers import runs, tiny

from btsrn_jax import inference, mesh, network
from btsrn_jax.errors import InputError
from btsrn_jax.export import write as export
from btsrn_jax.export.torch_file import missing_torch_form
from btsrn_jax.fields import FIELDS
from btsrn_jax.network import btsrn, choices, cost, ops
from btsrn_jax.training import loop
from btsrn_jax.training import step as train


class Block(btsrn.Block):
    """`btsrn.Block` with two more branches, as somebody would write them."""

    @nn.compact
    def __call__(self, x):
        features = x.shape[-1]
        if self.kind == "attention":  # a kernel a channel, used twice; products of 2-D
            y = self.conv(features, 1, name="in")(x)
            depthwise = nn.Conv(
                features,
                (3, 3),
                padding="VALID",
                feature_group_count=features,
                name="depthwise",
            )
            y = depthwise(y) + depthwise(nn.relu(y))
            weights = nn.Dense(features, name="dense")(y.mean((1, 2), keepdims=True))
            y = nn.Dense(features, name="mix")(y * nn.sigmoid(weights))
            return ops.crop(x, 1) + y
        if self.kind == "wide":  # two pixels off each side

            def conv(features, size, name):
                after = self.conv(features, size, name=f"{name}_after")
                first = self.conv(features, size, name=name)
                return lambda x: after(first(x))

            return Block.__base__("pconv", self.bottleneck, self.pre, conv)(x)
        return super().__call__(x)


NEW = ("attention", "wide", "nothing")


@pytest.fixture
def added(monkeypatch):
    """The package with the branches and their names, and one name too many."""
    blocks = (*choices.BLOCKS, *NEW)
    monkeypatch.setattr(choices, "BLOCKS", blocks)
    field = dataclasses.replace(FIELDS["model.block"], allowed=blocks)
    monkeypatch.setitem(FIELDS, "model.block", field)
    monkeypatch.setattr(btsrn, "Block", Block)


def config_of(block, photos):
    config = tiny.config(steps=2, log_every=1)
    config.model.block = block
    config.data.source, config.data.hr_dir = "folder", str(photos)
    return config


def test_a_new_block_trains_is_counted_by_its_tree_and_exported_where_it_can_be(
    added, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("BTSRN_CACHE", str(tmp_path / "cache"))
    photos = tiny.write_photos(tmp_path / "photos", tiny.HR_SIZES)
    config = config_of("attention", photos)
    run = tmp_path / "run"
    assert loop.run(config, run, mesh.make_mesh(jax.devices()[:1])) == 0
    found = inference.load_weights(str(run))
    leaves = jax.tree.leaves(found.variables["params"])
    count = sum(leaf.size for leaf in leaves)
    model = network.build(found.config["model"], 2)
    assert network.parameter_count(model) == count
    assert f"{count:,} parameters" in caplog.text
    # One block a stage, 8 wide: 1x1, a depthwise 3x3 twice, a dense layer a pixel; the
    # one on means counts for nothing in a large image. Then in, up, out.
    block = 8 * 8 + 2 * 9 * 8 + 8 * 8
    expected = (3 * 8 + block) / 4 + 8 * 8 + block + 8 * 3
    assert cost.multiply_adds(model) == pytest.approx(expected, rel=1e-9)

    said = []
    about = export.export_model(str(run), tmp_path / "made", log=said.append)
    assert "model.onnx is left out: no ONNX form of block attention" in said
    assert {"model.safetensors", "model.stablehlo"} <= set(about["parity"])
    line = "model.pth.safetensors is left out: no PyTorch form of block attention"
    assert line in said
    assert not {"model.onnx", "model.pth.safetensors"} & set(about["parity"])
    assert about["export_command"].endswith("--formats safetensors,stablehlo,orbax")
    with pytest.raises(InputError, match="onnx: no ONNX form of block attention"):
        export.export_model(str(run), tmp_path / "no", ["safetensors", "onnx"])
    assert not (tmp_path / "no").exists()
    again = inference.load_weights(str(tmp_path / "made"))
    np.testing.assert_array_equal(
        *(x.variables["params"]["low0"]["mix"]["kernel"] for x in (found, again))
    )


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("wide", r"block pconv makes .* was expected: .*one pixel.*geometry.py"),
        ("nothing", "no block of kind 'nothing': network/choices.py has its name"),
    ],
)
def test_what_halos_and_forms_do_not_know_is_refused_in_a_line(added, block, message):
    model = network.build(config_of(block, "photos").model, 2)
    with pytest.raises(InputError, match=message) as error:
        network.parameter_count(model)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "known"),
    [("NAMES", "network"), ("NORMS", "norm"), ("ACTIVATIONS", "activation")],
)
def test_a_name_that_nothing_stands_for_is_no_other_ones_network(
    monkeypatch, name, known
):
    monkeypatch.setattr(choices, name, (*getattr(choices, name), "new"))
    field = "name" if name == "NAMES" else name.lower().removesuffix("s")
    model = runs.build()[0]["model"] | {field: "new"}
    with pytest.raises(InputError, match=f"no {known} of kind 'new': network/choices"):
        network.parameter_count(network.build(model, 2))
    if name == "NAMES":
        with pytest.raises(InputError, match="no sizes of network 'new'"):
            network.geometry_of(model, 2)


@pytest.mark.parametrize(
    ("name", "module"),
    [("loss", "step"), ("schedule", "optimizer"), ("optimizer", "optimizer")],
)
def test_a_choice_of_training_that_nothing_stands_for_is_refused(name, module):
    config = tiny.config(**{name: "new"})
    with pytest.raises(InputError, match=f"no {name} 'new' in training/{module}.py"):
        train.make_recipe(config, mesh.make_mesh(jax.devices()[:1]))


@pytest.mark.parametrize(
    ("field", "value"), [("block", "new"), ("norm", "new"), ("activation", "new")]
)
def test_every_part_without_a_form_is_named(field, value):
    model = runs.build()[1].clone(**{field: value})
    forms = ("ONNX", network.missing_onnx_form), ("PyTorch", missing_torch_form)
    for name, missing in forms:
        assert missing(model) == f"no {name} form of {field} {value}"
        assert missing(nn.Dense(1)) == f"no {name} form of Dense"
