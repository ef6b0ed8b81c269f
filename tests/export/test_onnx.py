"""Claims of the ONNX files: plain operators, sizes that can be inferred, and the same
pictures in every runtime that is here."""

import functools
import json
import os
import pathlib

import jax
import numpy as np
import pytest
from helpers import runs

from btsrn_jax import cli, images, metrics, resize
from btsrn_jax.evaluation import figures
from btsrn_jax.export import write as export
from btsrn_jax.export.formats import reference
from btsrn_jax.inference import weights
from btsrn_jax.network import onnx_graph

onnx = pytest.importorskip("onnx", reason="the extra test has it")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra test has it")
openvino = pytest.importorskip("openvino", reason="the extra test has it")

PLAIN = {"Add", "Clip", "Concat", "Conv", "DepthToSpace", "Slice"}
# A name, the scale, what differs from the tiny network, and operators beside PLAIN.
VARIANTS = {
    "x2": (2, {}, {"Relu"}),
    "leaky-x3": (3, {"activation": "leaky_relu"}, {"LeakyRelu"}),
    "mid-x4": (4, {"mid_blocks": 1}, {"Relu"}),
    "pixelcnn": (
        2,
        {"block": "pixelcnn", "norm": "batch"},
        {"Relu", "Mul"},
    ),
    "gated": (
        2,
        {"block": "gated", "norm": "weight"},
        {"Relu", "Split", "Tanh", "Sigmoid", "Mul"},
    ),
    "gated_pp": (2, {"block": "gated_pp"}, {"Relu", "Split", "Sigmoid", "Mul"}),
    "no-blocks": (3, {"low_blocks": 0, "high_blocks": 0}, {"Relu"}),
    "halo-5": (2, {"low_blocks": 4, "high_blocks": 1}, {"Relu"}),
    "vdsr-x3": (3, {"name": "vdsr", "features": 8}, {"Relu"}),
}
every_variant = pytest.mark.parametrize("name", VARIANTS)


@functools.cache
def network(name):
    """(the network of a variant, its variables)."""
    scale, fields, _ = VARIANTS[name]
    _, model = runs.build(scale, **fields)
    variables = runs.noise(model)
    if name.startswith("vdsr"):  # twenty layers of such noise would fade
        variables = jax.tree.map(lambda array: 3 * array, variables)
    return model, variables


@functools.cache
def graph(name, tile=False, half=False):
    return onnx_graph.build_onnx(*network(name), {}, tile=tile, half=half)


def in_onnxruntime(proto):
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    return lambda lr: session.run(None, {"lr": lr})[0]


def in_openvino(proto):
    core = openvino.Core()
    model = core.read_model(proto.SerializeToString())
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(model, "CPU", exact)
    return lambda lr: compiled([lr])[0]


def in_the_reference(proto):
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(proto)
    return lambda lr: evaluator.run(None, {"lr": lr})[0]


EVERY_RUNTIME = [in_onnxruntime, in_openvino, in_the_reference]
FAST_RUNTIMES = [in_onnxruntime, in_openvino]


def draw(*size):
    """(n, 3, h, w) float32 in [0, 1]."""
    return runs.draw(size).transpose(0, 3, 1, 2)


def pad(lr, halo):
    border = ((0, 0), (0, 0), (halo, halo), (halo, halo))
    return np.pad(lr, border, mode="symmetric")


@every_variant
def test_every_variant_is_the_same_network_in_every_runtime(name):
    model, variables = network(name)
    lr = draw(1, 5, 3)
    truth = reference(model)(variables, lr.transpose(0, 2, 3, 1))
    bicubic = resize.imresize(lr[0].transpose(1, 2, 0).astype(np.float64), model.scale)
    assert np.abs(truth[0] - bicubic).max() > 0.01  # the network has a say
    for tile in (False, True):
        for runtime in EVERY_RUNTIME:
            sr = runtime(graph(name, tile))(pad(lr, model.halo) if tile else lr)
            assert sr.dtype == np.float32
            np.testing.assert_allclose(sr.transpose(0, 2, 3, 1), truth, atol=5e-6)


@pytest.mark.parametrize("name", ["halo-5", "vdsr-x3"])
def test_pictures_of_every_size_from_one_pixel_up_are_padded_right(name):
    model, _ = network(name)
    sides = range(1, model.halo + 2) if name == "halo-5" else (1, 2, model.halo)
    tile = in_onnxruntime(graph(name, tile=True))
    for runtime in FAST_RUNTIMES:
        whole = runtime(graph(name))
        for h in sides:
            for w in sides:
                lr = draw(2, h, w)
                sr = whole(lr)
                assert sr.shape == (2, 3, model.scale * h, model.scale * w)
                truth = tile(pad(lr, model.halo))
                np.testing.assert_allclose(sr, truth, atol=5e-6)


@pytest.mark.parametrize("name", ["x2", "leaky-x3", "no-blocks", "vdsr-x3"])
def test_tiles_without_a_core_are_refused_or_empty(name):
    """Slices beyond the edge give less without a word; nothing of a wrong size may come
    of it."""
    halo, scale = network(name)[0].halo, network(name)[0].scale
    for runtime in FAST_RUNTIMES:
        run = runtime(graph(name, tile=True))
        sr = run(draw(1, 2 * halo + 1, 2 * halo + 2))
        assert sr.shape == (1, 3, scale, 2 * scale)
        for side in range(1, 2 * halo + 1):
            for size in ((side, 2 * halo + 1), (2 * halo + 1, side)):
                try:
                    sr = run(draw(1, *size))
                except Exception:  # each runtime has its own
                    continue
                assert sr.size == 0


@every_variant
@pytest.mark.parametrize("half", [False, True])
def test_shape_inference_finds_the_scale(name, half):
    """As chaiNNer does it, with the size of the input alone written into the file."""
    model, _ = network(name)
    for tile in (False, True):
        for height, width in ((24, 32), (16, 16), (1, 512)):
            proto = onnx.ModelProto()
            proto.CopyFrom(graph(name, tile, half))
            dims = proto.graph.input[0].type.tensor_type.shape.dim
            more = 2 * model.halo * tile
            for dim, size in zip(
                dims, (1, 3, height + more, width + more), strict=True
            ):
                dim.dim_value = size
            found = onnx.shape_inference.infer_shapes(proto, strict_mode=True)
            sides = found.graph.output[0].type.tensor_type.shape.dim
            sizes = [dim.dim_value for dim in sides]
            assert sizes == [1, 3, model.scale * height, model.scale * width]


@every_variant
@pytest.mark.parametrize("half", [False, True])
def test_the_operators_are_plain_ones_of_an_old_set(name, half):
    for tile in (False, True):
        proto = graph(name, tile, half)
        assert {node.domain for node in proto.graph.node} == {""}
        assert [(o.domain, o.version) for o in proto.opset_import] == [("", 13)]
        found = {node.op_type for node in proto.graph.node}
        wanted = PLAIN | VARIANTS[name][2] | ({"Cast"} if half else set())
        if name.startswith("vdsr") and tile:
            wanted -= {"Concat"}
        assert found == wanted
        # Sizes and places are constants: TensorRT and MIGraphX want them so.
        constants = {array.name for array in proto.graph.initializer}
        for node in proto.graph.node:
            if node.op_type == "Slice":
                assert set(node.input[1:]) <= constants


@pytest.mark.parametrize("name", ["mid-x4", "gated", "vdsr-x3"])
def test_half_stores_every_kernel_as_float16_and_computes_in_float32(name):
    proto = graph(name, half=True)
    kept = {array.name: array for array in proto.graph.initializer}
    kernels = {key for key in kept if "kernel" in key}
    float16 = onnx.TensorProto.FLOAT16
    assert {key for key in kept if kept[key].data_type == float16} == kernels
    assert len(kernels) >= 9
    # The same picture as by a float32 file with rounded kernels.
    rounded = onnx.ModelProto()
    rounded.CopyFrom(graph(name))
    for array in rounded.graph.initializer:
        if array.name in kernels:
            values = onnx.numpy_helper.to_array(array)
            values = values.astype(np.float16).astype(np.float32)
            array.CopyFrom(onnx.numpy_helper.from_array(values, array.name))
    lr = draw(1, 7, 6)
    truth = in_onnxruntime(rounded)(lr)
    assert not np.array_equal(truth, in_onnxruntime(graph(name))(lr))
    for runtime in EVERY_RUNTIME:
        np.testing.assert_allclose(runtime(proto)(lr), truth, atol=5e-6)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The ONNX files of a released model with float16 weights; its directory."""
    out = tmp_path_factory.mktemp("exports") / "small"
    with pytest.raises(SystemExit) as exit:
        cli.main(["export", "btsrn-x4", str(out), "--formats=onnx", "--half"])
    assert exit.value.code == 0
    return out


def test_half_is_half_the_size_and_said_beside_the_files(exported):
    about = json.loads((exported / "config.json").read_text())
    whole = weights.load_weights("btsrn-x4").folder / "model.safetensors"
    for file in ("model.onnx", "model-tile.onnx"):
        assert (exported / file).stat().st_size < 0.52 * whole.stat().st_size
        assert about["parity"][file]["weights"] == "float16"
        found = about["parity"][file]["largest_difference"].values()
        assert 1e-5 < max(found) < 1 / 255
        properties = onnx.load(exported / file).metadata_props
        padding = "none" if "tile" in file else "symmetric"
        assert {p.key: p.value for p in properties} == {
            "name": "small",
            "scale": "4",
            "overlap": "7",
            "padding": padding,
        }
    card = (exported / "README.md").read_text()
    assert card.count("weights stored as float16") == 2
    assert about["export_command"].endswith(" --half")


@pytest.mark.parametrize("image", ["butterfly"])
def test_half_loses_less_than_a_hundredth_of_a_decibel(exported, image):
    if "BTSRN_DATA" not in os.environ:
        pytest.skip("BTSRN_DATA names no folder of benchmark images")
    folder = pathlib.Path(os.environ["BTSRN_DATA"]) / "bench" / "Set5"
    hr = images.read_image(folder / f"{image}.png")
    released = weights.load_weights("btsrn-x4").folder / "figures.csv"
    (known,) = [
        row.psnr
        for row in figures.read_csv(released)
        if (row.set, row.image, row.protocol, row.ensemble, row.model)
        == ("Set5", image, "modern", 0, "btsrn-x4")
    ]
    hr = hr[: hr.shape[0] // 4 * 4, : hr.shape[1] // 4 * 4]
    lr = resize.imresize(hr, 1 / 4)
    lr = lr.astype(np.float32).transpose(2, 0, 1)[None] / 255
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    sr = session.run(None, {"lr": lr})[0][0].transpose(1, 2, 0)
    sr = np.round(255 * sr).astype(np.uint8)
    assert metrics.psnr(sr, hr, "modern", 4) == pytest.approx(known, abs=0.01)


def test_onnxruntime_has_nothing_to_warn_of(exported, capfd):
    for name in ("x2", "gated"):
        in_onnxruntime(graph(name))(draw(1, 4, 4))
    for file in ("model.onnx", "model-tile.onnx"):
        in_onnxruntime(onnx.load(exported / file))(draw(1, 15, 15))
    assert capfd.readouterr().err == ""


def test_equal_parameters_give_equal_onnx_files():
    first, second = (onnx_graph.build_onnx(*network("x2"), {}) for _ in range(2))
    assert first.SerializeToString() == second.SerializeToString()


@pytest.mark.parametrize("chosen", ["safetensors", "stablehlo,orbax"])
def test_half_without_a_format_that_has_it_is_refused(tmp_path, capsys, chosen):
    formats = f"--formats={chosen}"
    with pytest.raises(SystemExit) as exit:
        cli.main(["export", "btsrn-x2", str(tmp_path / "a"), "--half", formats])
    assert exit.value.code == 2
    said = capsys.readouterr().err
    names = chosen.replace(",", ", ")
    assert (
        said
        == f"error: --half: of {names} none stores float16 weights; onnx, ncnn can\n"
    )
    assert not list(tmp_path.iterdir())


def test_weights_beyond_float16_fail_the_export(tmp_path):
    _, model = runs.build()
    variables = runs.noise(model)
    variables["params"]["in"]["kernel"][0, 0, 0, 0] = 1e5
    folder = tmp_path / "large"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(weights.weights_to_bytes(variables))
    config, _ = runs.build()
    config = {"scale": 2, "model": config["model"]}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(export.ParityError, match=r"model\.onnx differs .* by inf"):
        export.export_model(str(folder), tmp_path / "out", ["onnx"], half=True, log=str)
    assert [p.name for p in tmp_path.iterdir()] == ["large"]
