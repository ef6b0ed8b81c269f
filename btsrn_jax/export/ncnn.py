"""The networks as NCNN files, which Upscayl and realesrgan-ncnn-vulkan run on GPUs.

A net is two files: `NAME.param`, a line of text for each layer, and `NAME.bin`, the
weights in the order of the layers. Those programs cut a picture into tiles with 10 more
pixels on each side, feed them to the blob `data`, read the blob `output`, and cut the
enlarged 10 pixels off. They know the scale from the name of the files or from the user.

So a net enlarges its whole input, whose edge it mirrors by the halo before it computes:
of a whole picture it makes the very picture that the network makes, and of a tile with
at least the halo around it a part of that picture.

The bicubic skip goes through the same transposed convolutions as the features, in
channels of its own: chaiNNer multiplies the strides of all of them to find the scale.
"""

import itertools
import pathlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from btsrn_jax import network
from btsrn_jax.errors import InputError

MAGIC = 7767517  # of this version of the text
FLOAT32, FLOAT16 = 0, 0x01306B47  # tags of a convolution's kernel
REST = -233  # stands for a size that follows from the input's
ADD, MULTIPLY = 0, 2  # kinds of BinaryOp
NEAREST = 1  # a kind of Interp

# The parts of a BTSRN that are written as layers below.
FORMS = {
    "block": ("pconv", "pixelcnn", "gated", "gated_pp"),
    "norm": ("none", "batch", "weight"),
    "activation": ("relu", "leaky_relu"),
}
COLOURS = 4  # of the skip: the fourth is black, since GPUs take channels by fours


class Graph:
    """The layers and weights of a net as they are added; blobs go by names.

    Attributes:
      half: True to store the kernels of the network's convolutions as float16.
    """

    def __init__(self, half: bool) -> None:
        self.half, self.layers, self.weights = half, [], []

    def add(
        self,
        kind: str,
        name: str,
        inputs: Sequence[str] = (),
        parameters: Mapping[int, Any] | None = None,
        outputs: int = 1,
    ):
        """Adds a layer, and returns the name of its output, which is its own, or a list
        of the names of several."""
        name = name.replace("/", "_")
        names = [name] if outputs == 1 else [f"{name}_{i}" for i in range(outputs)]
        self.layers.append((kind, name, list(inputs), names, parameters or {}))
        return name if outputs == 1 else names

    def convolve(self, x: str, name: str, kernel, bias, step: int = 0, exact=False):
        """Adds a convolution that keeps the size, by zeros around, or a transposed
        one whose kernel is as large as its stride.

        Args:
          kernel: (out, in, side, side).
          bias: (out,).
          step: the stride of a transposed convolution; 0 for a plain one.
          exact: True to keep the kernel in float32 in any case.
        """
        outputs, _, side, _ = kernel.shape
        shape = {0: outputs, 1: side, 3: step or 1, 4: 0 if step else side // 2}
        kind = "Deconvolution" if step else "Convolution"
        # An odd number of halves would need filling up, which chaiNNer does not know.
        half = self.half and not exact and kernel.size % 2 == 0
        self._store(name, kernel, half)
        self.weights.append(np.ascontiguousarray(bias, "<f4").tobytes())
        return self.add(kind, name, [x], shape | {5: 1, 6: kernel.size})

    def _store(self, name, kernel, half):
        dtype, tag = ("<f2", FLOAT16) if half else ("<f4", FLOAT32)
        with np.errstate(over="ignore"):
            values = np.ascontiguousarray(kernel, dtype)
        if half and not np.isfinite(values).all():
            raise InputError(f"{name}: a weight is too large for float16 (--half)")
        self.weights += [np.array(tag, "<u4").tobytes(), values.tobytes()]

    def crop(self, x: str, name: str, border: int) -> str:
        """Cuts `border` pixels off each side."""
        if not border:
            return x
        cut = dict.fromkeys((0, 1, 6, 7), border)
        return self.add("Crop", name, [x], cut | dict.fromkeys((3, 4, 5), REST))

    def text(self) -> str:
        """Returns the contents of the .param file.

        A blob may be read once. For one that is read several times, a Split after its
        layer gives copies.
        """
        readers = Counter(itertools.chain.from_iterable(x[2] for x in self.layers))
        copies, lines = {}, []

        def write(kind, name, inputs, outputs, parameters):
            blobs.update(outputs)
            words = [f"{kind:16} {name:16}", len(inputs), len(outputs)]
            words += [*inputs, *outputs, *map(_parameter, parameters.items())]
            lines.append(" ".join(map(str, words)) + "\n")

        blobs = set()
        for kind, name, inputs, outputs, parameters in self.layers:
            inputs = [next(copies[x]) if x in copies else x for x in inputs]
            write(kind, name, inputs, outputs, parameters)
            for blob in outputs:
                if readers[blob] > 1:
                    names = [f"{blob}_copy{i}" for i in range(readers[blob])]
                    copies[blob] = iter(names)
                    write("Split", f"{blob}_split", [blob], names, {})
        return f"{MAGIC}\n{len(lines)} {len(blobs)}\n" + "".join(lines)


def _parameter(item):
    number, value = item
    if isinstance(value, list):
        return f"{-23300 - number}={','.join(map(str, [len(value), *value]))}"
    return f"{number}={value}"


def build_ncnn(model: Any, variables: Mapping, half: bool = False) -> tuple[str, bytes]:
    """Returns a network as the contents of its two NCNN files, text and weights.

    The net takes the blob `data`, (3, h, w) float32 in [0, 1] with h and w from 1, and
    gives the blob `output`, (3, s h, s w) float32 in [0, 1].

    Args:
      model: as `network.build` returns it.
      variables: `params`, and `batch_stats` with batch normalisation.
      half: True to store the kernels of convolutions as float16, but for the skip's.

    Raises:
      InputError: if a part of the network has no NCNN form here, or a weight is too
        large for float16.
    """
    graph = Graph(half)
    data = graph.add("Input", "data")
    padded = _pad_symmetric(graph, data, model.halo)
    build = _vdsr if isinstance(model, network.VDSR) else _btsrn
    x, skip, kernel, bias, cropped = build(graph, model, variables, padded)
    # The last convolution adds the skip, too.
    kernel = np.concatenate([kernel, np.eye(3, COLOURS)[..., None, None]], axis=1)
    both = graph.add("Concat", "both", [x, skip])
    sr = graph.convolve(both, "out", kernel, bias)
    sr = graph.crop(sr, "sr", model.scale * model.halo - cropped)
    graph.add("Clip", "output", [sr], {0: 0.0, 1: 1.0})
    return graph.text(), b"".join(graph.weights)


def _pad_symmetric(graph, x, border):
    """Adds SYMMETRIC padding, which NCNN's Padding does not know.

    It grows by one line of pixels at a time, so that the border may exceed the image.
    """
    for axis, kind in ((1, "row"), (2, "column")):
        for i in range(border):
            # Line i of the image now lies at 2 i.
            first, last = (
                graph.add(
                    "Crop", f"{kind}{i}_{name}", [x], {9: [a], 10: [b], 11: [axis]}
                )
                for name, a, b in (
                    ("first", 2 * i, 2 * i + 1),
                    ("last", -2 * i - 1, -2 * i or REST),
                )
            )
            x = graph.add("Concat", f"{kind}{i}", [first, x, last], {0: axis})
    return x


def _btsrn(graph, model, variables, padded):
    """Adds `btsrn.BTSRN` up to its last activation, and the skip; cropped after each
    stage by what its zeros around have spoilt.

    Returns the two, kernel and bias of the last convolution, and how many HR pixels
    were cropped.
    """
    for field, known in FORMS.items():
        if getattr(model, field) not in known:
            raise InputError(f"no NCNN form of {field} {getattr(model, field)}")
    params, stats = variables["params"], variables.get("batch_stats", {})

    def weights(path):
        layer = _at(params, path)
        kernel = network.applied_kernel(layer).transpose(3, 2, 0, 1)
        return kernel, np.asarray(layer["bias"])

    def conv(x, path):
        return graph.convolve(x, path, *weights(path))

    def pre(x, path):
        if model.norm == "batch":
            x = _normalise(graph, x, f"{path}_norm", params, stats)
        slope = {"relu": 0.0, "leaky_relu": 0.2}[model.activation]
        return graph.add("ReLU", path, [x], {0: slope})

    def stage(x, skip, name, count):
        for i in range(count):
            x = _block(graph, model, x, f"{name}{i}", pre, conv)
        cropped = graph.crop(x, f"{name}_inside", count)
        return cropped, graph.crop(skip, f"{name}_skip", count)

    x = conv(_shift(graph, padded), "in")
    skip = _bicubic_channels(graph, padded, model.scale)
    x, skip = stage(x, skip, "low", model.low_blocks)
    rest = model.scale
    for i, step in enumerate(network.upsamplings(model.scale)):
        if i:
            x, skip = stage(x, skip, "mid", model.mid_blocks)
        rest //= step
        kernel, bias = weights(f"up{i}")
        both = graph.add("Concat", f"up{i}_in", [pre(x, f"pre_up{i}"), skip])
        both = _upsample(graph, both, f"up{i}", kernel, bias, rest)
        sizes = {0: [model.features, REST], 1: 0}
        y, skip = graph.add("Slice", f"up{i}_out", [both], sizes, outputs=2)
        near = graph.add("Interp", f"near{i}", [x], {0: NEAREST, 1: step, 2: step})
        x = graph.add("BinaryOp", f"sum{i}", [near, y], {0: ADD})
    x, skip = stage(x, skip, "high", model.high_blocks)
    return pre(x, "pre_out"), skip, *weights("out"), model.valid_border


def _vdsr(graph, model, variables, padded):
    """Adds `vdsr.VDSR` but for the last step, that its result goes to three colours.

    Returns the same as `_btsrn`; nothing is cropped.
    """
    params, s = variables["params"], model.scale
    skip = _bicubic_channels(graph, padded, s)
    skip = _upsample(graph, skip, "skip", np.zeros((0, 0, s, s)), [], 1)
    weights = np.zeros((1, COLOURS, 1, 1))
    weights[0, :3, 0, 0] = network.LUMINANCE
    luminance = graph.convolve(skip, "luminance", weights, [0], exact=True)
    x = _shift(graph, luminance)
    for i in range(model.layers):
        x = graph.add("ReLU", f"relu{i}", [x]) if i else x
        kernel = np.asarray(params[f"kernel{i}"]).transpose(3, 2, 0, 1)
        x = graph.convolve(x, f"conv{i}", kernel, params[f"bias{i}"])
    spread = np.full((3, 1, 1, 1), 1 / sum(network.LUMINANCE))
    return x, skip, spread, np.zeros(3), 0


def _shift(graph, x):
    return graph.add("BinaryOp", "centred", [x], {0: ADD, 1: 1, 2: -0.5})


def _bicubic_channels(graph, x, scale):
    """Adds `ops.bicubic_skip`, the s x s pixels that lie on each pixel as channels, in
    the order (colour, row, column)."""
    weights = network.bicubic_weights(scale)
    kernel = np.zeros((COLOURS, scale, scale, 3, 5, 5))
    for colour in range(3):
        kernel[colour, :, :, colour] = np.einsum("ak,bl->abkl", weights, weights)
    kernel = kernel.reshape(-1, 3, 5, 5)
    return graph.convolve(x, "bicubic", kernel, np.zeros(len(kernel)), exact=True)


def _upsample(graph, x, name, kernel, bias, rest):
    """Adds a transposed convolution of features that puts the channels of the skip
    behind them in their places.

    Args:
      kernel: (out, in, step, step), of the features.
      rest: factor by which the skip's channels are still to be enlarged afterwards.
    """
    outputs, inputs, step, _ = kernel.shape
    one, few, many = np.eye(COLOURS), np.eye(rest), np.eye(step)
    places = np.einsum("cd,ij,ar,kl,bs->cikdrjslab", one, few, many, few, many)
    places = places.reshape(COLOURS * rest**2, -1, step, step)
    whole = np.zeros((outputs + len(places), inputs + places.shape[1], step, step))
    whole[:outputs, :inputs], whole[outputs:, inputs:] = kernel, places
    bias = np.concatenate([bias, np.zeros(len(places))])
    return graph.convolve(x, name, whole, bias, step)


def _block(graph, model, x, name, pre, conv):
    """Adds `btsrn.Block`, at the size of its input."""
    y = conv(pre(x, f"{name}/pre_down"), f"{name}/down")
    y = conv(pre(y, f"{name}/pre_conv"), f"{name}/conv")
    if model.block == "pixelcnn":
        y = conv(pre(y, f"{name}/pre_up"), f"{name}/up")
    if model.block in ("gated", "gated_pp"):
        sizes = {0: [REST, REST], 1: 0}
        a, b = graph.add("Slice", f"{name}/halves", [y], sizes, outputs=2)
        a = graph.add("TanH", f"{name}/tanh", [a]) if model.block == "gated" else a
        b = graph.add("Sigmoid", f"{name}/gate", [b])
        y = graph.add("BinaryOp", f"{name}/gated", [a, b], {0: MULTIPLY})
    return graph.add("BinaryOp", f"{name}/sum", [x, y], {0: ADD})


def _normalise(graph, x, path, params, stats):
    """Adds batch normalisation by the statistics that were learned."""
    layer, known = _at(params, path), _at(stats, path)
    values = layer["scale"], known["mean"], known["var"], layer["bias"]
    graph.weights += [np.ascontiguousarray(v, "<f4").tobytes() for v in values]
    return graph.add("BatchNorm", path, [x], {0: len(layer["scale"]), 1: 1e-5})


def _at(tree, path):
    for part in path.split("/"):
        tree = tree[part]
    return tree


def file_stem(name: str, kind: str, scale: int) -> str:
    """Returns what a model's two files are called: its name, if the programs read the
    right scale from it and no command line breaks it; else kind and scale."""
    found = {a or b for a, b in re.findall(r"(?=x(\d)|(\d)x)", name.lower())}
    plain = re.fullmatch(r"[A-Za-z0-9_.-]{1,80}", name) and not name.startswith("-")
    clear = f"x{scale}" in name or f"{scale}x" in name
    return name if plain and clear and found == {str(scale)} else f"{kind}-x{scale}"


def run_ncnn(folder: pathlib.Path) -> tuple[Callable | None, str]:
    """Returns a function that runs the net of a folder on the CPU, (B, h, w, 3) float32
    in, (B, s h, s w, 3) out, and the name of what runs it: PyPI's ncnn. Without that
    package there is None, and the reason."""
    try:
        import ncnn
    except ImportError:
        return None, "the package ncnn is not installed (pip install ncnn)"
    (param,) = folder.glob("*.param")
    net = ncnn.Net()
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
        setattr(net.opt, option, False)
    if net.load_param(str(param)) or net.load_model(str(param.with_suffix(".bin"))):
        raise RuntimeError(f"ncnn cannot load {param}")

    def run(lr):
        return np.stack([enlarge(image) for image in lr])

    def enlarge(image):
        extractor = net.create_extractor()
        # clone: ncnn pads the channels of its own arrays alone to 16 bytes.
        data = np.ascontiguousarray(image.transpose(2, 0, 1), np.float32)
        extractor.input("data", ncnn.Mat(data).clone())
        _, output = extractor.extract("output")
        return np.array(output).transpose(1, 2, 0)

    return run, f"ncnn {ncnn.__version__} on a CPU"
