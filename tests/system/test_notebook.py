"""The notebook runs as a user runs it, from the installation on."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from helpers import tiny

NOTEBOOK = tiny.ROOT / "docs" / "quickstart.ipynb"
# As `jupyter execute`, whose own process would let warnings of its libraries through.
RUN = """
import sys
import nbclient, nbformat
notebook = nbformat.read(sys.argv[1], 4)
nbclient.NotebookClient(notebook, timeout=300).execute()
nbformat.write(notebook, sys.argv[1])
"""


def said(cell):
    """The text that a cell has printed and shown."""
    shown = [output.get("data", {}).get("text/markdown") for output in cell["outputs"]]
    printed = [output.get("text") for output in cell["outputs"]]
    return "".join("".join(text) for text in printed + shown if text)


def shown_images(cell):
    return sum("image/png" in output.get("data", {}) for output in cell["outputs"])


def test_the_notebook_installs_enlarges_trains_and_shows(tmp_path):
    """What is installed is this checkout, into a folder of its own; the training is
    shorter."""
    pytest.importorskip("nbclient", reason="the extra [test] is not installed")
    source, site = tmp_path / "source", tmp_path / "site"
    for name in ("btsrn_jax", "configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(tiny.ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(tiny.ROOT / name, source)
    notebook = json.loads(NOTEBOOK.read_text())
    cells = notebook["cells"]
    assert not any(cell.get("outputs") for cell in cells)
    (parameters,) = (c for c in cells if "parameters" in c["metadata"].get("tags", ()))
    parameters["source"] = [f"SOURCE = {str(source)!r}\n", "STEPS = 51"]
    path = tmp_path / "quickstart.ipynb"
    path.write_text(json.dumps(notebook))
    site.mkdir()
    environment = {
        "PIP_TARGET": str(site),
        "PIP_NO_DEPS": "1",
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # so pip reads "no isolation"
        "PYTHONPATH": str(site),
        "PATH": f"{site / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "XLA_FLAGS": "",  # one device, as on a user's computer
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN, path],
        cwd=tmp_path,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    assert (site / "btsrn_jax" / "pretrained" / "btsrn-x2").is_dir()
    cells = json.loads(path.read_text())["cells"]
    cells = [cell for cell in cells if cell["cell_type"] == "code"]
    _, _, enlarged, command, trained, shown = cells
    assert shown_images(enlarged) == shown_images(shown) == shown_images(command) == 1
    assert "large.png: 600 x 400" in said(command)
    assert "step 51" in said(trained), said(trained)
    assert (tmp_path / "runs/notebook/validation.csv").exists()
    for name in ("bicubic", "btsrn-x2", "after a minute"):
        assert f"| {name} | " in said(shown)
