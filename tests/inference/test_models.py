"""Claims of models.py: models by name, and everything checked before work begins."""

import csv
import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from helpers import runs, tiny
from PIL import Image

import btsrn_jax
from btsrn_jax import metrics, resize
from btsrn_jax.errors import InputError
from btsrn_jax.evaluation import sets
from btsrn_jax.export import write as export
from btsrn_jax.inference import models, tiling, weights
from btsrn_jax.network import btsrn as network


def noise(h, w, channels=3, seed=0):
    shape = (h, w, channels) if channels else (h, w)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of 4 steps, x2; the same exported; a set of photographs."""
    root = tmp_path_factory.mktemp("models")
    tiny.write_photos(root / "photos")
    runs.make(root / "run", steps=[(4, 30.0)])
    export.export_model(str(root / "run"), root / "exported", ["safetensors"])
    return root


@pytest.fixture(scope="module")
def photos(folder):
    return str(folder / "photos")


def evaluate(*args, **kwargs):
    protocols = kwargs.pop("protocols", ["ntire", "modern"])
    return sets.run_evaluation(*args, protocols, **kwargs)


def message(function, *args, **kwargs):
    with pytest.raises(InputError) as error:
        function(*args, **kwargs)
    return str(error.value)


def test_a_run_and_its_export_are_the_same_function_of_numpy_images(folder):
    lr = noise(21, 17)
    trained = btsrn_jax.load_model(str(folder / "run"))
    exported = btsrn_jax.load_model(str(folder / "exported"))
    sr = trained(lr)
    assert (sr.dtype, sr.shape, trained.scale) == (np.uint8, (42, 34, 3), 2)
    np.testing.assert_array_equal(exported(lr), sr)
    deep = trained(lr.astype(np.uint16) * 257)
    assert deep.dtype == np.uint16
    assert np.abs(deep / 257 - sr).max() <= 0.51


def test_the_ensemble_is_symmetric_and_a_single_pass_is_not(folder):
    lr = noise(12, 9)
    for ensemble in (True, False):
        model = btsrn_jax.load_model(str(folder / "run"), ensemble=ensemble)
        turned = np.rot90(model(np.rot90(lr).copy()), -1).astype(int)
        # Averaged in another order, sums may fall on the other side of a half.
        assert (np.abs(turned - model(lr)).mean() < 1e-3) == ensemble


def test_a_model_says_what_it_is(folder):
    model = btsrn_jax.load_model(str(folder / "exported"))
    assert isinstance(model, btsrn_jax.Model)
    assert (model.name, model.scale) == (str(folder / "exported"), 2)
    assert model.halo == network.build(model.config["model"], 2).halo
    assert model.figures == model.config["figures"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.scale = 3


def test_the_halo_is_how_far_a_pixel_reaches(folder):
    """A changed pixel changes outputs as far away as `halo`, and no farther."""
    for source in (str(folder / "run"), "bicubic"):
        model = btsrn_jax.load_model(source)
        lr = noise(25, 25)
        other = lr.copy()
        other[12, 12] = 255 - other[12, 12]
        rows, columns = np.nonzero((model(lr) != model(other)).any(axis=2))
        reach = model.scale * model.halo
        for changed in (rows, columns):
            assert changed.min() >= 24 - reach
            assert changed.max() <= 25 + reach


def test_bicubic_is_a_model_too():
    model = btsrn_jax.load_model("bicubic")
    assert (model.name, model.scale, model.figures) == ("bicubic", 2, [])
    lr = noise(7, 5)
    np.testing.assert_array_equal(model(lr), resize.imresize(lr, 2))
    assert model(lr.astype(np.uint16) * 257).dtype == np.uint16


@pytest.mark.parametrize(
    "image",
    [noise(8, 8, 0), noise(8, 8, 4), noise(8, 8) / 255, noise(0, 8), "photo.png"],
    ids=["grey", "alpha", "float", "empty", "a name"],
)
def test_other_arrays_are_refused_in_one_line(image):
    text = message(btsrn_jax.load_model("bicubic"), image)
    assert "(h, w, 3) uint8" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("source", "scale", "part"),
    [
        ("nowhere", None, "no model 'nowhere'"),
        ("", None, "no model"),
        ("run", 4, "upscales by 2, not by 4"),
        ("bicubic", 5, "one of 2, 3, 4"),
    ],
)
def test_a_model_that_is_not_there_is_named(folder, monkeypatch, source, scale, part):
    monkeypatch.chdir(folder)
    if source == "":
        assert part in message(sets.run_evaluation, "", ["photos"], [], ["ntire"])
    else:
        assert part in message(models.open_model, source, scale, False)


def test_a_run_beside_bicubic_gives_a_table_a_csv_and_images(
    folder, photos, capsys, caplog
):
    out = folder / "figures"
    rows = evaluate(
        f"bicubic,{folder / 'run'}",
        [photos],
        [],
        csv=out / "figures.csv",
        save_images=out / "images",
    )
    # Three images and a mean, two protocols, two models.
    assert len(rows) == 4 * 2 * 2
    with (out / "figures.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(rows)
    assert {(r["model"], r["ensemble"]) for r in lines} == {
        ("bicubic", "0"),
        ("run", "1"),
    }
    printed = capsys.readouterr().out
    assert len(re.findall(r"photos +\| x2 +\| (?:ntire|modern)", printed)) == 4
    assert "LR made by imresize" in caplog.text
    assert "3 images" in caplog.text
    told = r"run, step 4: enlarging by 2 on the CPU by JAX [\d.]+"
    told += ", each tile in eight views, averaged"
    assert re.search(told, caplog.text)

    # A saved image is what was measured.
    model = models.open_model(str(folder / "run"), 2, ensemble=True)
    hr = np.asarray(Image.open(f"{photos}/photo0.png"))
    sr = np.asarray(Image.open(out / "images/photos/x2/run/photo0.png"))
    np.testing.assert_array_equal(sr, model(resize.imresize(hr, 1 / 2)))
    (found,) = [
        r for r in rows if (r.image, r.model, r.protocol) == ("photo0", "run", "modern")
    ]
    assert found.psnr == metrics.psnr(sr, hr, "modern", 2)


def test_several_scales_take_the_model_of_each(folder, photos, monkeypatch):
    """Released names: `btsrn` is btsrn-x2, btsrn-x3 and btsrn-x4."""
    for scale in (2, 4):
        config = tiny.config()
        config.scale = scale
        variables = runs.noise(network.build(config.model, scale))
        path = folder / "released" / f"btsrn-x{scale}"
        path.mkdir(parents=True)
        (path / weights.WEIGHTS).write_bytes(weights.weights_to_bytes(variables))
        about = {"scale": scale, "model": config.model.to_dict(), "eval": {"tile": 16}}
        (path / weights.CONFIG).write_text(json.dumps(about))
    monkeypatch.setattr(weights, "RELEASED", folder / "released")
    rows = evaluate("btsrn", [photos], [4, 2], ensemble=False)
    means = [(r.scale, r.model) for r in rows if r.image == "mean"]
    assert means == [(4, "btsrn-x4")] * 2 + [(2, "btsrn-x2")] * 2
    assert {r.scale for r in evaluate("btsrn", [photos], [])} == {2, 4}
    assert "btsrn-x3" in message(evaluate, "btsrn", [photos], [2, 3])
    assert models.open_model(None, 4, False).scale == 4


def test_every_fault_of_every_set_is_named_before_anything_is_computed(
    folder, tmp_path, monkeypatch
):
    for name in ("good", "bad", "worse", "pairs/HR"):
        tiny.write_photos(tmp_path / name)
    tiny.write_photos(tmp_path / "pairs/X2", ((20, 30), (18, 21)))
    (tmp_path / "bad/photo1.png").write_bytes(b"no image")
    cut = tmp_path / "worse/photo0.png"
    cut.write_bytes(cut.read_bytes()[:-600])
    Image.fromarray(noise(14, 60)).save(tmp_path / "worse/small.png")
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(tiling.TiledUpscaler, "__call__", None)  # would raise
    names = ("good", "bad", "worse", "pairs", "empty")
    sets = [str(tmp_path / name) for name in names]
    text = message(evaluate, str(folder / "run"), sets, [2])
    lines = text.splitlines()
    assert len(lines) == 6
    for part in ("photo1.png", "photo0.png", "small.png: 60x14", "no images in"):
        assert part in text
    assert "photo2.png: no LR image photo2" in text
    assert "photo1.png: LR of 21x18 and HR of 44x36 do not fit at x2" in text


def test_models_of_one_name_are_told_apart_within_the_folder_for_images(
    folder, photos, tmp_path
):
    for name in ("a", "b"):
        shutil.copytree(folder / "exported", tmp_path / name / "exported")
    sources = [str(tmp_path / name / "exported") for name in "abb"]
    sources[2] = f"{tmp_path}/a/../b/exported"  # the second once more
    rows = evaluate(
        ",".join(sources), [photos], [], ensemble=False, save_images=tmp_path / "out"
    )
    assert {row.model for row in rows} == {"a/exported", "b/exported"}
    assert len(rows) == 2 * 4 * 2
    for name in ("a", "b"):
        saved = sorted((tmp_path / "out/photos/x2" / name / "exported").iterdir())
        assert [path.name for path in saved] == [f"photo{i}.png" for i in range(3)]
        assert not list((tmp_path / name).rglob("*.png"))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"protocols": ["psnr"]}, "ntire, benchmark, modern, rgb"),
        ({"sets": ["nowhere"]}, "no such file or folder: nowhere"),
        ({"sets": [""]}, "empty name"),
        ({"sets": ["photos", "./photos"]}, "two sets are called photos"),
        ({"sets": ["div2k/bicubic_x4"]}, "not of scale 2"),
        ({"sets": ["div2k/bicubic_x2"]}, "btsrn prepare div2k/bicubic_x2"),
        ({"scales": [3]}, "no model for x3: there is run x2"),
        ({"csv": "photos/photo0.png/x.csv"}, "cannot write"),
        ({"csv": "photos"}, "it is a folder"),
        ({"save_images": "photos/photo0.png/x"}, "cannot write"),
        ({"save_images": "photos/photo0.png"}, "no folder to write in"),
        ({"memory_gb": -1.0}, "memory-gb"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line(folder, monkeypatch, change, part):
    monkeypatch.chdir(folder)
    args = {"sets": ["photos"], "scales": [], "protocols": ["ntire"]} | change
    text = message(sets.run_evaluation, "run", **args)
    assert part in text
    assert "\n" not in text
