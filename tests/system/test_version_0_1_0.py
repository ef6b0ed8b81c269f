"""What version 0.1.0 left behind: its run directories and exports are still of use."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from helpers import processes, tiny

from btsrn_jax import cli, inference, main, mesh, training

LEFT = pathlib.Path(__file__).parents[1] / "fixtures" / "v0.1.0"
MODEL = {"features": 8, "bottleneck": 4, "low_blocks": 2, "high_blocks": 1}
TRAIN = {
    "decay_steps": 6,
    "schedule": "exponential",
    "warmup_steps": 0,
    "batch_size": 8,
    "patch": 32,
    "ema": 0.9,
    "eval_every": 6,
    "checkpoint_every": 6,
    "log_every": 3,
    "learning_rate": 0.003,
    "steps": 15,  # it was 12
}
COMMAND = ["main.py", "--config", "configs/quickstart.py"]
COMMAND += [f"--config.model.{name}={value}" for name, value in MODEL.items()]
COMMAND += [f"--config.train.{name}={value}" for name, value in TRAIN.items()]


@pytest.fixture
def run(tmp_path):
    """A copy of the run directory: step 12 of 12."""
    return shutil.copytree(LEFT / "run", tmp_path / "run")


@pytest.mark.parametrize("kind", ["run", "export"])
def test_its_models_give_the_same_pixels(kind):
    """`sr.npy` is what version 0.1.0 gave, for both."""
    lr = np.random.default_rng(0).integers(0, 256, (21, 27, 3), np.uint8)
    found = inference.load_model(str(LEFT / kind))(lr).astype(int)
    expected = np.load(LEFT / "sr.npy")
    assert np.abs(found - expected).max() <= 1
    assert np.mean(found == expected) > 0.999


def test_its_run_continues_as_it_did_there(run, monkeypatch, tmp_path):
    """From step 12 to 15. Version 0.1.0 itself ended there at these figures."""
    monkeypatch.chdir(tiny.ROOT)
    monkeypatch.setenv("BTSRN_CACHE", str(tmp_path / "cache"))
    options = main.parse(COMMAND)
    on = mesh.make_mesh(jax.devices()[:1])
    validation = training.prepare_validation(options.config, on)
    origin = options.config_file, options.config_argument
    assert training.run(options.config, run, on, validation, None, *origin) == 0
    assert [line["step"] for line in processes.lines(run)] == [3, 6, 9, 12, 15]
    last = processes.lines(run)[-1]
    assert last["loss"] == pytest.approx(0.01849442534148693, rel=1e-3)
    assert last["psnr_ntire"] == pytest.approx(31.36639577636213, rel=1e-3)
    about = json.loads((run / "config.json").read_text())
    assert about["config_file"] == "configs/quickstart.py"


@pytest.mark.parametrize("kind", ["run", "export"])
def test_report_and_export_take_what_it_left(kind, tmp_path):
    for args in (
        ["report", LEFT / kind, "--out", tmp_path / "report"],
        ["export", LEFT / kind, tmp_path / "out", "--formats", "safetensors"],
    ):
        with pytest.raises(SystemExit) as end:
            cli.main([str(arg) for arg in args])
        assert end.value.code == 0
    assert (tmp_path / "report" / "index.html").exists()
    assert (tmp_path / "out" / "model.safetensors").exists()
