"""Claims about validation: which step of a run is the best, and what is said of it."""

import dataclasses
import json
import shutil
import threading

import jax
import numpy as np
import pytest
from helpers import tiny
from PIL import Image

from btsrn_jax import checkpoint, evaluation, export, inference, mesh, metrics, training
from btsrn_jax import config as schema
from btsrn_jax.data import datasets
from btsrn_jax.errors import InputError
from btsrn_jax.evaluation import degrading
from btsrn_jax.training import step as stepping


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


@pytest.fixture
def sets(tmp_path):
    """Two sets, of odd sizes; the second one has a black image, too."""
    first = tiny.write_photos(tmp_path / "Set5", [(41, 47), (52, 40)], seed=3)
    second = write_black(tiny.write_photos(tmp_path / "Set14", [(33, 60)], seed=4))
    return str(first), str(second)


def start(config):
    """(validation, variables of a new network)."""
    on = mesh.make_mesh(jax.devices()[:1])
    state = stepping.create_state(stepping.make_recipe(config, on), on)
    validation = training.prepare_validation(config, on)
    return validation, stepping.inference_variables(state)


def test_one_pass_has_the_figures_of_all_sets_and_protocols(photos, sets, tmp_path):
    """As `btsrn evaluate` measures them; each by the name of its set."""
    config = settings(photos, photos, steps=2, log_every=1, eval_every=2)
    config.eval.sets = sets
    *_, line = run(config, tmp_path / "run")
    validation, _ = start(config)
    on = mesh.make_mesh(jax.devices()[:1])
    _, arrays = checkpoint.restore_latest(checkpoint.folder_of(tmp_path / "run"))
    restored = stepping.create_state(stepping.make_recipe(config, on), on)
    restored = training.loop.trees.fill(restored, arrays)
    upscaler = validation.upscaler(stepping.inference_variables(restored))
    every = []
    for name, pairs in validation.sets.items():
        rows = evaluation.evaluate_set(name, pairs, upscaler, metrics.PROTOCOLS)
        for row in rows:
            if row.image == "mean":
                assert line[f"psnr_{row.protocol}/{name}"] == pytest.approx(row.psnr)
                assert line[f"ssim_{row.protocol}/{name}"] == pytest.approx(row.ssim)
            elif row.protocol == "ntire":
                every.append(row.psnr)
    assert len([name for name in line if "/" in name]) == 2 * 2 * len(metrics.PROTOCOLS)
    assert line["psnr_ntire"] == pytest.approx(metrics.mean_psnr(every))
    assert "psnr_modern" not in line  # as older readers know it
    assert {p.name for p in (tmp_path / "run" / "pictures").iterdir()} == {
        f"{name}-2.png" for name in ("Set5_photo0", "Set5_photo1", "Set14_black0")
    }


def test_each_image_is_upscaled_once_and_the_host_measures_afterwards(
    photos, tmp_path, monkeypatch
):
    """The call returns after the forward passes, though no figure is taken yet."""
    config = settings(photos, tiny.write_photos(tmp_path / "val"), steps=2)
    validation, variables = start(config)
    count = len(validation.items)
    calls, free = [], threading.Event()

    def upscale(variables, lr):
        calls.append(lr.shape)
        return validation.upscale(variables, lr)

    def ssim(*args):
        assert free.wait(60)
        return exact(*args)

    exact = metrics.ssim
    monkeypatch.setattr(metrics, "ssim", ssim)
    validating = dataclasses.replace(validation, upscale=upscale)
    measuring = validating(variables)
    assert len(calls) == count  # for all protocols: HR sizes are even here
    assert not measuring.done()
    free.set()
    first = measuring.figures()
    assert measuring.done()
    again = validating(variables).figures()
    assert np.array_equal(again.values, first.values)
    assert np.isfinite(first.values).all()


def test_an_image_too_small_for_another_protocol_has_no_figures_of_it(photos, tmp_path):
    small = tiny.write_photos(tmp_path / "small", [(16, 16), (40, 40)])
    config = settings(photos, small, steps=1)
    with pytest.raises(InputError, match="photo0"):  # ntire ignores 8 on each side
        start(config)
    config.eval.protocol = "modern"
    validation, variables = start(config)
    figures = validation(variables).figures()
    assert set(figures.psnr("modern")) == {"small/photo0", "small/photo1"}
    assert set(figures.psnr("ntire")) == {"small/photo1"}


@pytest.mark.parametrize("best", ["", "Set5", "Set14"])
def test_the_set_that_decides_is_a_field(photos, sets, tmp_path, best, caplog):
    """Its images' score is the checkpoint's; the black image counts in that alone."""
    config = settings(photos, photos, steps=4, eval_every=4, learning_rate=1e-12)
    config.eval.sets, config.eval.best_set = sets, best
    *_, line = run(config, tmp_path / "run")
    if best:
        assert f"the best checkpoint is that of {best}\n" in caplog.text
    validation, variables = start(config)
    figures = validation(variables).figures()
    named = figures.psnr("ntire")
    wanted = [x for k, x in named.items() if k.startswith(f"{best}/" if best else "")]
    score = checkpoint.score_of(checkpoint.folder_of(tmp_path / "run"), 4)
    assert score == pytest.approx(np.mean(wanted), abs=1e-3)
    assert line["score"] == score
    assert line["psnr_ntire"] == pytest.approx(
        metrics.mean_psnr(named.values()), abs=1e-3
    )


def test_another_deciding_set_is_warned_of_and_an_unknown_one_refused(
    photos, sets, tmp_path, caplog
):
    config = settings(photos, photos, steps=2, eval_every=2)
    config.eval.sets = sets
    saved = config.to_dict()
    del saved["eval"]["best_set"], saved["train"]["tracker"]  # of an older run
    assert schema.contradictions(saved, config) == []
    assert schema.rescored(saved, config) == []
    config.eval.best_set = "Set5"
    assert schema.contradictions(saved, config) == []
    assert schema.rescored(saved, config) == ["config.eval.best_set was '', now 'Set5'"]
    config.eval.best_set = "Set6"
    with pytest.raises(InputError) as caught:
        run(config, tmp_path / "run")
    assert str(caught.value) == (
        "config.eval.best_set is 'Set6': one of Set5, Set14, or leave it empty for all"
    )
    assert not (tmp_path / "run").exists()
    config.eval.sets = ()
    with pytest.raises(InputError, match="there are no sets"):
        datasets.check_names(config)


def test_validation_on_degraded_images_as_evaluate_measures_them(
    photos, sets, tmp_path, caplog
):
    """Each set once clean and once as a JPEG; a score is the mean over all of them."""
    config = settings(photos, photos, steps=2, log_every=1, eval_every=2)
    config.eval.sets, config.eval.degrade = sets, "clean, noise:5+jpeg:40"
    *_, line = run(config, tmp_path / "run")
    assert "Set5 (2), Set14 (2), LR clean, noise:5+jpeg:40" in caplog.text
    validation, _ = start(config)
    found = inference.load_weights(str(tmp_path / "run"))
    upscaler = validation.upscaler(found.variables)
    every = []
    for name, pairs in validation.sets.items():
        for how in ("", "noise:5+jpeg:40"):
            degradations = degrading.parse_degradations([how]) if how else [()]
            rows = evaluation.evaluate_set(
                name, pairs, upscaler, ["ntire"], degradation=degradations[0]
            )
            *images, mean = rows
            label = f"psnr_ntire/{name}" + f"+{how}" * bool(how)
            assert line[label] == pytest.approx(mean.psnr, rel=1e-6)
            every += [row.psnr for row in images]
    assert line["score"] == pytest.approx(np.mean(every), rel=1e-6)
    assert line["psnr_ntire/Set14"] > line["psnr_ntire/Set14+noise:5+jpeg:40"] + 1
    assert "Set14+noise:5+jpeg:40 " in caplog.text
    config.eval.best_set = "Set14"
    validation, _ = start(config)
    figures = validation(found.variables).figures()
    assert {name.partition("/")[0] for name in figures.psnr("ntire", "Set14")} == {
        "Set14",
        "Set14+noise:5+jpeg:40",
    }
    export.export_model(str(tmp_path / "run"), tmp_path / "out", ["safetensors"])
    card = (tmp_path / "out" / "README.md").read_text()
    assert " dB (ntire, LR clean, noise:5+jpeg:40)" in card
    saved = config.to_dict()
    config.eval.degrade = ""
    assert schema.contradictions(saved, config) == []
    (changed,) = schema.rescored(saved, config)
    assert changed.startswith("config.eval.degrade was 'clean, noise:5+jpeg:40'")
