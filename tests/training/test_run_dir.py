"""Claims of the run directory: whose run it holds."""

import json
import logging

import jax
import pytest
from helpers import tiny

from btsrn_jax import mesh
from btsrn_jax.data import Pair
from btsrn_jax.errors import InputError
from btsrn_jax.training import run_dir

PAIRS, SIZES = [Pair("a", None), Pair("b", None)], [(40, 60), (24, 18)]


def open_run(folder, config=None, sizes=SIZES):
    on = mesh.make_mesh(jax.devices()[:1])
    return run_dir.open_run(folder, config or tiny.config(), PAIRS, sizes, on)


@pytest.fixture
def trained(tmp_path):
    """A run of 8 steps, as far as its folder tells."""
    config = tiny.config(steps=8)
    open_run(tmp_path, config)
    (tmp_path / "checkpoints" / "8").mkdir(parents=True)
    return tmp_path, config


def test_a_run_that_does_not_say_its_images_or_names_others_is_refused(trained):
    folder, config = trained
    saved = open_run(folder, config)
    assert open_run(folder, config) == saved
    with pytest.raises(InputError, match="other training images"):
        open_run(folder, config, SIZES[::-1])
    del saved["data_sha256"]
    (folder / "config.json").write_text(json.dumps(saved))
    with pytest.raises(InputError, match="other training images"):
        open_run(folder, config)


def test_a_start_without_any_checkpoint_claims_nothing(tmp_path, caplog):
    """Neither its settings nor its images; a save that was broken off is none."""
    caplog.set_level(logging.INFO, "btsrn")
    open_run(tmp_path, tiny.config(learning_rate=0.5))
    (tmp_path / "checkpoints" / "8.orbax-checkpoint-tmp").mkdir(parents=True)
    (tmp_path / "damaged").mkdir()
    saved = open_run(tmp_path, tiny.config(learning_rate=0.25), SIZES[::-1])
    assert "a start without any checkpoint: it is replaced" in caplog.text
    assert saved["train"]["learning_rate"] == 0.25
    assert json.loads((tmp_path / "config.json").read_text()) == saved


@pytest.mark.parametrize(
    "rest", ["checkpoints/8", "damaged/8", "validation.csv", "evaluation.csv"]
)
def test_what_is_left_of_a_run_that_was_trained_keeps_its_config(tmp_path, rest):
    """A checkpoint that cannot be read, one that was set aside, its figures."""
    open_run(tmp_path)
    (tmp_path / rest).mkdir(parents=True)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(InputError, match="seed was 0, now 1"):
        open_run(tmp_path, tiny.config(seed=1))
    assert (tmp_path / "config.json").read_bytes() == before


def test_the_config_of_an_exported_model_is_never_replaced(tmp_path):
    text = json.dumps({"scale": 2, "model": {}})
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match="other training images"):
        open_run(tmp_path)
    assert (tmp_path / "config.json").read_text() == text


def test_fewer_steps_than_were_made_are_refused(trained):
    """Equal is complete; more continues."""
    folder, _ = trained
    before = (folder / "config.json").read_bytes()
    with pytest.raises(InputError, match=r"steps is 7, but .* of 8 steps already"):
        open_run(folder, tiny.config(steps=7))
    assert (folder / "config.json").read_bytes() == before
    for steps in (8, 9):
        assert open_run(folder, tiny.config(steps=steps))["train"]["steps"] == steps


@pytest.mark.parametrize(
    ("field", "value"),
    [("sets", ("elsewhere",)), ("protocol", "rgb"), ("max_images", 3)],
)
def test_validation_that_is_measured_otherwise_is_said(trained, caplog, field, value):
    folder, config = trained
    config.eval[field] = value
    open_run(folder, config)
    (line,) = caplog.messages
    assert line.startswith(f"config.eval.{field} was ")
    assert "the best checkpoint is chosen among both" in line
