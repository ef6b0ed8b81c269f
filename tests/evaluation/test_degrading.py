"""Claims of `btsrn evaluate --degrade`: what is done to LR, and that figures say so."""

import ast
import csv
import io
import pathlib

import numpy as np
import pytest
from helpers import tiny
from PIL import Image
from scipy import ndimage

from btsrn_jax import cli, metrics
from btsrn_jax.errors import InputError
from btsrn_jax.evaluation import degrading, figure_tables, figures, run_evaluation
from btsrn_jax.export import hub_metadata, provenance
from btsrn_jax.report import (
    experiments,
    paper_tables,
    photographs,
    published,
    tables,
)
from btsrn_jax.resize import imresize

CHAIN = "blur:0.6+noise:5+jpeg:75"


def smooth(h=48, w=40, channels=3):
    rng = np.random.default_rng(0)
    small = rng.integers(60, 190, (h // 4, w // 4, channels), np.uint8)
    return imresize(small, (h, w)).squeeze()


def degrade(lr, text, name="one"):
    (found,) = degrading.parse_degradations([text])
    return degrading.degrade(lr, found, name)


def test_texts_name_degradations_in_order_each_once():
    texts = ["clean, jpeg:75", f"{CHAIN},noise:5.0", "jpeg:075", "noise:.5 noise:5"]
    found = degrading.parse_degradations(texts)
    names = [degrading.degradation_name(degradation) for degradation in found]
    assert names == ["", "jpeg:75", CHAIN, "noise:5", "noise:0.5"]
    assert degrading.parse_degradations([]) == []


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("jpeg:0", "'jpeg:0': a quality of 1 to 100 was expected"),
        ("jpeg:101", "a quality of 1 to 100"),
        ("jpeg:75.5", "a quality of 1 to 100"),
        ("jpeg", "a quality of 1 to 100"),
        ("jpeg:75:2", "a quality of 1 to 100"),
        ("noise:0", "a number above 0 and at most 255 (grey levels)"),
        ("noise:nan", "a number above 0"),
        ("noise:-5", "a number above 0"),
        ("noise:256", "at most 255"),
        ("blur:1e1", "at most 20 (LR pixels)"),
        ("blur:20.5", "at most 20 (LR pixels)"),
        ("jpg:75", "did you mean jpeg?"),
        ("blur:1+nois:5", "'nois:5' is wrong"),
        ("clean+jpeg:75", "clean alone"),
        ("", "blur:WIDTH, noise:SIGMA, jpeg:QUALITY"),
        ("jpeg:75,", "''"),
        ("jpeg:75++noise:5", "'' is wrong"),
    ],
)
def test_a_degradation_that_cannot_be_is_one_line_before_anything_is_read(
    capsys, text, part
):
    command = ["evaluate", "--model=nothing", "--sets=nowhere", f"--degrade={text}"]
    with pytest.raises(SystemExit) as end:
        cli.main(command)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --degrade ")
    assert part in line


@pytest.mark.parametrize("channels", [3, 1])
def test_a_jpeg_is_the_file_that_pillow_writes(channels):
    lr, file = smooth(channels=channels), io.BytesIO()
    Image.fromarray(lr).save(file, "JPEG", quality=50)
    np.testing.assert_array_equal(degrade(lr, "jpeg:50"), np.asarray(Image.open(file)))


@pytest.mark.parametrize(("channels", "width"), [(3, 0.6), (1, 2.5), (3, 20)])
def test_a_blur_is_scipys_gaussian(channels, width):
    lr = smooth(channels=channels)
    sigma = (width, width) if lr.ndim == 2 else (width, width, 0)
    want = ndimage.gaussian_filter(lr.astype(float), sigma, truncate=5)
    found = degrade(lr, f"blur:{width}")
    assert found.dtype == np.uint8
    assert np.abs(found - want).max() < 0.51


def test_noise_has_its_sigma_and_is_that_of_the_images_name():
    lr = np.full((200, 200, 3), 128, np.uint8)
    found = degrade(lr, "noise:10")
    error = found - 128.0
    assert error.mean() == pytest.approx(0, abs=0.1)
    assert error.std() == pytest.approx(10, rel=0.02)
    assert abs(np.corrcoef(error[..., 0].ravel(), error[..., 1].ravel())[0, 1]) < 0.02
    np.testing.assert_array_equal(found, degrade(lr, "noise:10"))
    assert (found != degrade(lr, "noise:10", "two")).mean() > 0.9
    twice = degrade(lr, "noise:10+noise:10") - 128.0  # another one the second time
    assert twice.std() == pytest.approx(10 * np.sqrt(2), rel=0.02)
    assert degrade(np.full((9, 9), 255, np.uint8), "noise:9").max() == 255
    degrade(lr[:1, :1], "noise:1", "caf\udce9")  # no text, but the name of a file


def test_steps_are_done_in_their_order():
    lr, parts = smooth(), CHAIN.split("+")
    first = degrade(lr, parts[0])
    again = degrade(degrade(lr, f"{parts[0]}+{parts[1]}"), parts[2])
    np.testing.assert_array_equal(degrade(lr, CHAIN), again)
    assert not np.array_equal(
        degrade(lr, "jpeg:75+blur:0.6"), degrade(first, "jpeg:75")
    )


def test_the_degrading_is_no_code_of_the_training():
    nodes = ast.walk(ast.parse(pathlib.Path(degrading.__file__).read_text()))
    names = {n.module for n in nodes if isinstance(n, ast.ImportFrom)}
    assert {name for name in names if name.startswith("btsrn")} == {"btsrn_jax.errors"}


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tiny.write_photos(tmp_path / "photos", ((40, 60), (36, 44)))


def evaluate(*degrade, sets=("photos",), **kwargs):
    return run_evaluation(
        "bicubic", [*sets], [2], ["modern"], degrade=degrade, **kwargs
    )


def test_each_set_is_measured_with_each_degradation(photos, capsys):
    args = ["evaluate", "--model=bicubic", "--sets=photos", "--scale=2"]
    args += ["--protocol=modern", "--csv=out.csv", "--save-images=sr"]
    args += ["--degrade", "clean,jpeg:75", CHAIN]
    with pytest.raises(SystemExit) as end:
        cli.main([*args, "--degrade=noise:10"])
    assert end.value.code == 0
    names = ["", "jpeg:75", CHAIN, "noise:10"]
    with open("out.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["degradation"] for line in lines] == [n for n in names for _ in "123"]
    assert {line["lr"] for line in lines} == {"imresize"}
    assert {line["set"] for line in lines} == {"photos"}
    header, _, *shown = capsys.readouterr().out.splitlines()
    assert "| degradation " in header
    for line, name in zip(shown, ["clean", *names[1:]], strict=True):
        assert f"| {name} " in line

    # A saved image is what was measured: LR of imresize, degraded, enlarged.
    hr = np.asarray(Image.open("photos/photo0.png"))
    sr = imresize(degrade(imresize(hr, 1 / 2), CHAIN, "photo0"), 2)
    folder = pathlib.Path("sr/photos/x2/bicubic")
    saved = Image.open(folder / CHAIN.replace(":", "-") / "photo0.png")
    np.testing.assert_array_equal(np.asarray(saved), sr)
    (found,) = [x for x in lines if (x["image"], x["degradation"]) == ("photo0", CHAIN)]
    assert float(found["psnr"]) == pytest.approx(metrics.psnr(sr, hr, "modern", 2))
    assert (folder / "photo0.png").exists()  # clean, as ever


def test_lr_that_is_given_is_degraded_too(photos):
    (photos.parent / "low").mkdir()
    for path in photos.glob("*.png"):
        hr = np.asarray(Image.open(path))
        Image.fromarray(imresize(hr, 1 / 2)).save(photos.parent / "low" / path.name)
    made, given = evaluate("jpeg:50"), evaluate("jpeg:50", lr=photos.parent / "low")
    assert [row.psnr for row in given] == [row.psnr for row in made]
    assert {row.lr for row in given} == {str(photos.parent / "low")}


def test_without_it_rows_are_those_of_clean_images(photos):
    rows = evaluate()
    assert rows == evaluate("clean")
    assert {row.degradation for row in rows} == {""}
    assert "degradation" not in figure_tables.table(rows)


def row(**fields):
    base = figures.Row("B100", "mean", 2, "btsrn-x2", 0, "benchmark", 31.93, 0.89)
    return base._replace(**fields)


CLEAN, JPEG = row(), row(degradation="jpeg:75", psnr=28.0)


def test_a_degraded_row_is_never_taken_for_a_clean_one(tmp_path):
    for rows in ([CLEAN, JPEG], [JPEG, CLEAN]):
        assert sorted(figures.latest(rows)) == sorted(rows)
    figures.write_csv(tmp_path / "a.csv", [CLEAN, JPEG])
    assert figures.read_csv(tmp_path / "a.csv") == [CLEAN, JPEG]
    assert figures.paper_psnr(CLEAN) == 32.05
    assert figures.paper_psnr(JPEG) is None
    assert figures.input_label(JPEG._replace(lr="x/LQ")) == ", LR of x/LQ, jpeg:75"
    perfect = JPEG._replace(image="a", psnr=metrics.WITHOUT_ERROR)
    assert "B100 jpeg:75 x2" in figure_tables.name_without_error([perfect])[0]
    # Left out of the mean of the degraded images, and of these alone.
    base = row(model="bicubic", psnr=29.0)
    assert figures.gain(CLEAN, base, [perfect]) == pytest.approx(2.93)


def entry(name, rows):
    known = {"scale": 2, "model": dict(tiny.config().model), "step": 1, "data": "x"}
    known |= {"training_command": "x", "eval": {"protocol": "benchmark"}}
    bicubic = [r._replace(model="bicubic", psnr=r.psnr - 1) for r in rows]
    return tables.ReportedModel(name, name, known, [], rows, bicubic)


def test_cards_and_reports_keep_them_apart():
    about = {"scale": 2, "model": {}, "name": "m", "bytes": {}}
    rows = [JPEG, CLEAN, row(model="bicubic", psnr=29.5)]
    rows.append(JPEG._replace(model="bicubic", psnr=27.5))
    about["figures"] = provenance.figures(rows)
    held = [figure.get("degradation") for figure in about["figures"]]
    assert held == ["jpeg:75", None, None, "jpeg:75"]
    assert [figures.to_row(f) for f in about["figures"]] == rows
    shown = [(x["bicubic"], x["paper"]) for x in provenance.compared(about)]
    assert shown == [(27.5, None), (29.5, 32.05)]
    assert "28.00" not in provenance.summary(about)
    only = about | {"figures": about["figures"][:1]}
    assert "28.00 dB on B100, jpeg:75" in provenance.summary(only)
    card = hub_metadata.front_matter(about)
    assert '"name": "B100 x2, jpeg:75"' in card
    assert '"name": "B100 x2"' in card

    ntire = JPEG._replace(protocol="ntire", ensemble=1)
    found = entry("btsrn-x2", [JPEG, ntire])
    assert experiments.final(found) == []
    assert paper_tables.table3([found]) is None
    assert paper_tables.table4([found]) is None
    assert published.released_tables([found]) == []
    both = entry("btsrn-x2", [JPEG, CLEAN])
    assert published.released_tables([both])[0].lines[0][2:4] == ["30.93", "31.93"]
    assert [line[3] for line in tables.overview([both]).lines] == [
        "B100, jpeg:75",
        "B100",
    ]
    assert [line[6] for line in tables.overview([both]).lines] == ["27.00", "30.93"]


def test_a_card_tells_how_the_patches_of_training_were_degraded():
    section = {
        "blur": 0.0,
        "blur_width": [0.2, 0.8],
        "jpeg": 0.8,
        "jpeg_quality": [9, 98],
    }
    said = provenance.describe_degradation({"data": {"degradation": section}})
    assert said == ", then degraded: jpeg 0.8, jpeg_quality (9, 98)"
    off = {"data": {"degradation": section | {"jpeg": 0.0}}}
    assert provenance.describe_degradation(off) == ""
    assert provenance.describe_degradation({"data": {}}) == ""


def test_the_table_of_photographs_has_a_column_for_each_family_of_models():
    def measured(gain):
        rows = [CLEAN, JPEG, row(set="Set5", psnr=37.0), JPEG._replace(ensemble=1)]
        rows = [r._replace(psnr=r.psnr + gain, protocol="modern") for r in rows]
        return [rows[1], rows[0], *rows[2:]]

    models = [entry("btsrn-x2", measured(0)), entry("btsrn-x2-photo", measured(1))]
    table = photographs.degraded_table(models)
    assert table.header == ["set", "scale", "LR", "bicubic", "btsrn", "btsrn-photo"]
    assert [line[2] for line in table.lines] == ["clean", "jpeg:75"]
    assert [line[4:] for line in table.lines] == [
        ["31.93", "32.93"],
        ["28.00", "29.00"],
    ]
    again = photographs.degraded_table([models[0], entry("btsrn", measured(2))])
    assert again.header[4:] == ["btsrn-x2", "btsrn"]
    assert photographs.degraded_table([entry("a", [CLEAN])]) is None


def test_a_figure_of_another_type_is_named(tmp_path):
    from btsrn_jax.inference import weights

    (figure,) = provenance.figures([JPEG])
    about = {"scale": 2, "model": {}, "figures": [figure | {"degradation": 75}]}
    with pytest.raises(InputError, match=r"figures\[0\] has another degradation"):
        weights._check(about, tmp_path)
