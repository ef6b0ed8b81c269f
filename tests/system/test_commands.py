"""Claims of `btsrn` in a fresh interpreter: everything real, and no JAX in vain."""

import csv
import shutil
import subprocess
import sys

import numpy as np
import pytest
from helpers import hub, runs, tiny
from PIL import Image

import btsrn_jax
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
        for protocol in ("ntire", "benchmark", "modern", "rgb"):
            assert f"| My Set | {scale}    | {protocol:9} | bicubic |" in done.stdout
    with (tmp_path / "figures.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 4 * (3 + 1)
    assert {row["image"] for row in rows} == {"photo0", "photo1", "photo2", "mean"}
    assert all(0 < float(row["ssim"]) <= 1 for row in rows)


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
    alone = shutil.copy(model / "model.safetensors", tmp_path / "alone.safetensors")
    (photo, *_) = sorted(tiny.write_photos(tmp_path / "in").iterdir())
    upscale = ("upscale", str(photo), str(tmp_path / "out.png"))
    out, err = loaded_by(
        ("models",),
        ("upscale", "nowhere.png", "out.png"),
        (*upscale, "--scale=7"),
        (*upscale, "--model=nothing"),
        (*upscale, f"--model={model}", "--scale=3"),
        (*upscale, f"--model={tmp_path}"),
        (*upscale, f"--model={alone}", "--scale=4"),
        (*upscale, "--model=hf://tiny"),
    )
    found = [line for line in out.splitlines() if line.startswith("loaded")]
    assert found == ["loaded 0 ['numpy']"] + 7 * ["loaded 2 ['numpy']"]
    for part in ("nowhere.png", "scale 7", "'nothing'", "by 2, not by 3", "not by 4"):
        assert part in err
    assert not (tmp_path / "out.png").exists()


def test_a_picture_is_upscaled_by_a_model_of_the_hub(tmp_path, monkeypatch):
    """A hub on this machine, in a process; the same by the weights alone."""
    pytest.importorskip("huggingface_hub", reason="the extra [hub] is not installed")
    runs.make(tmp_path / "run")
    model = tmp_path / "model"
    export.export_model(str(tmp_path / "run"), model, ["safetensors"], log=str)
    (photo, *_) = sorted(tiny.write_photos(tmp_path / "in").iterdir())
    files = {path.name: path.read_bytes() for path in model.iterdir()}
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    command = ["-m", "btsrn_jax.cli", "upscale", photo, tmp_path / "out.png"]
    with hub.serving({"me/tiny": {"v1": files}}) as (_, address):
        monkeypatch.setenv("HF_ENDPOINT", address)
        done = python(*command, "--model", "hf://me/tiny@v1")
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        missing = python(*command, "--model", "hf://me/tiny@v2", "--force")
    assert missing.returncode == 2
    assert missing.stderr == "error: hf://me/tiny@v2: there is no revision v2\n"
    sr = btsrn_jax.load_model(str(model / "model.safetensors"))(read(photo))
    np.testing.assert_array_equal(read(tmp_path / "out.png"), sr)


def read(path):
    return np.asarray(Image.open(path))
