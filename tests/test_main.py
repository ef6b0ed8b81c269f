"""The command line of training, through real processes."""

import pathlib
import subprocess
import sys

import pytest

from btsrn_jax import main as entry
from btsrn_jax.errors import InputError

ROOT = pathlib.Path(__file__).parents[1]


def main(*args, cwd=ROOT, timeout=300):
    """Runs `python -m btsrn_jax.main`."""
    return subprocess.run(
        [sys.executable, "-m", "btsrn_jax.main", *args],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


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
        ((*X4, "--mode=test"), ["--mode=test", "train"]),
        ((*X4, "--flug"), ["flug"]),
        ((*X4, "--config.data.root=nowhere"), ["btsrn prepare div2k/bicubic_x4", "GB"]),
        (
            (*X4, "--config.data.source=folder", "--config.data.hr_dir=nowhere"),
            ["no folder nowhere"],
        ),
        ((*X4, "--mode=eval", "--workdir=nowhere"), ["nowhere"]),
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


@pytest.mark.parametrize("args", [(*X4, "--config.train.stepz=3"), (*X4, "--flug")])
def test_a_mistake_ends_the_process_with_2_and_without_a_traceback(args):
    result = main(*args)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1, result.stderr


def test_help_lists_every_field():
    result = main("--help")
    assert result.returncode == 0
    for name in ("--workdir", "--mode", "--config.train.steps", "--config.eval.tile"):
        assert name in result.stdout


def test_the_quickstart_trains_validates_continues_and_evaluates(tmp_path):
    """The README's first command at a tiny size: table, picture, checkpoint, codes;
    then the same command again, and --mode=eval."""
    tiny = [
        "--config",
        "configs/quickstart.py",
        f"--workdir={tmp_path / 'run'}",
        "--config.model.features=8",
        "--config.model.bottleneck=4",
        "--config.train.warmup_steps=2",
        "--config.train.steps=6",
        "--config.train.eval_every=4",
        "--config.train.log_every=2",
    ]
    result = main(*tiny)
    assert result.returncode == 0, result.stderr
    for part in ("BTSRN x2", "7 images", "loss", "steps/s", "ETA", "bicubic PSNR"):
        assert part in result.stderr, result.stderr
    run = tmp_path / "run"
    for name in ("config.json", "metrics.jsonl", "validation.csv", "validation.png"):
        assert (run / name).stat().st_size > 100
    assert list((run / "checkpoints").glob("[0-9]*"))

    before = (run / "metrics.jsonl").read_text()
    again = main(*tiny)
    assert again.returncode == 0, again.stderr
    assert "continuing from step 6" in again.stderr
    assert (run / "metrics.jsonl").read_text() == before

    other = main(*tiny, "--config.train.seed=1")
    assert other.returncode == 2
    assert "config.train.seed was 0, now 1" in other.stderr

    other = main(*tiny, "--mode=eval", "--config.model.bottleneck=5")
    assert other.returncode == 2
    assert "holds another network: config.model.bottleneck was 4, now 5" in other.stderr

    evaluated = main(*tiny, "--mode=eval")
    assert evaluated.returncode == 0, evaluated.stderr
    assert "ensemble" in evaluated.stderr
    assert (run / "evaluation.csv").exists()
