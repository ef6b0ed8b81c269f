"""Claims of `btsrn` in a fresh interpreter: everything real, and no JAX in vain."""

import csv
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from helpers import hub, runs, tiny
from PIL import Image

import btsrn_jax
from btsrn_jax import images, resize
from btsrn_jax.export import write as export


def python(*args, **environment):
    return subprocess.run(
        [sys.executable, *args],
        env=os.environ | environment,
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


BACKENDS = """
import sys
from btsrn_jax import cli
for args in {commands}:
    try:
        cli.main(args)
    except SystemExit as end:
        print("code", end.code, args, file=sys.stderr)
"""


@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
def test_a_backend_that_is_not_there_is_one_line_in_every_command(tmp_path, platform):
    runs.make(tmp_path / "run")
    run, photos = str(tmp_path / "run"), str(tiny.write_photos(tmp_path / "in"))
    config = str(tiny.ROOT / "configs" / "x2.py")
    new = ["train", "--config", config, "--workdir", str(tmp_path / "new")]
    commands = [
        ["upscale", f"{photos}/photo0.png", str(tmp_path / "out.png")],
        ["evaluate", "--model", run, "--sets", photos, "--scale", "2"],
        ["export", run, str(tmp_path / "model")],
        ["report", run, "--out", str(tmp_path / "report"), "--sets", photos],
        ["bench", "infer", "--scale", "2"],
        ["info", "--config", config, "--compile"],
        [*new, "--config.data.source=folder", f"--config.data.hr_dir={photos}"],
    ]
    code = BACKENDS.format(commands=commands)
    done = python("-c", code, JAX_PLATFORMS=platform)
    assert done.returncode == 1  # of `train`, which ends the process
    said = done.stderr.splitlines()
    assert "Traceback" not in done.stderr
    assert len([line for line in said if line.startswith("code 1 ")]) == 6
    errors = [line for line in said if line.startswith("error: ")]
    assert len(errors) == 7
    reason = f"JAX finds no device of JAX_PLATFORMS={platform!r}"
    assert all(reason in line for line in errors)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "run"]


def test_a_package_that_cannot_be_loaded_damages_no_run(tmp_path):
    """As after half an installation; TensorStore reads what Orbax has written."""
    runs.make(tmp_path / "run")
    broken = tmp_path / "broken" / "tensorstore"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('no libfoo.so')")
    path = os.pathsep.join([str(broken.parent), os.environ.get("PYTHONPATH", "")])
    command = ["-m", "btsrn_jax.cli", "export", tmp_path / "run", tmp_path / "model"]
    done = python(*command, PYTHONPATH=path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "no libfoo.so" in done.stderr
    assert "damaged" not in done.stderr


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


HEAVY = ("jax", "flax", "orbax", "optax", "onnx", "openvino_telemetry", "numpy")


def loaded_by(*commands, missing=(), **environment):
    """What each command prints, its exit code, and which libraries are loaded then; as
    if the packages of `missing` were not installed."""
    code = f"""
import sys
sys.modules |= dict.fromkeys({missing})
from btsrn_jax import cli
for args in {commands}:
    try:
        cli.main([str(arg) for arg in args])
    except SystemExit as end:
        heavy = [name for name in {HEAVY} if sys.modules.get(name)]
        print("loaded", end.code, heavy)
"""
    done = python("-c", code, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_models_and_what_is_refused_load_no_jax(tmp_path):
    """Neither a wrong path, nor a scale, nor a model."""
    runs.make(tmp_path / "run")
    model = tmp_path / "model"
    export.export_model(str(tmp_path / "run"), model, ["safetensors"])
    alone = shutil.copy(model / "model.safetensors", tmp_path / "alone.safetensors")
    (photo, *_) = sorted(tiny.write_photos(tmp_path / "in").iterdir())
    run, photos = str(tmp_path / "run"), str(tmp_path / "in")
    upscale = ("upscale", str(photo), str(tmp_path / "out.png"))
    evaluate = ("evaluate", f"--sets={photos}", f"--csv={tmp_path / 'f.csv'}")
    report = ("report", run, f"--out={tmp_path / 'report'}")
    refused = (
        (*upscale, f"--model={run}", "--scale=4"),
        (*evaluate, "--model=nothing"),
        (*evaluate, f"--model={run}", "--scale=3"),
        (*evaluate, f"--model={run}", "--sets=nowhere"),
        (*evaluate, f"--model={run}", f"--csv={tmp_path}"),
        ("export", run, photos),
        ("export", run, str(tmp_path / "x.onnx"), "--formats=orbax"),
        ("export", "nothing", str(tmp_path / "x")),
        ("export", run, run, str(tmp_path / "x"), "--formats=web"),
        ("export", run, photos, "--formats=web"),
        ("demo", "nothing"),
        ("demo", run, f"--runtime-files={photos}"),
        ("demo", run, "--port=70000"),
        (*report, "nothing"),
        (*report, "--sets=nowhere"),
        (*report, f"--sets={photos}", "--images=nobody.png"),
        (*report, f"--out={photo}"),
        ("info", "--config=configs/x4.py", "--", "--config.train.batchsize=8"),
    )
    out, err = loaded_by(*refused)
    found = [line for line in out.splitlines() if line.startswith("loaded")]
    assert not [line for line in found if "jax" in line], (found, err)
    assert found == [line for line in found if line.startswith("loaded 2 ")]
    assert len(found) == len(err.splitlines()) == len(refused), err
    training = "-X", "importtime", "-m", "btsrn_jax.main", "--config", "configs/x4.py"
    done = python(*training, "--config.eval.sets=nowhere")  # ends by os._exit
    assert done.returncode == 2
    loaded = re.findall(r"\| +(\S+)$", done.stderr, re.MULTILINE)
    assert "btsrn_jax.main" not in loaded  # which runs, and is not imported
    assert "btsrn_jax.arguments" in loaded
    assert "jax" not in loaded
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


def test_other_runtimes_upscale_without_jax_and_tell_nobody(tmp_path):
    """Once a graph was made. Importing OpenVINO reports to its makers otherwise. What
    is not installed is refused before the pictures are looked at."""
    runs.make(tmp_path / "run")
    model = tmp_path / "model"
    export.export_model(str(tmp_path / "run"), model, ["safetensors"])
    (photo, *_) = sorted(tiny.write_photos(tmp_path / "in").iterdir())
    cache = {"BTSRN_CACHE": str(tmp_path / "cache")}
    upscale = ("upscale", photo, tmp_path / "a.png", f"--model={model}", "--force")
    upscale = tuple(map(str, upscale))
    out, err = loaded_by(upscale, **cache)
    assert "loaded 0 ['jax'," in out, err
    runtimes = ("auto", "openvino", "onnxruntime")
    commands = [(*upscale, f"--runtime={name}", "--ensemble") for name in runtimes]
    out, err = loaded_by(*commands, missing=("onnx",), **cache)
    assert out.count("loaded 0 ['numpy']") == 3, (out, err)
    told = re.findall(r"by (\w+) [\d.]+, each tile in eight views, averaged", err)
    assert told == ["OpenVINO", "OpenVINO", "onnxruntime"]
    wrong = ("upscale", "nowhere.png", "out.png", "--runtime=openvino")
    evaluate = ("evaluate", "--model=x", "--sets=y", "--runtime=onnxruntime")
    out, err = loaded_by(wrong, evaluate, missing=("openvino", "onnxruntime"))
    assert out.count("loaded 2 ['numpy']") == 2, (out, err)
    assert err.splitlines() == [
        f"error: --runtime {name} is not installed: pip install 'btsrn-jax[{extra}]'"
        for name, extra in (
            ("openvino: OpenVINO", "cpu"),
            ("onnxruntime: onnxruntime", "onnx"),
        )
    ]


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
