"""The command line of training. As a process: tests/system/test_main_process.py."""

import json
import pathlib

import jax
import pytest
from helpers import tiny

from btsrn_jax import cli, inference, mesh
from btsrn_jax import main as entry
from btsrn_jax.data import datasets
from btsrn_jax.errors import InputError

ROOT = pathlib.Path(__file__).parents[1]


X4 = ("--config", "configs/x4.py")


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        ((), ["--config is missing"]),
        (("--config", "configs/x9.py"), ["configs/x9.py", "configs/x4.py"]),
        (("--config", "configs/x4.py:nonsense"), ["nonsense", "bicubic or unknown"]),
        ((*X4, "--config.train.stepz=3"), ["did you mean config.train.steps"]),
        ((*X4, "--config.train.steps=many"), ["train.steps", "'many'", "whole number"]),
        ((*X4, "--config.train.patch=110"), ["110", "108 or 112"]),
        ((*X4, "--config.model={'features': 8}"), ["replaces all"]),
        ((*X4, "--config.train=5"), ["is a section", "--config.train.batch_size="]),
        (
            (*X4, "--config.data.degradation=jpeg:75"),
            ["is a section", "--config.data.degradation.blur=VALUE"],
        ),
        (
            (*X4, "--config.data.degradation.jpeg_quality=30-98"),
            ["is '30-98': (low, high), whole numbers from 1 to 100 was expected"],
        ),
        (
            (*X4, "--config.data.degradation.blur_width", "(0.2, 1"),
            ["is '(0.2, 1': (low, high), numbers from 0 to 8 was expected"],
        ),
        (
            (*X4, "--config.train.profile=[10,"),
            ["is '[10,': two whole numbers, or () was expected"],
        ),
        ((*X4, "--mode=test"), ["--mode=test", "train"]),
        ((*X4, "--config.train.tracker=wanb"), ["'wanb'", "tensorboard, wandb, none"]),
        ((*X4, "--config.eval.best_set=B100"), ["'B100'", "one of div2k/bicubic_x4"]),
        (
            (*X4, "--config.eval.degrade=clean,jpg:75"),
            ["config.eval.degrade 'jpg:75'", "did you mean jpeg?"],
        ),
        (
            (*X4, "--config.eval.best_set=a", "--config.eval.sets=tests,docs"),
            ["'a'", "one of tests, docs"],
        ),
        (("--config", "configs/photo.py:x2"), ["config.data.hr_dir is empty"]),
        ((*X4, "--flug"), ["flug"]),
        ((*X4, "--config.data.root=nowhere"), ["btsrn prepare div2k/bicubic_x4", "GB"]),
        (
            (*X4, "--config.data.source=folder", "--config.data.hr_dir=nowhere"),
            ["no such file or folder: nowhere"],
        ),
        ((*X4, "--mode=eval", "--workdir=nowhere"), ["nowhere"]),
        ((*X4, r"--workdir=nowhere\run"), [r"nowhere\run", r"\ is taken for /"]),
        ((*X4, "--workdir=/s3/nowhere"), ["/s3/nowhere", "taken for a bucket"]),
    ],
)
def test_a_users_mistake_is_one_line(args, parts, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError) as error:
        entry.run(["main.py", *args])
    text = str(error.value)
    assert "\n" not in text
    assert all(part in text for part in parts), text
    assert not (ROOT / "nowhere").exists()


def test_help_lists_every_field(capsys):
    assert entry.run(["main.py", "--help"]) == 0
    said = capsys.readouterr().out
    for name in ("--workdir", "--mode", "--config.train.steps", "--config.eval.tile"):
        assert name in said


def test_btsrn_train_is_another_name_of_main(capsys):
    assert entry.run(["main.py", "--help"]) == 0
    expected = capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        cli.main(["train", "--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out == expected
    assert "  train " in cli.build_parser().format_help()


def test_the_file_and_the_argument_of_a_config_are_kept(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    options = entry.parse(["main.py", "--config", "configs/x4.py:unknown"])
    found = options.config_file, options.config_argument
    assert found == ("configs/x4.py", "unknown")
    monkeypatch.chdir(tmp_path)  # nothing lies here: the package's own is meant
    if (pathlib.Path(entry.__file__).parent / "configs").is_dir():  # installed
        options = entry.parse(["main.py", *X4])
        assert options.config_file == "configs/x4.py"


def test_a_training_run_lists_its_sets_once_and_compiles_its_tiles_once(
    monkeypatch, tmp_path
):
    """For validation and for the closing table; the run is told where its config came
    from."""
    called = []

    def count(room, name):
        real = getattr(room, name)
        spy = lambda *a, **k: called.append(name) or real(*a, **k)  # noqa: E731
        monkeypatch.setattr(room, name, spy)

    count(datasets, "check_set")
    count(inference, "tiled_upscaler")
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("BTSRN_CACHE", str(tmp_path / "cache"))
    real = mesh.make_mesh
    monkeypatch.setattr(mesh, "make_mesh", lambda *_: real(jax.devices()[:1]))
    photos = tiny.write_photos(tmp_path / "photos", tiny.HR_SIZES)
    val = tiny.write_photos(tmp_path / "val", [(40, 40)])
    args = tiny.command(tmp_path / "run", photos, sets=val, steps=1)
    assert entry.run(args[2:]) == 0
    assert sorted(called) == ["check_set", "tiled_upscaler"]
    about = json.loads((tmp_path / "run" / "config.json").read_text())
    assert about["config_file"] == "configs/x2.py"
    assert about["config_argument"] == ""
