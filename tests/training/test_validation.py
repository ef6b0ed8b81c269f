"""Claims about validation: which step of a run is the best, and what is said of it."""

import json
import shutil

import jax
import numpy as np
import pytest
from helpers import tiny
from PIL import Image

from btsrn_jax import checkpoint, export, mesh, training
from btsrn_jax.data import datasets


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.setenv("BTSRN_CACHE", str(tmp_path / "cache"))
    return tiny.write_photos(tmp_path / "photos", tiny.HR_SIZES)


def write_black(folder, count=1):
    folder.mkdir(exist_ok=True)
    for i in range(count):
        Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(folder / f"black{i}.png")
    return folder


def run(config, workdir):
    """Trains; returns the lines of metrics, read as every JSON reader must."""
    on = mesh.make_mesh(jax.devices()[:1])
    validation = training.prepare_validation(config, on)
    assert training.run(config, workdir, on, validation) == 0

    def refuse(name):
        raise AssertionError(f"{name} in metrics.jsonl")

    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def settings(photos, sets, **train):
    config = tiny.config(decay_steps=48, **train)
    config.data.source, config.data.hr_dir = "folder", str(photos)
    config.eval.sets, config.eval.tile = (str(sets),), 16
    return config


def test_a_step_that_restores_a_black_image_ranks_above_one_that_does_not(
    photos, tmp_path, caplog
):
    """Before, its mean was infinite, and Orbax kept and exported the worst step."""
    sets = write_black(tiny.write_photos(tmp_path / "val"))
    config = settings(photos, sets, steps=48, eval_every=8, learning_rate=0.012)
    config.train.checkpoint_every = 8
    found = [x for x in run(config, tmp_path / "run") if "psnr_ntire" in x]
    assert [line["step"] for line in found] == [8, 16, 24, 32, 40, 48]
    perfect = [line for line in found if "score" in line]
    for line in perfect:  # the mean of three photos; the score of four images
        assert line["score"] == pytest.approx((100 + 3 * line["psnr_ntire"]) / 4)
    assert 0 < len(perfect) < len(found)
    assert "without val/black0: no error there" in caplog.text
    highest = max(found, key=lambda line: line["psnr_ntire"])
    assert "score" not in highest  # the black image, nearly black, is in its mean
    folder = checkpoint.folder_of(tmp_path / "run")
    best = max(perfect, key=lambda line: line["score"])
    assert checkpoint.best_first(folder)[0] == best["step"]
    assert checkpoint.score_of(folder, best["step"]) == best["score"]
    # Of a continued run: the last step's score is known from the metrics.
    caplog.clear()
    run(config, tmp_path / "run")
    assert "complete: 48 of 48 steps" in caplog.text
    assert "step 48: validation" not in caplog.text


def test_a_set_of_black_images_alone_has_no_mean_and_ranks_as_100(photos, tmp_path):
    sets = write_black(tmp_path / "val", 2)
    config = settings(photos, sets, steps=2, eval_every=2, learning_rate=1e-12)
    (line,) = [x for x in run(config, tmp_path / "run") if "score" in x]
    assert line["score"] == 100
    assert "psnr_ntire" not in line
    assert checkpoint.score_of(checkpoint.folder_of(tmp_path / "run"), 2) == 100
    export.export_model(str(tmp_path / "run"), tmp_path / "out", ["safetensors"])
    about = json.loads((tmp_path / "out" / "config.json").read_text())
    assert about["validation"] == {"ntire": None}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "the best by validation: no error (ntire)" in card


def test_a_training_folder_with_hr_and_lr_is_no_folder_of_hr_alone(tmp_path, photos):
    """The run's record names both, so that the model card tells whose LR it was."""
    base = tmp_path / "set"
    shutil.copytree(photos, base / "hr")
    (base / "lr").mkdir()
    for path in (base / "hr").iterdir():
        image = Image.open(path)
        image.resize((image.width // 2, image.height // 2)).save(
            base / "lr" / path.name
        )
    config = settings(base, photos, steps=1)
    config.eval.sets = ()
    run(config, tmp_path / "run")
    data = json.loads((tmp_path / "run" / "config.json").read_text())["data"]
    assert data["hr_dir"] == str(base / "hr")
    assert data["lr_dir"] == str(base / "lr")
    assert len(datasets.training_pairs(config)) == 3
