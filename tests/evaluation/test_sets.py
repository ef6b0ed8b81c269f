"""Claims of `btsrn evaluate` on sets as people have them: whose LR, which images."""

import pathlib

import pytest
from helpers import tiny
from PIL import Image

from btsrn_jax import cli, report
from btsrn_jax.data import evaluation_sets
from btsrn_jax.errors import InputError
from btsrn_jax.evaluation import figures, run_evaluation


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
