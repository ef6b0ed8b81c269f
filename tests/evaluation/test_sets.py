"""Claims of `btsrn evaluate` on sets as people have them: whose LR, which images."""

import pathlib

import pytest
import skimage.data
from helpers import tiny
from PIL import Image

from btsrn_jax import cli, report
from btsrn_jax.data import evaluation_sets
from btsrn_jax.errors import InputError
from btsrn_jax.evaluation import figures, run_evaluation
from btsrn_jax.resize import imresize


@pytest.fixture
def hr(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tiny.write_photos(tmp_path / "set" / "HR", ((40, 60), (36, 44)))


def write_lr(hr, folder, scale=2):
    """Of another kernel than imresize has."""
    folder.mkdir(parents=True)
    for path in hr.glob("*.png"):
        image = Image.open(path)
        size = image.width // scale, image.height // scale
        image.resize(size, Image.Resampling.NEAREST).save(folder / path.name)


def evaluate(*sets, csv="out.csv", scales=(2,), **kwargs):
    """The rows of bicubic under `modern`, as they come back from the CSV file."""
    run_evaluation("bicubic", [*sets], [*scales], ["modern"], csv=csv, **kwargs)

    return figures.read_csv(pathlib.Path(csv))


def test_the_csv_and_a_line_say_whose_lr_it_was(hr, caplog):
    made = evaluate("set")
    assert {row.lr for row in made} == {"imresize"}
    assert "HR of set/HR, LR made by imresize" in caplog.text
    write_lr(hr, hr.parent / "lr" / "x2")
    given = evaluate("set")
    assert {row.lr for row in given} == {"set/lr/x2"}
    assert "LR of set/lr/x2" in caplog.text
    assert given[-1].psnr < made[-1].psnr - 3


# Urban100 as people have it: HR and LR of one image at one scale, and what lies beside.
SRF = "image_SRF_{s}/img_{n}_SRF_{s}"
URBAN100 = {
    "HR alone": ("img_{n}.png", None),
    "HR of SelfExSR alone": ("img_{n}_SRF_4_HR.png", None),
    "the same in its folders": (f"{SRF}_HR.png", None, f"{SRF}_SRCNN.png"),
    "SelfExSR": (f"{SRF}_HR.png", f"{SRF}_LR.png"),
    "with results": (f"{SRF}_HR.png", f"{SRF}_LR.png", f"{SRF}_A+.png"),
    "sorted": ("image_SRF_{s}/HR/img_{n}.png", "image_SRF_{s}/LR/img_{n}.png"),
    "sorted by name": (
        "image_SRF_{s}/HR/img_{n}_SRF_{s}_HR.png",
        "image_SRF_{s}/LR/img_{n}_SRF_{s}_LR.png",
    ),
    "all in one folder": ("img_{n}_SRF_{s}_HR.png", "img_{n}_SRF_{s}_LR.png"),
    "HR of two scales": ("img_{n}_SRF_{s}_HR.png", None),
    "EDSR": ("HR/img{n}.png", "LR_bicubic/X{s}/img{n}x{s}.png"),
    "BasicSR": ("GTmod12/img_{n}.png", "LRbicx{s}/img_{n}.png"),
    "Hugging Face": ("Urban100_HR/img_{n}.png", "Urban100_LR_x{s}/img_{n}.png"),
    "RCAN": ("HR/x{s}/img_{n}_HR_x{s}.png", "LR/LRBI/x{s}/img_{n}_LRBI_x{s}.png"),
}


def write_urban100(folder, hr, lr=None, beside=None):
    """Two photographs, one of odd size, and their LR by `imresize` at x2 and x4."""
    for n, (name, h, w) in enumerate((("chelsea", 96, 128), ("coffee", 97, 131)), 1):
        photo = getattr(skimage.data, name)()[100:][:h, :w]
        for s in (2, 4):
            low = imresize(photo[: h // s * s, : w // s * s], 1 / s)
            for place, image in ((hr, photo), (lr, low), (beside, 255 - photo)):
                if place:
                    path = folder / place.format(n=f"{n:03}", s=s)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(image).save(path)


@pytest.mark.parametrize("layout", URBAN100.values(), ids=URBAN100)
def test_urban100_has_the_same_figures_in_every_layout(tmp_path, monkeypatch, layout):
    monkeypatch.chdir(tmp_path)
    for place, files in (("HR alone", ("img_{n}.png",)), ("Urban100", layout)):
        write_urban100(tmp_path / place, *files)
        args = f"evaluate --model bicubic --scale 2,4 --csv {place[:2]}.csv --sets"
        with pytest.raises(SystemExit) as end:
            cli.main([*args.split(), place, "--protocol", "ntire,modern,rgb"])
        assert end.value.code == 0
    alone, rows = (figures.read_csv(tmp_path / f"{n}.csv") for n in ("HR", "Ur"))
    assert len(rows) == 2 * 3 * (2 + 1)
    for ours, theirs in zip(rows, alone, strict=True):
        assert (ours.scale, ours.protocol) == (theirs.scale, theirs.protocol)
        assert (ours.psnr, ours.ssim) == (theirs.psnr, theirs.ssim)
        assert ours.set == "Urban100"
        assert (ours.lr == "imresize") == (layout[1] is None)


def test_a_scale_that_urban100_lacks_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i, layout in enumerate(("all in one folder", "HR of two scales", "SelfExSR")):
        write_urban100(tmp_path / f"{i}", *URBAN100[layout])
        with pytest.raises(InputError, match="there is no x3 in "):
            evaluate(f"{i}", scales=[3])
    write_urban100(tmp_path / "none", f"{SRF}_SRCNN.png")
    with pytest.raises(InputError, match="no images NAME_HR in none/image_SRF_2"):
        evaluate("none")


def test_lr_is_given_on_the_command_line(hr, capsys):
    write_lr(hr, hr.parent.parent / "low" / "X2")
    args = ["evaluate", "--model", "bicubic", "--sets", "set", "--scale", "2"]
    with pytest.raises(SystemExit) as end:
        cli.main([*args, "--lr", "low", "--csv", "a.csv"])
    assert end.value.code == 0
    assert "| low/X2 " in capsys.readouterr().out
    for more in (["--sets", "set,HR", "--lr", "low"], ["--sets", "samples"]):
        with pytest.raises(SystemExit) as end:
            cli.main([*args, *more, "--lr", "low"])
        assert end.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "--lr" in line


def test_lr_of_the_wrong_size_is_refused_and_what_to_do_is_said(hr):
    write_lr(hr, hr.parent / "LR")
    assert evaluate("set", scales=[2])
    with pytest.raises(InputError) as error:
        evaluate("set", scales=[3])
    assert "do not fit at x3" in str(error.value)
    assert "(LR is of set/LR; --lr DIR names another folder)" in str(error.value)


def test_pictures_saved_inside_a_set_are_not_in_it_the_next_time(hr, tmp_path):
    images = {row.image for row in evaluate("set/HR", save_images=hr / "sr")}
    assert (hr / "sr/HR/x2/bicubic/photo0.png").exists()
    # The folder is there already now, and its mark still counts.
    again = evaluate("set/HR", save_images=hr / "sr")
    assert {row.image for row in again} == images == {"photo0", "photo1", "mean"}
    # Into the set itself: the user's folder is not marked, what is new in it is.
    assert {row.image for row in evaluate("set/HR", save_images=hr)} == images
    assert {row.image for row in evaluate("set/HR")} == images


def test_two_sets_of_one_folder_name_stay_two_in_every_command(hr, tmp_path):
    other = tiny.write_photos(tmp_path / "Set14" / "HR", ((44, 48),))
    names = ["set/HR", "Set14/HR"]
    assert list(dict.fromkeys(row.set for row in evaluate(*names))) == names
    config = tiny.config()
    config.eval.sets = tuple(names)
    found = evaluation_sets(config)
    assert {name: len(pairs) for name, pairs in found.items()} == {
        "set/HR": 2,
        "Set14/HR": 1,
    }
    for function in (evaluate, lambda *sets: evaluation_sets(twice(config, sets))):
        with pytest.raises(InputError, match="given twice"):
            function("set/HR", str(other.parent.parent / "set/HR"))
    with pytest.raises(InputError, match="given twice"):
        report.write_report(["btsrn-x2"], tmp_path / "r", ["set/HR", "set/./HR"])


def twice(config, sets):
    config.eval.sets = sets
    return config
