"""Claims of models in the Hugging Face hub, asked for on this machine."""

import hashlib
import shutil
import sys

import numpy as np
import pytest
from helpers import hub, runs
from PIL import Image

import btsrn_jax
from btsrn_jax import cli
from btsrn_jax.errors import InputError
from btsrn_jax.evaluation import sets
from btsrn_jax.export import write as export
from btsrn_jax.inference import weights
from btsrn_jax.report import write as report

constants = pytest.importorskip(
    "huggingface_hub.constants", reason="the extra [hub] is not installed"
)
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Two exported models of one network, of different steps."""
    folder = tmp_path_factory.mktemp("hub")
    for name, step in (("old", 5), ("new", 10)):
        runs.make(folder / f"run-{name}", steps=[(step, 30.0)])
        source = str(folder / f"run-{name}")
        export.export_model(source, folder / name, ["safetensors"], log=str)
    return folder


@pytest.fixture
def served(exported, tmp_path, monkeypatch):
    """The hub, with the newer one as me/tiny and the older one as its revision v1."""
    new, old = (
        {p.name: p.read_bytes() for p in (exported / name).iterdir()}
        for name in ("new", "old")
    )
    models = {"me/tiny": {"main": new, "v1": old}}
    with hub.serving(models) as (server, address):
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield server


def message(source):
    with pytest.raises(InputError) as error:
        weights.load_weights(source)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_model_is_loaded_by_its_address_and_revision(served, exported):
    for address, folder in (("hf://me/tiny", "new"), ("hf://me/tiny@v1", "old")):
        here = weights.load_weights(str(exported / folder))
        found = weights.load_weights(address)
        assert (found.name, found.step) == (address, here.step)
        np.testing.assert_equal(found.variables, here.variables)
    assert not [path for path in served.requests if "README" in path]
    lr = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    model = btsrn_jax.load_model("hf://me/tiny")
    assert (model.name, model.scale) == ("hf://me/tiny", 2)
    np.testing.assert_array_equal(
        model(lr), btsrn_jax.load_model(str(exported / "new"))(lr)
    )


def test_weights_without_a_config_say_themselves_what_they_are(served):
    files = served.models["me/tiny"]["main"]
    del files["config.json"]
    assert weights.load_weights("hf://me/tiny").config["scale"] == 2
    del files["model.safetensors"]
    served.models["me/bare"] = {"main": files}
    assert message("hf://me/bare") == (
        "hf://me/bare has no model.safetensors: an exported model was expected"
    )


def test_what_was_changed_in_the_hub_is_found_by_its_hash(served):
    data = bytearray(served.models["me/tiny"]["main"]["model.safetensors"])
    data[-1] ^= 1
    served.models["me/tiny"]["main"]["model.safetensors"] = bytes(data)
    text = message("hf://me/tiny")
    assert "is damaged or was changed" in text
    assert hashlib.sha256(data).hexdigest() in text


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("hf://tiny", "hf://OWNER/NAME or hf://OWNER/NAME@REVISION was expected"),
        ("hf://me/tiny/model.safetensors", "hf://OWNER/NAME or"),
        ("hf://me/tiny@", "hf://OWNER/NAME or"),
        ("hf://me/ti ny", "hf://OWNER/NAME or"),
        ("hf://me/t..y", "hf://me/t..y: Cannot have"),
        ("hf://me/other", "does not show such a model"),
        ("hf://me/tiny@v2", "hf://me/tiny@v2: there is no revision v2"),
    ],
)
def test_what_is_not_there_is_one_line(served, source, part):
    assert part in message(source)
    formed = "OWNER" not in part
    assert bool([path for path in served.requests if "/me/" in path]) == (
        formed and ".." not in source
    )


@pytest.mark.parametrize("status", [401, 500, None])
def test_a_hub_that_fails_or_is_not_there_is_one_line(
    served, status, monkeypatch, tmp_path, capsys
):
    served.status = status
    if status is None:
        monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    photo = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(photo)
    args = [str(photo), str(tmp_path / "b.png"), "--model", "hf://me/tiny"]
    with pytest.raises(SystemExit) as end:
        cli.main(["upscale", *args])
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("error: hf://me/tiny: cannot download from http://127.0.")
    assert said.count("\n") == 1
    assert not (tmp_path / "b.png").exists()


def test_a_model_in_the_cache_needs_no_network(served, monkeypatch):
    before = weights.load_weights("hf://me/tiny@v1")
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    assert weights.load_weights("hf://me/tiny@v1").folder == before.folder
    with pytest.raises(ConnectionError):
        weights.load_weights("hf://me/tiny")


def test_without_the_package_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    text = message("hf://me/tiny")
    assert text == "hf://me/tiny: the hub needs pip install 'btsrn-jax[hub]'"


def test_a_table_calls_models_by_what_tells_them_apart(exported, tmp_path):
    one, two = tmp_path / "one.safetensors", tmp_path / "m" / "model.safetensors"
    two.parent.mkdir()
    for path in (one, two):
        shutil.copy(exported / "new" / "model.safetensors", path)
    sources = ["hf://me/tiny@v1", "hf://you/tiny", str(one), str(two)]
    labels = [sets._label(name, sources) for name in sources]
    assert labels == ["tiny@v1", "tiny", "one", "m"]


def test_export_and_report_take_a_model_of_the_hub(served, exported, tmp_path):
    plan = export.plan_export("hf://me/tiny", tmp_path / "out", ["safetensors"])
    about = export.export_model("hf://me/tiny", plan.out, plan.formats, log=str)
    assert "btsrn export hf://me/tiny " in about["export_command"]
    here = weights.load_weights(str(exported / "new"))
    written = weights.load_weights(str(tmp_path / "out"))
    assert (written.step, about["training_command"]) == (
        here.step,
        here.config["training_command"],
    )
    np.testing.assert_equal(written.variables, here.variables)
    loaded = report.load("hf://me/tiny")
    assert (loaded.source, loaded.name) == ("hf://me/tiny", "hf://me/tiny")
