"""Claims of photo models: found by name or `auto` only, chosen by a JPEG's quality."""

import json
import shutil

import numpy as np
import pytest
from helpers import runs
from PIL import Image

import btsrn_jax
from btsrn_jax import cli, images
from btsrn_jax.errors import InputError
from btsrn_jax.evaluation import run_evaluation
from btsrn_jax.export import write as export
from btsrn_jax.inference import models, weights

BELOW = models.PHOTO_BELOW


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A folder of released models: one of x2, and a photo model of x2; another network
    of x3."""
    folder = tmp_path_factory.mktemp("released")
    for name, scale, step in (("x2", 2, 10), ("x2-photo", 2, 20), ("x3", 3, 10)):
        runs.make(folder / "run" / name, steps=[(step, 30.0)], scale=scale)
        out = folder / "models" / f"btsrn-{name}"
        export.export_model(str(folder / "run" / name), out, ["safetensors"], log=str)
    return folder / "models"


@pytest.fixture
def photos(tmp_path, monkeypatch, released):
    """Pictures of several qualities in the working folder `in`."""
    monkeypatch.setattr(weights, "RELEASED", released)
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    (tmp_path / "in").mkdir()
    for quality in (30, BELOW - 1, BELOW, 98):
        Image.fromarray(pixels).save(tmp_path / f"in/q{quality}.jpg", quality=quality)
    Image.fromarray(pixels).save(tmp_path / "in/own.jpg", qtables="web_low")
    Image.fromarray(pixels).save(tmp_path / "in/p.png")
    return tmp_path / "in"


def upscale(capsys, out, *args):
    """({name of a file: its line}, standard error) of `btsrn upscale`."""
    command = ["upscale", "in", out, "--format=png", "--runtime=jax", *args]
    with pytest.raises(SystemExit) as end:
        cli.main(command)
    printed = capsys.readouterr()
    assert end.value.code == 0, printed.err
    lines = [line for line in printed.out.splitlines() if " -> " in line]
    names = [line.partition(" -> ")[0].removeprefix("in/") for line in lines]
    return dict(zip(names, lines, strict=True)), printed.err


def pixels(path):
    return np.asarray(Image.open(path))


LOW = {"q30.jpg", f"q{BELOW - 1}.jpg", "own.jpg"}


def test_auto_takes_the_photo_model_for_jpegs_below_a_quality(photos, capsys):
    said, err = upscale(capsys, "out", "--model=auto")
    by_photo = {name for name, line in said.items() if ", by btsrn-x2-photo, " in line}
    by_clean = {name for name, line in said.items() if ", by btsrn-x2, " in line}
    assert by_photo == LOW
    assert by_clean == {f"q{BELOW}.jpg", "q98.jpg", "p.png"}
    assert f"24 x 18, JPEG of quality {BELOW}, by btsrn-x2" in said[f"q{BELOW}.jpg"]
    assert "(tables of its own: the nearest), by btsrn-x2-photo" in said["own.jpg"]
    assert "JPEG" not in said["p.png"]
    for name in ("btsrn-x2: enlarging by 2", "btsrn-x2-photo: enlarging by 2"):
        assert err.count(name) == 1
    for name in said:
        model = "btsrn-x2-photo" if name in by_photo else "btsrn-x2"
        lr = images.read_image(photos / name)
        want = btsrn_jax.load_model(model, runtime="jax")(lr)
        np.testing.assert_array_equal(pixels(f"out/{name[:-4]}.png"), want)


def test_by_default_the_clean_model_is_taken_and_the_better_one_named(photos, capsys):
    for n, args in enumerate(
        ([], ["--scale=2"], ["--model=btsrn"], ["--model=btsrn-x2"])
    ):
        said, err = upscale(capsys, f"out{n}", *args)
        assert "photo" not in err
        hint = "btsrn-x2-photo would suit it"
        assert {name for name, line in said.items() if hint in line} == LOW
        assert f"24 x 18, JPEG of quality 30: {hint}, " in said["q30.jpg"]
    shutil.copytree(weights.RELEASED / "btsrn-x2", "mine")
    for name in ("btsrn-x2-photo", "bicubic", "mine"):
        said, _ = upscale(capsys, f"by {name}", f"--model={name}")
        assert not any("JPEG of" in line for line in said.values())


def test_auto_without_a_photo_model_takes_the_clean_one_and_says_so(photos, capsys):
    said, err = upscale(capsys, "out", "--model=auto", "--scale=3")
    assert err.count("auto: no photo model of x3 comes with this package") == 1
    assert all(", by btsrn-x3, " in line for line in said.values())
    said, _ = upscale(capsys, "clean", "--scale=3")
    assert not any("would suit" in line for line in said.values())


def test_the_size_that_is_wanted_decides_the_scale_of_both(photos, capsys):
    _, err = upscale(capsys, "out", "--model=auto", "--factor=2.5")
    assert "btsrn-x3: enlarging by 3" in err
    assert "btsrn-x2" not in err


def test_a_photo_model_is_found_by_name_only(photos, capsys):
    assert models.find_model(None, None) == "btsrn-x2"
    assert models.find_model(models.FAMILY, 2) == "btsrn-x2"
    assert btsrn_jax.load_model("btsrn-x2-photo").scale == 2
    (photos.parent / "set").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save("set/a.png")
    rows = run_evaluation("btsrn", ["set"], [], ["modern"], ensemble=False)
    assert {row.model for row in rows} == {"btsrn-x2", "btsrn-x3"}
    with pytest.raises(InputError, match="auto chooses by the files"):
        btsrn_jax.load_model("auto")
    with pytest.raises(InputError, match="auto is no model"):
        run_evaluation("auto", ["set"], [], ["modern"])
    with pytest.raises(InputError, match="scale 5"):
        models.find_model("auto", 5)


def test_the_page_of_all_released_models_has_the_clean_one_of_each_scale(
    photos, capsys
):
    pytest.importorskip("onnx")
    with pytest.raises(SystemExit):  # for its port, once models were found to be fine
        cli.main(["demo", "--port=70000"])
    assert "--port 70000" in capsys.readouterr().err


def test_models_are_listed_with_what_they_are_for(photos, capsys):
    with pytest.raises(SystemExit):
        cli.main(["models"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[::2]] == weights.released_models()
    assert lines[1].startswith("    for clean pictures; 10 steps")
    assert lines[3].startswith("    for photographs with JPEG blocks, noise")


def test_the_card_of_a_photo_model_says_what_it_is_for(released):
    for name in ("btsrn-x2", "btsrn-x2-photo"):
        card = (released / name / "README.md").read_text()
        photo = name.endswith("-photo")
        assert ("This model is for photographs with JPEG" in card) == photo
        assert ("it is below `btsrn-x2`." in card) == photo
        assert ('"jpeg-artifacts"' in card) == photo
        fields = json.loads(card.partition("```json\n")[2].partition("```")[0])
        assert ({"jpeg", "denoise"} <= set(fields["tags"])) == photo
        assert fields["trainingOTF"] == photo
