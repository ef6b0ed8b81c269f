"""The command line of training, through real processes."""

import json
import re
import subprocess
import sys

import pytest
from helpers import tiny

from btsrn_jax import evaluation
from btsrn_jax import main as entry
from btsrn_jax.errors import InputError

X4 = ("--config", "configs/x4.py")


def main(*args):
    """What `python -m btsrn_jax.main` says, on one device, to its end."""
    return tiny.finish(tiny.start([sys.executable, "-m", "btsrn_jax.main", *args]))


@pytest.mark.parametrize("args", [(*X4, "--config.train.stepz=3"), (*X4, "--flug")])
def test_a_mistake_ends_the_process_with_2_and_without_a_traceback(args):
    command = [sys.executable, "-m", "btsrn_jax.main", *args]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tiny.ROOT)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1, result.stderr


def test_the_quickstart_trains_validates_continues_and_evaluates(tmp_path, monkeypatch):
    """The README's first command at a tiny size: table, picture, checkpoint, codes;
    then the same command again, and --mode=eval."""
    run = tmp_path / "run"
    tiny_run = [
        "--config",
        "configs/quickstart.py",
        f"--workdir={run}",
        "--config.model.features=8",
        "--config.model.bottleneck=4",
        "--config.model.low_blocks=1",
        "--config.model.high_blocks=1",
        "--config.train.warmup_steps=2",
        "--config.train.steps=6",
        "--config.train.eval_every=4",
        "--config.train.log_every=2",
    ]
    said = main(*tiny_run)
    for part in ("BTSRN x2", "7 images", "loss", "steps/s", "left", "bicubic PSNR"):
        assert part in said
    for name in ("config.json", "metrics.jsonl", "validation.csv", "validation.png"):
        assert (run / name).stat().st_size > 100
    assert list((run / "checkpoints").glob("[0-9]*"))

    before = (run / "metrics.jsonl").read_text()
    # The console has the steps and the losses of the file.
    logged = [json.loads(line) for line in before.splitlines()]
    shown = re.findall(r"training: (\d+)/6 steps, loss ([^,]+), learning rate ", said)
    assert shown == [(str(x["step"]), f"{x['loss']:.4g}") for x in logged]
    assert [x["step"] for x in logged] == [2, 4, 6]
    started = said.splitlines()
    first = next(i for i, line in enumerate(started) if line.startswith("training: "))
    assert first <= 9, said
    assert "compiling the train step (once) ..." in started
    assert re.search(r"^compiled in \d+ s$", said, re.MULTILINE)
    assert f"run directory: {run}" in said
    for command in (f"upscale photo.jpg enlarged.png --model {run}", f"report {run}"):
        assert f" btsrn {command}" in said

    said = main(*tiny_run)
    assert "complete: 6 of 6 steps; to go on: the same command with" in said
    assert "continuing" not in said
    assert "compiling the train step" not in said
    assert (run / "metrics.jsonl").read_text() == before

    monkeypatch.chdir(tiny.ROOT)
    with pytest.raises(InputError, match=r"config.train.seed was 0, now 1"):
        entry.run(["main.py", *tiny_run, "--config.train.seed=1"])
    wrong = "holds another network: config.model.bottleneck was 4, now 5"
    with pytest.raises(InputError, match=wrong):
        entry.run(["main.py", *tiny_run, "--mode=eval", "--config.model.bottleneck=5"])

    said = main(*tiny_run, "--mode=eval", "--config.eval.degrade=clean,jpeg:50")
    assert "ensemble" in said
    assert ", jpeg:50 | " in said
    found = evaluation.read_csv(run / "evaluation.csv")
    assert {row.degradation for row in found} == {"", "jpeg:50"}
    clean, jpeg = (
        [x.psnr for x in found if x.image == "mean" and x.degradation == how]
        for how in ("", "jpeg:50")
    )
    assert len(clean) == len(jpeg) == 2  # bicubic, the network
    assert jpeg[0] < clean[0] - 1
