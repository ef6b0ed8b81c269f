"""docs/extending.md says how a block, a loss, a data set and a tracker are added: a
copy of the package is changed as it says, trained and exported."""

import http.server
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from helpers import processes, tiny

PAGE = tiny.ROOT / "docs" / "extending.md"
SECTIONS = dict(
    re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S)
)


def diffs(section):
    return re.findall(r"^```diff\n(.*?)^```", SECTIONS[section], re.M | re.S)


def apply(diff, root):
    """Replaces the lines of each hunk, which stand once in the file that it names."""
    for file in re.split(r"^--- ", diff, flags=re.M)[1:]:
        name, _, hunks = file.partition("\n")
        path = root / name
        for hunk in re.split(r"^@@\n", hunks, flags=re.M):
            old, new = (
                "".join(f"{x[1:]}\n" for x in hunk.splitlines() if x[0] in f" {sign}")
                for sign in "-+"
            )
            text = path.read_text()
            assert text.count(old) == 1, (name, old)
            path.write_text(text.replace(old, new))


def run(root, *args, code=0):
    """Runs a command with the changed package, and returns what it said."""
    env = {**os.environ, "PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-m", *args], cwd=root, env=env, text=True, capture_output=True
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


HEARD = []


class Posts(http.server.BaseHTTPRequestHandler):
    """Keeps the JSON that it is sent."""

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        HEARD.append(json.loads(self.rfile.read(length)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def copy(tmp_path):
    """A folder with the package and its configs, to be changed."""
    for name in ("btsrn_jax", "configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(tiny.ROOT / name, tmp_path / name, ignore=ignored)
    return tmp_path


@pytest.mark.parametrize("section", ["A block", "A loss", "A data set", "A tracker"])
def test_each_change_is_of_about_ten_lines(section):
    lines = [x for x in "".join(diffs(section)).splitlines() if x[0] in "+-"]
    assert 0 < len([x for x in lines if not x.startswith("--- ")]) <= 12


def test_what_the_page_adds_trains_and_is_exported(copy, monkeypatch):
    for section in SECTIONS:
        for diff in diffs(section):
            apply(diff, copy)
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 44, 3), np.uint8)
    np.save(copy / "images.npy", images)
    command = tiny.command(copy / "run", copy / "images.npy", steps=2, log_every=1)
    added = re.findall(r"--config\.[\w.]+=[\w.]+", PAGE.read_text())
    assert len(added) == 5, added
    replaced = tuple(flag.partition("=")[0] + "=" for flag in added)
    command = [word for word in command if not word.startswith(replaced)]
    with processes.serving(http.server.HTTPServer(("localhost", 0), Posts)) as port:
        monkeypatch.setenv("METRICS_URL", f"http://localhost:{port}")
        said = run(copy, *command[2:], *added)
    assert "data: 3 images" in said
    logged = processes.lines(copy / "run")
    # The last line of a session is where its time went.
    heard, written = (
        [(line["step"], line["loss"]) for line in lines if "loss" in line]
        for lines in (HEARD, logged)
    )
    assert heard == written
    assert len(heard) == 2
    saved = json.loads((copy / "run" / "config.json").read_text())
    assert saved["model"]["block"] == "simple_gate"
    assert (saved["train"]["loss"], saved["data"]["source"]) == ("huber", "array")
    said = run(copy, "btsrn_jax.cli", "export", "run", "made")
    parity = json.loads((copy / "made" / "config.json").read_text())["parity"]
    assert {"model.onnx", "model.safetensors", "model.stablehlo"} <= set(parity), said
    found = [file["largest_difference"] for file in parity.values()]
    assert max(x for sizes in found for x in sizes.values()) < 1e-5
    assert "simple_gate" in run(copy, "btsrn_jax.main", "--help")


def test_a_block_without_its_onnx_form_is_exported_without_it(copy):
    """Which the page says; and a change whose second half is forgotten is refused."""
    first = diffs("A block")[0]
    half = first[: first.index("--- btsrn_jax/network/btsrn.py")]
    apply(half, copy)
    command = tiny.command(copy / "run", tiny.write_photos(copy / "photos"), steps=1)
    block = "--config.model.block=simple_gate"
    assert "network/btsrn.py lacks it" in run(copy, *command[2:], block, code=2)
    apply(first.removeprefix(half), copy)
    run(copy, *command[2:], block)
    said = run(copy, "btsrn_jax.cli", "export", "run", "made")
    assert "no ONNX form of block simple_gate" in said
    assert not pathlib.Path(copy / "made" / "model.onnx").exists()
