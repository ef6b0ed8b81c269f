"""Claims of the NCNN files: the layers that Upscayl and realesrgan-ncnn-vulkan have,
and, cut into tiles as those do it, our own picture."""

import functools
import itertools
import sys

import jax
import numpy as np
import pytest
from helpers import runs

from btsrn_jax import inference, mesh
from btsrn_jax.errors import InputError
from btsrn_jax.export import formats, ncnn, ncnn_graph, write
from btsrn_jax.network import build

# Of the layers that the two programs build NCNN with (src/CMakeLists.txt), those that
# are used here. `Input` and `Split` are in both.
REALESRGAN = {
    "BinaryOp",
    "Concat",
    "Convolution",
    "Crop",
    "Input",
    "Interp",
    "PixelShuffle",
    "ReLU",
    "Split",
}
UPSCAYL = REALESRGAN | {"Sigmoid"}
PREPADDING = 10  # of both programs

# A name, the scale, and what differs from the tiny network.
VARIANTS = {
    "x2": (2, {}),
    "leaky-x3": (3, {"activation": "leaky_relu"}),
    "mid-x4": (4, {"mid_blocks": 1}),
    "pixelcnn": (2, {"block": "pixelcnn", "norm": "batch"}),
    "gated": (2, {"block": "gated", "norm": "weight"}),
    "gated_pp": (4, {"block": "gated_pp", "norm": "batch"}),
    "no-blocks": (3, {"low_blocks": 0, "high_blocks": 0}),
    "halo-5": (2, {"low_blocks": 4, "high_blocks": 1, "features": 5}),
    "vdsr-x3": (3, {"name": "vdsr", "features": 8}),
}
every_variant = pytest.mark.parametrize("name", VARIANTS)
every_scale = pytest.mark.parametrize("scale", [2, 3, 4])
with_ncnn = functools.partial(pytest.importorskip, reason="the extra test has it")


@functools.cache
def network(name):
    """(the network of a variant, its variables)."""
    scale, fields = VARIANTS[name]
    _, model = runs.build(scale, **fields)
    variables = runs.noise(model)
    if name.startswith("vdsr"):  # twenty layers of such noise would fade
        variables = jax.tree.map(lambda array: 1.1 * array, variables)
    return model, variables


def layers(text):
    """[(kind, name, inputs, outputs, {number: value})] of a .param file."""
    found = []
    for line in text.splitlines()[2:]:
        kind, name, ins, outs, *rest = line.split()
        ins, outs = int(ins), int(outs)
        inputs, outputs, pairs = rest[:ins], rest[ins : ins + outs], rest[ins + outs :]
        values = dict(pair.split("=") for pair in pairs)
        found.append((kind, name, inputs, outputs, values))
    return found


def written(folder, text, weights):
    (folder / "net-x2.param").write_text(text)
    (folder / "net-x2.bin").write_bytes(weights)
    return folder / "net-x2.param"


@every_variant
def test_every_variant_is_the_same_network_in_ncnn(name, tmp_path):
    with_ncnn("ncnn")
    model, variables = network(name)
    images = [runs.draw(size) for size in [(2, 6, 9), (1, 1, 2)]]  # the halo: 2 to 9
    truth = [formats.reference(model)(variables, lr) for lr in images]
    for half, limit in ((False, 1e-5), (True, 1 / 255)):
        net = written(tmp_path, *ncnn.build_ncnn(model, variables, half))
        run, by = ncnn_graph.run_ncnn(net)
        assert by.startswith("ncnn ")
        for lr, sr in zip(images, truth, strict=True):
            found = run(lr)
            assert found.shape == sr.shape
            np.testing.assert_allclose(found, sr, atol=limit)
            assert 0 <= found.min() < found.max() <= 1


@every_variant
def test_the_text_has_the_right_counts_and_each_blob_once(name):
    text, _ = ncnn.build_ncnn(*network(name))
    lines, found = text.splitlines(), layers(text)
    assert lines[0] == "7767517"
    given = [blob for *_, outputs, _ in found for blob in outputs]
    read = [blob for _, _, inputs, _, _ in found for blob in inputs]
    assert lines[1].split() == [str(len(lines) - 2), str(len(given))]
    assert len(set(given)) == len(given)
    assert len({layer[1] for layer in found}) == len(found)
    assert sorted(read) == sorted(set(given) - {"output"})  # once each
    known = set()
    for _, _, inputs, outputs, _ in found:  # and after it was given
        assert known.issuperset(inputs)
        known.update(outputs)
    assert found[0][:4] == ("Input", "data", [], ["data"])
    assert found[-1][3] == ["output"]


@every_variant
def test_only_layers_that_the_programs_have_are_used(name):
    used = {layer[0] for layer in layers(ncnn.build_ncnn(*network(name))[0])}
    assert used <= (UPSCAYL if name.startswith("gated") else REALESRGAN)


# By kind, the numbers of the parameters that are floats.
FLOATS = {"BinaryOp": {"2"}, "Interp": {"1", "2"}, "ReLU": {"0"}}


@every_variant
def test_floats_are_written_as_floats(name):
    """NCNN of 2022, as in both programs, takes the bits of `1=2` for a float's."""
    for kind, _, _, _, values in layers(ncnn.build_ncnn(*network(name))[0]):
        for number, value in values.items():
            assert ("." in value) == (number in FLOATS.get(kind, ()))


@every_variant
@pytest.mark.parametrize("half", [False, True])
def test_the_weights_are_a_tag_a_kernel_and_biases_for_each_convolution(name, half):
    text, weights = ncnn.build_ncnn(*network(name), half)
    at, halves = 0, []
    for kind, layer, _, _, values in layers(text):
        if kind == "Convolution":
            tag = int.from_bytes(weights[at : at + 4], "little")
            assert tag in ((0, 0x01306B47) if half else (0,))
            kernel = int(values["6"]) * (2 if tag else 4)
            assert kernel % 4 == 0  # nothing is filled up
            at += 4 + kernel + 4 * int(values["0"])
            halves += [layer] if tag else []
    assert at == len(weights)
    assert "bicubic" not in halves
    assert bool(halves) == half


def test_chainner_finds_the_scale():
    """Its rule (impl/ncnn/model.py): the product of all PixelShuffles, and of each
    Interp that no BinaryOp follows."""
    for name in VARIANTS:
        found, scale = layers(ncnn.build_ncnn(*network(name))[0]), 1
        for layer, after in itertools.pairwise(found):
            scale *= int(layer[4]["0"]) if layer[0] == "PixelShuffle" else 1
            assert layer[0] != "Interp" or after[0] == "BinaryOp"
        assert scale == network(name)[0].scale


def as_the_programs_do(run, picture, scale, tile):
    """Enlarges (h, w, 3) uint8 tile by tile, by the rules of realesrgan.cpp and its
    shaders: tiles of `tile` pixels with PREPADDING more on each side, where the picture
    ends mirrored without the edge itself; rounded half up; the rest cut off."""
    h, w = picture.shape[:2]
    out = np.zeros((scale * h, scale * w, 3), np.uint8)

    def places(start, end, size):
        at = np.abs(np.arange(start - PREPADDING, min(end, size) + PREPADDING))
        return (size - 1) - np.abs(at - (size - 1))

    for y in range(0, h, tile):
        for x in range(0, w, tile):
            rows, columns = places(y, y + tile, h), places(x, x + tile, w)
            data = picture[rows][:, columns].astype(np.float32) / 255
            sr = run(data[None])[0]
            assert sr.shape == (scale * len(rows), scale * len(columns), 3)
            cut = scale * PREPADDING
            core = np.floor(sr[cut:-cut, cut:-cut] * 255 + 0.5).clip(0, 255)
            out[scale * y :, scale * x :][: core.shape[0], : core.shape[1]] = core
    return out


@functools.cache
def photo():
    """(h, w, 3) uint8 of odd sides, a crop with texture."""
    from skimage import data

    return np.ascontiguousarray(data.astronaut()[140:177, 200:245])


def grey_levels(a, b):
    return np.abs(a.astype(int) - b.astype(int))


@every_scale
def test_tiles_of_those_programs_make_our_picture_without_a_seam(scale, tmp_path):
    with_ncnn("ncnn")
    found = inference.load_weights(f"btsrn-x{scale}")
    config = found.config | {"eval": {"tile": 48}}  # on one device: so it is cheap
    upscaler = inference.tiled_upscaler(
        config, mesh.make_mesh(jax.devices()[:1]), False
    )
    model = functools.partial(upscaler, found.variables)
    ours = model(photo())
    border = ((PREPADDING, PREPADDING), (PREPADDING, PREPADDING), (0, 0))
    mirrored = model(np.pad(photo(), border, mode="reflect"))
    core = np.s_[scale * PREPADDING : -scale * PREPADDING]
    inside = np.s_[scale * upscaler.model.halo : -scale * upscaler.model.halo]
    net = build(found.config["model"], scale)
    for half in (False, True):
        files = ncnn.build_ncnn(net, found.variables, half)
        run, _ = ncnn_graph.run_ncnn(written(tmp_path, *files))
        sr = as_the_programs_do(run, photo(), scale, 32)
        assert grey_levels(sr, ours)[inside, inside].max() <= 1
        # At the picture's edge they mirror otherwise: what we make of that is the same.
        assert grey_levels(sr, mirrored[core, core]).max() <= 1
        # A whole picture, as chaiNNer hands it over, is ours at the edge, too.
        whole = run(photo()[None].astype(np.float32) / 255)[0]
        assert grey_levels(np.floor(whole * 255 + 0.5), ours).max() <= 1


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a tiny network at x2."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    runs.make(folder)
    return str(folder)


def test_an_export_of_ncnn_is_a_folder_that_upscayl_takes(run, tmp_path):
    with_ncnn("ncnn")
    said, out = [], tmp_path / "my-x2"
    about = write.export_model(run, out, ["ncnn"], half=True, log=said.append)
    names = ["my-x2.bin", "my-x2.param"]
    assert sorted(p.name for p in (out / "models").iterdir()) == names
    entry = about["parity"]["models"]
    assert entry["by"].startswith("ncnn ")
    assert entry["weights"] == "float16"
    assert len(entry["largest_difference"]) == 3
    card = (out / "README.md").read_text()
    assert "`models` (NCNN" in card
    assert '"ncnn"' in card.split("---")[1]
    # The same again is the same; a model that somebody put beside it is kept.
    first = (out / "models/my-x2.bin").read_bytes()
    write.export_model(run, out, ["ncnn"], force=True, half=True, log=str)
    assert (out / "models/my-x2.bin").read_bytes() == first
    (out / "models/other-4x.param").write_text("dear to me")
    with pytest.raises(InputError, match=r"it holds models/other-4x.param"):
        write.export_model(run, out, ["ncnn"], force=True, log=str)
    assert (out / "models/other-4x.param").read_text() == "dear to me"


def test_without_ncnn_the_files_are_written_and_it_is_said(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ncnn", None)  # as if it were not installed
    said, out = [], tmp_path / "out"
    about = write.export_model(run, out, ["ncnn"], log=said.append)
    assert about["parity"]["models"]["largest_difference"] == {}
    assert any("models" in line and "not run: ncnn is not" in line for line in said)
    assert sorted(p.name for p in (out / "models").iterdir()) == [
        "btsrn-x2.bin",
        "btsrn-x2.param",
    ]
    assert "not run: ncnn is not installed" in (out / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("btsrn-x2", "btsrn-x2"),
        ("2x_Photo.v1", "2x_Photo.v1"),
        ("best", "btsrn-x2"),  # says no scale
        ("x4-for-x2", "btsrn-x2"),  # says two
        ("512x384-x2", "btsrn-x2"),
        ("photo-X2", "btsrn-x2"),  # realesrgan-ncnn-vulkan minds the case
        ("my photos x2", "btsrn-x2"),
        ("-x2", "btsrn-x2"),
        (100 * "a" + "x2", "btsrn-x2"),
    ],
)
def test_the_files_name_says_the_scale(name, stem):
    assert ncnn.file_stem(name, "btsrn", 2) == stem


def test_what_has_no_form_is_one_line():
    model, variables = network("x2")
    for field, value in (("block", "attention"), ("norm", "group")):
        with pytest.raises(InputError, match=f"^no NCNN form of {field} {value}$"):
            ncnn.build_ncnn(model.clone(**{field: value}), variables)
    params = jax.tree.map(lambda array: 1e7 * array, variables)
    with pytest.raises(InputError, match=r"^in: a weight is too large for float16"):
        ncnn.build_ncnn(model, params, half=True)
