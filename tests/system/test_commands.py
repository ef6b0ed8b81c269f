"""Claims of `btsrn` in a fresh interpreter: everything real, and no JAX in vain."""

import csv
import subprocess
import sys

from helpers import runs, tiny

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
