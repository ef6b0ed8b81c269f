"""Claims of the export that need a process of its own."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from helpers import processes, runs

from btsrn_jax.export import write as export


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run exported as StableHLO and safetensors, and its variables."""
    folder = tmp_path_factory.mktemp("exports")
    averaged = runs.make(folder / "run")
    formats = ["safetensors", "stablehlo"]
    export.export_model(str(folder / "run"), folder / "tiny", formats, log=str)
    return folder / "tiny", averaged[10]


def test_the_exported_stablehlo_runs_where_neither_this_package_nor_flax_is(
    exported, tmp_path
):
    images = {str(i): runs.draw(size) for i, size in enumerate(runs.SIZES)}
    np.savez(tmp_path / "lr.npz", **images)
    code = """
import sys
import numpy as np
from jax import export

with open(sys.argv[1], "rb") as file:
    model = export.deserialize(file.read())
with np.load(sys.argv[2]) as images:
    np.savez(sys.argv[3], **{name: model.call(images[name]) for name in images})
print(model.platforms, [m for m in ("btsrn_jax", "flax") if m in sys.modules])
"""
    args = [exported[0] / "model.stablehlo", tmp_path / "lr.npz", tmp_path / "sr.npz"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *args],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "('cpu', 'cuda', 'tpu') []"
    with np.load(tmp_path / "sr.npz") as sr:
        for name, lr in images.items():
            assert sr[name].dtype == np.float32
            truth = runs.expected(exported[1]["params"], lr)
            np.testing.assert_allclose(sr[name], truth, atol=2e-6)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing_of_an_export(exported, tmp_path, number):
    """A real process, stopped when its first file is there."""
    command = [sys.executable, "-m", "btsrn_jax.cli", "export", str(exported[0])]
    process = subprocess.Popen(
        [*command, str(tmp_path / "out")], stderr=subprocess.PIPE, text=True
    )
    try:
        written = ".out-*/new/model.safetensors"
        processes.until(process, lambda: list(tmp_path.glob(written)))
        process.send_signal(number)
        said = process.communicate(timeout=120)[1]
    finally:
        process.kill()
    assert process.returncode == 1
    assert said == "interrupted\n"
    assert list(tmp_path.iterdir()) == []
