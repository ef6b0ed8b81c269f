"""Claims of the package: a wheel that works without the repository, a quick --help."""

import importlib.util
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import numpy as np
import pytest
from helpers import runs
from PIL import Image

import btsrn_jax
from btsrn_jax.export import write as export

ROOT = pathlib.Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]


def python(*args, cwd, path=None):
    """Runs Python outside of the repository, with `path` alone to import from."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    if path:
        env["PYTHONPATH"] = str(path)
    return subprocess.run(
        [sys.executable, *map(str, args)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=env,
        timeout=300,
    )


def setuptools_is_new_enough():
    if not importlib.util.find_spec("build"):
        return False
    import setuptools

    return int(setuptools.__version__.split(".")[0]) >= 77


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel, the sdist, and the folder where the wheel is installed, all of a tree
    with one tiny released model."""
    if not setuptools_is_new_enough():
        pytest.skip("build and setuptools 77 are not installed (the extra test)")
    folder = tmp_path_factory.mktemp("packaging")
    tree = folder / "tree"
    tree.mkdir()
    for name in ("btsrn_jax", "configs", "docs", "launch", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", "pretrained")
        shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    for path in ROOT.iterdir():
        if path.suffix in (".md", ".toml", ".in", ".yaml") or path.name == "LICENSE":
            shutil.copy(path, tree)
    runs.make(folder / "run")
    runs.write_figures(folder / "run" / "validation.csv", 31.0)
    released = tree / "btsrn_jax" / "pretrained" / "btsrn-x2"
    export.export_model(str(folder / "run"), released, ["safetensors"], log=str)
    # As a user would: sdist first, then the wheel from the sdist alone.
    done = python("-m", "build", "--no-isolation", "-o", folder / "dist", cwd=tree)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "absent from the `packages`" not in done.stdout + done.stderr
    (wheel,), (sdist,) = (folder / "dist").glob("*.whl"), (folder / "dist").glob("*.gz")
    with zipfile.ZipFile(wheel) as archive:  # installing a pure wheel is unpacking it
        archive.extractall(folder / "site")
    return wheel, sdist, folder / "site"


def test_the_wheel_holds_modules_configs_weights_and_licence(built):
    with zipfile.ZipFile(built[0]) as archive:
        names = set(archive.namelist())
    modules = (ROOT / "btsrn_jax").rglob("*.py")
    wanted = {p.relative_to(ROOT).as_posix() for p in modules} | {"btsrn_jax/py.typed"}
    wanted |= {f"btsrn_jax/configs/{p.name}" for p in (ROOT / "configs").glob("*.py")}
    wanted |= {
        f"btsrn_jax/pretrained/btsrn-x2/{name}"
        for name in ("config.json", "model.safetensors", "README.md", "figures.csv")
    }
    page = (ROOT / "btsrn_jax" / "export" / "web").iterdir()
    wanted |= {p.relative_to(ROOT).as_posix() for p in page}
    assert wanted <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if "test" in name]


def test_every_room_is_among_the_packages_of_the_wheel():
    """Nothing else of the package is data but what package-data names."""
    rooms = (ROOT / "btsrn_jax").rglob("__init__.py")
    found = {".".join(p.parent.relative_to(ROOT).parts) for p in rooms}
    settings = PYPROJECT["tool"]["setuptools"]
    assert found | {"btsrn_jax.configs"} == set(settings["packages"])
    package = ROOT / "btsrn_jax"
    patterns = settings["package-data"]["btsrn_jax"]
    data = {p for pattern in patterns for p in package.glob(pattern)}
    others = {p for p in package.rglob("*") if p.is_file() and p.suffix != ".py"}
    assert {p for p in others if "__pycache__" not in p.parts} == data


def test_the_sdist_holds_the_tests_and_what_the_readme_speaks_of(built):
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "LICENSE", "configs/x4.py"} <= names
    for folder in ("docs", "launch", "tests"):
        files = {
            p for p in (ROOT / folder).rglob("*.*") if "__pycache__" not in p.parts
        }
        assert {p.relative_to(ROOT).as_posix() for p in files} <= names


def test_the_wheel_enlarges_a_picture_without_the_repository(built, tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    code = "import btsrn_jax; print(btsrn_jax.__file__)"
    where = python("-c", code, cwd=tmp_path, path=built[2])
    assert where.stdout.startswith(str(built[2]))
    command = ["-m", "btsrn_jax.cli", "upscale", "photo.png", "out.png", "--scale=2"]
    done = python(*command, cwd=tmp_path, path=built[2])
    assert done.returncode == 0, done.stderr
    # The command names the weights that it used; `btsrn models`, how good they are.
    assert "btsrn-x2: enlarging by 2 on the CPU by " in done.stderr
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (24, 18)


def test_the_wheel_lists_its_models_and_finds_its_configs(built, tmp_path):
    listed = python("-m", "btsrn_jax.cli", "models", cwd=tmp_path, path=built[2])
    assert "btsrn-x2  x2  31.00 dB on Kodak24" in listed.stdout
    command = ["-m", "btsrn_jax.main", "--config", "configs/x4.py:unknown"]
    done = python(*command, cwd=tmp_path, path=built[2])
    assert done.returncode == 2
    # The config was found: DIV2K is what is missing.
    assert "btsrn prepare div2k/unknown_x4" in done.stderr, done.stderr


def test_help_takes_less_than_a_second_of_cpu_and_no_jax(tmp_path):
    code = """
import sys
from btsrn_jax import cli

try:
    cli.main(["--help"])
except SystemExit as exit:
    heavy = {"jax", "numpy", "flax", "orbax", "tensorflow_datasets"} & set(sys.modules)
    sys.exit(f"{exit.code} {sorted(heavy)}")
"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = python("-c", code, cwd=tmp_path, path=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stderr.strip() == "0 []"
    for name in ("upscale", "evaluate", "export", "models"):
        assert name in done.stdout
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used < 1


def test_the_version_stands_in_one_place(built):
    assert PROJECT["dynamic"] == ["version"]
    assert built[0].name.startswith(f"btsrn_jax-{btsrn_jax.__version__}-")


def test_the_extras_are_there():
    assert {"cuda", "tpu", "onnx", "test"} <= PROJECT["optional-dependencies"].keys()
