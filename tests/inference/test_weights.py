"""Claims of loading: by name, directory or run; what is damaged is named."""

import hashlib
import json
import pickle
import shutil

import jax
import numpy as np
import pytest
from helpers import runs
from safetensors.numpy import load_file, save_file

import btsrn_jax
from btsrn_jax import checkpoint
from btsrn_jax.errors import InputError
from btsrn_jax.export import write as export
from btsrn_jax.inference import weights


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A run, its best variables, and what `btsrn export` makes of it."""
    folder = tmp_path_factory.mktemp("origin")
    averaged = runs.make(folder / "run", steps=[(10, 31.5), (20, 30.5)])
    out = folder / "btsrn-x2"
    export.export_model(str(folder / "run"), out, ["safetensors"], log=str)
    return folder / "run", averaged[10], out


@pytest.fixture
def copy(origin, tmp_path):
    """An exported directory to damage."""
    return shutil.copytree(origin[2], tmp_path / "model")


def edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def edit_arrays(folder, change):
    """Changes the arrays, and the hash with them."""
    file = folder / "model.safetensors"
    arrays = load_file(file)
    change(arrays)
    save_file(arrays, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    edit_config(folder, sha256={"model.safetensors": digest})


def message(source):
    with pytest.raises(InputError) as error:
        weights.load_weights(str(source))
    text = str(error.value)
    assert "\n" not in text
    return text


def test_run_export_and_released_name_give_the_same_parameters(origin, monkeypatch):
    run, best, out = origin
    monkeypatch.setattr(weights, "RELEASED", out.parent)
    assert weights.released_models() == ["btsrn-x2"]
    for source in (run, out, "btsrn-x2"):
        loaded = weights.load_weights(str(source))
        assert loaded.step == 10
        assert loaded.config["scale"] == 2
        jax.tree.map(np.testing.assert_array_equal, loaded.variables, best)


def test_load_model_upscales_alike_from_run_and_export(origin):
    run, _, out = origin
    lr = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    first, second = (btsrn_jax.load_model(str(source)) for source in (run, out))
    assert first.scale == second.scale == 2
    sr = first(lr)
    assert sr.shape == (10, 14, 3)
    np.testing.assert_array_equal(sr, second(lr))


def test_the_file_is_float32_by_the_networks_names(origin):
    arrays = load_file(origin[2] / "model.safetensors")
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
    assert arrays["params/low0/conv/kernel"].shape == (3, 3, 4, 6)
    assert arrays["params/up0/kernel"].shape == (2, 2, 6, 6)
    assert arrays["params/out/bias"].shape == (3,)


def test_a_flipped_bit_is_found_by_the_hash(copy):
    file = copy / "model.safetensors"
    data = bytearray(file.read_bytes())
    expected = hashlib.sha256(data).hexdigest()
    data[-1] ^= 1
    file.write_bytes(data)
    text = message(copy)
    assert str(file) in text
    assert expected in text
    assert hashlib.sha256(data).hexdigest() in text


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (
            lambda a: a.update({"params/in/bias": np.zeros(7, np.float32)}),
            ["params/in/bias", "(7,)", "(6,) was expected"],
        ),
        (lambda a: a.pop("params/out/kernel"), ["params/out/kernel is not in"]),
        (
            lambda a: a.update({"params/low9/x": np.zeros(1, np.float32)}),
            ["params/low9/x is not in the model"],
        ),
        (
            lambda a: a.update({"params/in/bias": np.zeros(6, np.float16)}),
            ["params/in/bias is float16, float32 was expected"],
        ),
        (
            lambda a: a.update({"params/in/bias/x": np.zeros(1, np.float32)}),
            ["params/in/bias/x lies in bias, which is an array"],
        ),
    ],
)
def test_an_array_that_does_not_fit_is_named(copy, change, parts):
    edit_arrays(copy, change)
    text = message(copy)
    assert str(copy / "model.safetensors") in text
    assert all(part in text for part in parts), text


def test_a_config_of_another_network_is_told_apart(copy):
    config = json.loads((copy / "config.json").read_text())
    edit_config(copy, model=config["model"] | {"features": 8})
    text = message(copy)
    assert "does not fit its config" in text
    assert "8" in text


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "is damaged"),
        ("[]", "it has no scale"),
        ('{"scale": "2", "model": {}}', "it has no scale"),
        ('{"scale": 2}', "it has no model"),
        ('{"scale": 5, "model": {}}', "config.scale is 5"),
        ('{"scale": 2, "model": {"block": "x"}}', "config.model.block is 'x'"),
        ('{"scale": 2, "model": {"width": 3}}', "config.model.width is not a field"),
        ('{"scale": 2, "model": {"features": "6"}}', "int was expected"),
        ('{"scale": 2, "model": {}, "sha256": []}', "sha256 is '[]'"),
        ('{"scale": 2, "model": {}, "step": "6"}', "step is '6'"),
        ('{"scale": 2, "model": {}, "eval": {"tile": "6"}}', "config.eval.tile is '6'"),
        ('{"scale": 2, "model": {}, "figures": [{"set": "a"}]}', "has no model"),
        ("[" * 100_000, "is damaged"),
    ],
)
def test_a_damaged_config_is_named(copy, text, part):
    (copy / "config.json").write_text(text)
    said = message(copy)
    assert str(copy / "config.json") in said
    assert part in said


def test_missing_files_are_named(copy, tmp_path):
    (copy / "config.json").rename(copy / "elsewhere")
    assert f"cannot read {copy / 'config.json'}" in message(copy)
    (copy / "elsewhere").rename(copy / "config.json")
    (copy / "model.safetensors").unlink()
    assert f"{copy / 'model.safetensors'} is missing" in message(copy)
    assert "no model 'nonesuch'" in message("nonesuch")
    (tmp_path / "empty").mkdir()
    assert "no model" in message(tmp_path / "empty")


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_what_cannot_be_read_now_is_neither_damaged_nor_missing(copy, name):
    """A link in a circle, which no one can follow."""
    (copy / name).unlink()
    (copy / name).symlink_to(name)
    with pytest.raises(OSError, match="symbolic links"):
        weights.load_weights(str(copy))


def test_a_pickle_in_place_of_the_weights_is_refused_and_not_run(copy, tmp_path):
    file = copy / "model.safetensors"
    file.write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    edit_config(copy, sha256={})
    assert f"{file} is damaged" in message(copy)
    assert not (tmp_path / "sprung").exists()


def test_a_checkpoint_of_another_network_than_its_config_is_named(tmp_path):
    config, _ = runs.build()
    _, other = runs.build(bottleneck=5)
    checkpoints = checkpoint.Checkpoints(tmp_path / "run")
    checkpoints.save(3, {"params": runs.noise(other)["params"]}, config)
    checkpoints.close()
    text = message(tmp_path / "run")
    assert f"{tmp_path / 'run' / 'checkpoints' / '3'} does not fit its config" in text
    assert "5" in text


def test_every_released_model_loads_and_says_what_it_is():
    for name in weights.released_models():
        loaded = weights.load_weights(name)
        assert f"x{loaded.config['scale']}" in name
        assert loaded.config["name"] == name
        assert loaded.config["figures"], f"{name} has no figures"
        assert loaded.config["data_licence"]


def test_the_folder_of_checkpoints_has_one_name():
    assert weights.CHECKPOINTS == checkpoint.FOLDER
