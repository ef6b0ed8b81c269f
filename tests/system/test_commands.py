"""Claims of `btsrn` in a fresh interpreter: everything real, and no JAX in vain."""

import csv
import os
import subprocess
import sys

import numpy as np
from helpers import runs, tiny

from btsrn_jax import images, resize
from btsrn_jax.export import write as export


def python(*args):
    return subprocess.run(
        [sys.executable, *args],
        capture_output=True,
        text=True,
        cwd=tiny.ROOT,
        timeout=300,
    )


def test_evaluate_bicubic_as_a_process(tmp_path):
    """Files in, table and CSV out."""
    photos = tiny.write_photos(tmp_path / "My Set")
    command = ["-m", "btsrn_jax.cli", "evaluate", "--model", "bicubic"]
    command += ["--sets", photos, "--scale", "2,3", "--csv", tmp_path / "figures.csv"]
    done = python(*command)
    assert done.returncode == 0, done.stderr
    assert "paper's" not in done.stdout  # there is none for this set
    for scale in ("x2", "x3"):
        for protocol in ("ntire", "benchmark", "modern"):
            assert f"| My Set | {scale}    | {protocol:9} | bicubic |" in done.stdout
    with (tmp_path / "figures.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3 * (3 + 1)
    assert {row["image"] for row in rows} == {"photo0", "photo1", "photo2", "mean"}
    assert all(0 < float(row["ssim"]) <= 1 for row in rows)


def test_upscale_reads_standard_input_and_writes_standard_output(tmp_path):
    """Nothing but the picture goes to standard output; nothing is left behind."""
    (photo, *_) = sorted(tiny.write_photos(tmp_path / "in").iterdir())
    command = [sys.executable, "-m", "btsrn_jax.cli", "upscale", "-", "-"]
    command += ["--model", "bicubic", "--format", "tif"]
    settings = {"cwd": tiny.ROOT, "timeout": 300, "capture_output": True}
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(
        command, input=photo.read_bytes(), env=environment, **settings
    )
    assert done.returncode == 0, done.stderr
    (tmp_path / "out.tif").write_bytes(done.stdout)
    lr, sr = (images.read_image(p) for p in (photo, tmp_path / "out.tif"))
    np.testing.assert_array_equal(sr, resize.imresize(lr, 2))
    told = done.stderr.decode().splitlines()
    assert told[0] == "bicubic: enlarging by 2"
    assert told[1].startswith("standard input -> standard output.tif: ")
    done = subprocess.run(command, input=b"no picture", env=environment, **settings)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"cannot read standard input: none of PNG" in done.stderr
    done = subprocess.run(command, input=b"", env=environment, **settings)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"error: standard input is empty: a picture was expected\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out.tif"]


def loaded_by(*commands):
    """What each command prints, its exit code, and which libraries are loaded then."""
    code = f"""
import sys
from btsrn_jax import cli
for args in {commands}:
    try:
        cli.main([str(arg) for arg in args])
    except SystemExit as end:
        heavy = ("jax", "flax", "orbax", "optax", "numpy")
        print("loaded", end.code, [name for name in heavy if name in sys.modules])
"""
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_models_and_what_upscale_refuses_load_no_jax(tmp_path):
    runs.make(tmp_path / "run")
    model = tmp_path / "model"
    export.export_model(str(tmp_path / "run"), model, ["safetensors"])
    (photo, *_) = sorted(tiny.write_photos(tmp_path / "in").iterdir())
    upscale = ("upscale", str(photo), str(tmp_path / "out.png"))
    out, err = loaded_by(
        ("models",),
        ("upscale", "nowhere.png", "out.png"),
        (*upscale, "--scale=7"),
        (*upscale, "--model=nothing"),
        (*upscale, f"--model={model}", "--scale=3"),
        (*upscale, f"--model={tmp_path}"),
    )
    found = [line for line in out.splitlines() if line.startswith("loaded")]
    assert found == ["loaded 0 ['numpy']"] + 5 * ["loaded 2 ['numpy']"]
    for part in ("nowhere.png", "scale 7", "'nothing'", "upscales by 2, not by 3"):
        assert part in err
    assert not (tmp_path / "out.png").exists()
