"""The networks as NCNN nets, which Upscayl and realesrgan-ncnn-vulkan run on GPUs.

Those programs cut a picture into tiles with 10 more pixels on each side, feed these to
the blob `data`, read the blob `output`, and cut the enlarged 10 pixels off. They know
the scale from the files' name, or from the user.

So a net enlarges its whole input, whose edge it mirrors by the halo before it computes:
a whole picture becomes what the network makes of it, and a tile with at least the halo
around it a part of that.

realesrgan-ncnn-vulkan is built with few of NCNN's layers: Concat, Convolution, Crop,
BinaryOp, Interp, PixelShuffle, ReLU, Split and little else. These are enough for all
but the gated blocks; Upscayl has what those need.

A VALID convolution is one by zeros around here, and each stage is cropped by what the
zeros have spoilt. The bicubic skip goes through the same PixelShuffle as the features,
in channels of its own: chaiNNer takes the product of all of them for the scale.
"""

import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from btsrn_jax import network
from btsrn_jax.errors import InputError
from btsrn_jax.export.ncnn_graph import REST, Graph, run_ncnn

ADD, MULTIPLY, MINIMUM = 0, 2, 5  # kinds of BinaryOp
NEAREST = 1  # a kind of Interp
COLOURS = 4  # of the skip: the fourth is black, since GPUs take channels by fours

# The parts of a BTSRN that are written as layers below.
FORMS = {
    "block": ("pconv", "pixelcnn", "gated", "gated_pp"),
    "norm": ("none", "batch", "weight"),
    "activation": ("relu", "leaky_relu"),
}


def missing_ncnn_form(model: Any) -> str:
    """Returns "no NCNN form of block X" if a part of a network has none; "" if all
    have."""
    if isinstance(model, network.VDSR):
        return ""
    return network.missing_form(model, "NCNN", FORMS)


def build_ncnn(model: Any, variables: Mapping, half: bool = False) -> tuple[str, bytes]:
    """Returns a network as the contents of its two NCNN files, text and weights.

    The net takes the blob `data`, (3, h, w) float32 in [0, 1] with h and w from 1, and
    gives the blob `output`, (3, s h, s w) float32 in [0, 1].

    Args:
      model: as `network.build` returns it.
      variables: `params`, and `batch_stats` with batch normalisation.
      half: True to store the kernels of convolutions as float16, but for the skip's.

    Raises:
      InputError: if a part of the network has no NCNN form, or a weight is too large
        for float16.
    """
    missing = missing_ncnn_form(model)
    if missing:
        raise InputError(missing)
    graph = Graph(half)
    padded = _pad_symmetric(graph, graph.add("Input", "data"), model.halo)
    build = _vdsr if isinstance(model, network.VDSR) else _btsrn
    x, skip, kernel, bias, cropped = build(graph, model, variables, padded)
    # The last convolution adds the skip, too.
    kernel = np.concatenate([kernel, np.eye(3, COLOURS)[..., None, None]], axis=1)
    both = graph.add("Concat", "both", [x, skip])
    sr = graph.convolve(both, "out", kernel, bias)
    sr = graph.crop(sr, "sr", model.scale * model.halo - cropped)
    _scalar(graph, graph.add("ReLU", "not_below_0", [sr]), "output", MINIMUM, 1.0)
    return graph.files()


def _pad_symmetric(graph, x, border):
    """Adds SYMMETRIC padding, which NCNN's Padding does not know.

    It grows by one line of pixels at a time, so that the border may exceed the image.
    """
    for axis, line in ((1, "row"), (2, "column")):
        for i in range(border):
            # Line i of the image now lies at 2 i.
            first = graph.cut(x, f"{line}{i}_first", 2 * i, 2 * i + 1, axis)
            last = graph.cut(x, f"{line}{i}_last", -2 * i - 1, -2 * i or REST, axis)
            x = graph.add("Concat", f"{line}{i}", [first, x, last], {0: axis})
    return x


def _btsrn(graph, model, variables, padded):
    """Adds `btsrn.BTSRN` up to its last activation.

    Returns that blob, the one of the skip, kernel and bias of the last convolution, and
    how many HR pixels were cropped off each side.
    """
    params, stats = variables["params"], variables.get("batch_stats", {})

    def weights(path):
        layer = _at(params, path)
        kernel = network.folded_kernel(layer["kernel"], layer.get("length"))
        return kernel.transpose(3, 2, 0, 1), layer["bias"]

    def conv(x, path):
        return graph.convolve(x, path, *weights(path))

    def pre(x, path):
        if model.norm == "batch":
            x = _normalise(graph, x, f"{path}_norm", params, stats)
        slope = {0: 0.2} if model.activation == "leaky_relu" else {}
        return graph.add("ReLU", path, [x], slope)

    def stage(x, skip, name, count):
        for i in range(count):
            x = _block(graph, model, x, f"{name}{i}", pre, conv)
        x = graph.crop(x, f"{name}_inside", count)
        return x, graph.crop(skip, f"{name}_skip", count)

    x = conv(_scalar(graph, padded, "centred", ADD, -0.5), "in")
    skip = _bicubic_channels(graph, padded, model.scale)
    x, skip = stage(x, skip, "low", model.low_blocks)
    rest = model.scale
    for i, step in enumerate(network.upsamplings(model.scale)):
        if i:
            x, skip = stage(x, skip, "mid", model.mid_blocks)
        rest //= step
        both = graph.add("Concat", f"up{i}_in", [pre(x, f"pre_up{i}"), skip])
        both = _upsample(graph, both, f"up{i}", *weights(f"up{i}"), rest)
        y = graph.cut(both, f"up{i}_features", 0, model.features, 0)
        skip = graph.cut(both, f"up{i}_skip", model.features, REST, 0)
        # chaiNNer counts an Interp, too, unless a BinaryOp follows at once.
        factor = float(step)  # older NCNN takes a whole number's bits for a float's
        sizes = {0: NEAREST, 1: factor, 2: factor}
        near = graph.add("Interp", f"near{i}", [x], sizes)
        x = graph.add("BinaryOp", f"sum{i}", [near, y], {0: ADD})
    x, skip = stage(x, skip, "high", model.high_blocks)
    return pre(x, "pre_out"), skip, *weights("out"), model.valid_border


def _vdsr(graph, model, variables, padded):
    """Adds `vdsr.VDSR`, but for the spreading over three colours, which is the last
    convolution. Returns the same as `_btsrn`; nothing is cropped."""
    params, s = variables["params"], model.scale
    skip = _bicubic_channels(graph, padded, s)
    skip = _upsample(graph, skip, "skip", np.zeros((0, 0, s, s)), [], 1)
    weights = np.reshape([*network.LUMINANCE, 0], (1, COLOURS, 1, 1))
    x = graph.convolve(skip, "luminance", weights, [0], exact=True)
    x = _scalar(graph, x, "centred", ADD, -0.5)
    for i in range(model.layers):
        x = graph.add("ReLU", f"relu{i}", [x]) if i else x
        kernel = np.asarray(params[f"kernel{i}"]).transpose(3, 2, 0, 1)
        x = graph.convolve(x, f"conv{i}", kernel, params[f"bias{i}"])
    spread = np.full((3, 1, 1, 1), 1 / sum(network.LUMINANCE))
    return x, skip, spread, np.zeros(3), 0


def _scalar(graph, x, name, kind, value):
    """Adds a BinaryOp of a blob and a number."""
    return graph.add("BinaryOp", name, [x], {0: kind, 1: 1, 2: value})


def _tanh(graph, x, name):
    """Adds tanh(x) = 2 sigmoid(2 x) - 1, since Upscayl has no TanH."""
    x = _scalar(graph, x, f"{name}_in", MULTIPLY, 2.0)
    x = graph.add("Sigmoid", f"{name}_sigmoid", [x])
    return _scalar(
        graph, _scalar(graph, x, f"{name}_twice", MULTIPLY, 2.0), name, ADD, -1.0
    )


def _bicubic_channels(graph, x, scale):
    """Adds `ops.bicubic_skip`: the s x s pixels that lie on each pixel as channels, in
    the order (colour, row, column)."""
    weights = network.bicubic_weights(scale)
    one = np.einsum("ak,bl->abkl", weights, weights)
    kernel = np.einsum("cd,abkl->cabdkl", np.eye(COLOURS, 3), one)
    kernel = kernel.reshape(-1, *kernel.shape[3:])
    return graph.convolve(x, "bicubic", kernel, np.zeros(len(kernel)), exact=True)


def _upsample(graph, x, name, kernel, bias, rest):
    """Adds a transposed convolution of the features, which also puts the channels of
    the skip behind them in their places: a convolution by 1 x 1 and a PixelShuffle.

    Args:
      kernel: (out, in, step, step), of the features.
      bias: (out,).
      rest: the factor by which the skip is still to be enlarged afterwards.
    """
    outputs, inputs, step, _ = kernel.shape
    # Row a rest + i of those on a pixel becomes row i of those on its pixel a.
    colour, far, near = np.eye(COLOURS), np.eye(step), np.eye(rest)
    places = np.einsum("cd,ap,iq,br,js->cijdpqrsab", colour, far, near, far, near)
    places = places.reshape(COLOURS * rest**2, -1, step, step)
    whole = np.zeros((outputs + len(places), inputs + places.shape[1], step, step))
    whole[:outputs, :inputs], whole[outputs:, inputs:] = kernel, places
    whole = whole.transpose(0, 2, 3, 1).reshape(-1, whole.shape[1], 1, 1)
    bias = np.repeat([*np.asarray(bias), *np.zeros(len(places))], step * step)
    y = graph.convolve(x, f"{name}_channels", whole, bias)
    return graph.add("PixelShuffle", name, [y], {0: step})


def _block(graph, model, x, name, pre, conv):
    """Adds `btsrn.Block`, at the size of its input."""
    y = conv(pre(x, f"{name}/pre_down"), f"{name}/down")
    y = conv(pre(y, f"{name}/pre_conv"), f"{name}/conv")
    if model.block == "pixelcnn":
        y = conv(pre(y, f"{name}/pre_up"), f"{name}/up")
    if model.block in ("gated", "gated_pp"):
        a = graph.cut(y, f"{name}/a", 0, model.features, 0)
        b = graph.cut(y, f"{name}/b", model.features, REST, 0)
        a = _tanh(graph, a, f"{name}/tanh") if model.block == "gated" else a
        b = graph.add("Sigmoid", f"{name}/gate", [b])
        y = graph.add("BinaryOp", f"{name}/gated", [a, b], {0: MULTIPLY})
    return graph.add("BinaryOp", f"{name}/sum", [x, y], {0: ADD})


def _normalise(graph, x, path, params, stats):
    """Adds batch normalisation by the statistics that were learned, as a convolution:
    neither program has NCNN's BatchNorm."""
    layer, known = _at(params, path), _at(stats, path)
    factor = np.asarray(layer["scale"]) / np.sqrt(np.asarray(known["var"]) + 1e-5)
    shift = np.asarray(layer["bias"]) - factor * np.asarray(known["mean"])
    return graph.convolve(x, path, np.diag(factor)[..., None, None], shift, exact=True)


def _at(tree, path):
    for part in path.split("/"):
        tree = tree[part]
    return tree


def file_stem(name: str, kind: str, scale: int) -> str:
    """Returns the name of a model's two files: its own if those programs read the right
    scale from it and no command line breaks it, else its kind and scale."""
    found = {a or b for a, b in re.findall(r"(?=x(\d)|(\d)x)", name.lower())}
    clear = f"x{scale}" in name or f"{scale}x" in name
    plain = re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}", name)
    return name if clear and plain and found == {str(scale)} else f"{kind}-x{scale}"


def write_ncnn(source: Any, folder: pathlib.Path) -> None:
    """Writes the two files of a `formats.Source` into a new folder."""
    about, scale = source.about, source.model.scale
    text, weights = build_ncnn(source.model, source.variables, source.half)
    stem = file_stem(about["name"], about["model"]["name"], scale)
    folder.mkdir()
    (folder / f"{stem}.param").write_text(text)
    (folder / f"{stem}.bin").write_bytes(weights)


def read_ncnn(source: Any, folder: pathlib.Path) -> tuple[Callable | None, str]:
    """Returns what `run_ncnn` does for the net of a folder."""
    (param,) = folder.glob("*.param")
    return run_ncnn(param)
