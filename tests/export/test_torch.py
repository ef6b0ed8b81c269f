"""Claims of the PyTorch form: held by NumPy from the file alone, and by PyTorch where
it is installed."""

import functools
import json
import sys

import jax
import numpy as np
import pytest
from helpers import runs, torch_reference
from safetensors.numpy import load_file

from btsrn_jax.errors import InputError
from btsrn_jax.export import formats, plan, torch_file
from btsrn_jax.export import write as export

FILE = plan.FILES["torch"]
VARIANTS = [
    (2, {}),
    (3, {"activation": "leaky_relu"}),
    (4, {"mid_blocks": 1}),
    (2, {"block": "pixelcnn", "norm": "batch"}),
    (3, {"block": "gated", "norm": "weight"}),
    (4, {"block": "gated_pp", "norm": "batch", "mid_blocks": 2}),
    (2, {"low_blocks": 0, "high_blocks": 0}),
]
IDS = [f"x{scale} {' '.join(map(str, fields.values()))}" for scale, fields in VARIANTS]


@functools.cache
def written(folder, number):
    """(the file of a variant, LR images, what the JAX network makes of them)."""
    scale, fields = VARIANTS[number]
    _, model = runs.build(scale, **fields)
    variables = runs.noise(model)
    path = folder / str(number) / FILE
    path.parent.mkdir()
    source = formats.Source(model, variables, {})
    torch_file.write_torch(source, path)
    images = [runs.draw(size) for size in [(2, 6, 5), (1, 1, 2)]]
    return path, images, [formats.reference(model)(variables, lr) for lr in images]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("torch")


@pytest.mark.parametrize("number", range(len(VARIANTS)), ids=IDS)
def test_the_file_alone_gives_the_network_in_numpy(folder, number):
    path, images, truth = written(folder, number)
    for lr, sr in zip(images, truth, strict=True):
        found = [torch_reference.upscale(path, image) for image in lr]
        np.testing.assert_allclose(found, sr, atol=1e-5)
        assert sr.std() > 0.05  # neither black nor white


@pytest.mark.parametrize("number", range(len(VARIANTS)), ids=IDS)
def test_the_two_files_give_the_network_in_pytorch(folder, number):
    pytest.importorskip("torch", reason="the extra [peer] is not installed")
    path, images, truth = written(folder, number)
    run, by = torch_file.read_torch(None, path)
    assert by.startswith("PyTorch ")
    for lr, sr in zip(images, truth, strict=True):
        np.testing.assert_allclose(run(lr), sr, atol=1e-5)


def test_names_and_shapes_are_pytorchs(folder):
    arrays = load_file(written(folder, 0)[0])
    assert {name: x.shape for name, x in arrays.items() if ".1." not in name} == {
        "first.weight": (6, 3, 1, 1),
        "first.bias": (6,),
        "low.0.down.weight": (4, 6, 1, 1),
        "low.0.down.bias": (4,),
        "low.0.conv.weight": (6, 4, 3, 3),
        "low.0.conv.bias": (6,),
        "up.0.weight": (6, 6, 2, 2),
        "up.0.bias": (6,),
        "high.0.down.weight": (4, 6, 1, 1),
        "high.0.down.bias": (4,),
        "high.0.conv.weight": (6, 4, 3, 3),
        "high.0.conv.bias": (6,),
        "last.weight": (3, 6, 1, 1),
        "last.bias": (3,),
    }


def test_the_network_lies_beside_its_weights(folder):
    copy = written(folder, 0)[0].with_name("btsrn_torch.py")
    assert copy.read_bytes() == torch_file.NETWORK.read_bytes()


def test_spandrel_loads_the_file_once_the_network_is_registered(folder):
    pytest.importorskip("torch", reason="the extra [peer] is not installed")
    spandrel = pytest.importorskip("spandrel")
    path, (lr, _), (sr, _) = written(folder, 2)
    module = torch_file.torch_network(path.with_name("btsrn_torch.py"))
    module.register()
    module.register()
    found = spandrel.ModelLoader().load_from_file(path)
    assert (found.architecture.id, found.scale, found.purpose) == ("BTSRN", 4, "SR")
    with module.torch.inference_mode():
        x = module.torch.from_numpy(lr[:1].transpose(0, 3, 1, 2).copy())
        y = found(x).numpy()
    np.testing.assert_allclose(y.transpose(0, 2, 3, 1), sr[:1], atol=1e-5)


def test_vdsr_is_left_out_and_refused_where_it_is_asked_for(tmp_path, monkeypatch):
    few = {name: plan.FILES[name] for name in ("safetensors", "torch")}  # the fast ones
    for module in (plan, export):
        monkeypatch.setattr(module, "FILES", few)
    runs.make(tmp_path / "run", name="vdsr")
    said, source = [], str(tmp_path / "run")
    export.export_model(source, tmp_path / "all", log=said.append)
    assert any("model.pth.safetensors is left out: no PyTorch" in line for line in said)
    command = json.loads((tmp_path / "all" / "config.json").read_text())
    assert "torch" not in command["export_command"]
    assert not list((tmp_path / "all").glob("*torch*"))
    with pytest.raises(InputError, match="no PyTorch form of vdsr"):
        export.export_model(source, tmp_path / "a", ["torch"], log=str)
    assert not (tmp_path / "a").exists()
    _, model = runs.build(name="vdsr")
    with pytest.raises(InputError, match="no PyTorch form of vdsr"):
        torch_file.state_dict(model, runs.noise(model))


def test_without_torch_it_is_said_that_the_file_was_not_run(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    averaged = runs.make(tmp_path / "run")[10]
    said = []
    about = export.export_model(
        str(tmp_path / "run"), tmp_path / "out", ["torch"], log=said.append
    )
    reason = "not run: torch is not installed"
    assert any(reason in line for line in said)
    assert about["parity"][FILE]["by"] == reason
    assert reason in (tmp_path / "out" / "README.md").read_text()
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"README.md", "btsrn_torch.py", "config.json", FILE}
    assert about["sha256"].keys() == {"btsrn_torch.py", FILE}
    lr = runs.draw((1, 5, 4))
    found = torch_reference.upscale(tmp_path / "out" / FILE, lr[0])
    truth = runs.expected(averaged["params"], lr)[0]
    np.testing.assert_allclose(found, truth, atol=1e-5)
    where = str(tmp_path / "run"), tmp_path / "out"
    assert plan.plan_export(*where, force=True, log=str).out == tmp_path / "out"


def test_a_broken_torch_is_told_apart_and_names_no_path(folder, monkeypatch, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('of /home/me/torch.so')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    run, reason = torch_file.read_torch(None, written(folder, 0)[0])
    assert (run, reason) == (
        None,
        "not run: torch is installed, and cannot be imported",
    )


def test_equal_models_give_equal_bytes_and_no_path(folder, tmp_path):
    path, *_ = written(folder, 5)
    scale, fields = VARIANTS[5]
    _, model = runs.build(scale, **fields)
    variables = jax.tree.map(np.asarray, runs.noise(model))
    again = tmp_path / FILE
    torch_file.write_torch(formats.Source(model, variables, {}), again)
    assert again.read_bytes() == path.read_bytes()
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata = {"architecture": "BTSRN", "format": "pt", "scale": "4"}
    assert header["__metadata__"] == metadata
