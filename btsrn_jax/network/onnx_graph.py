"""The networks as ONNX graphs, node by node: NCHW, with any batch, height and width.

A graph is built by hand, so that it holds plain operators of an old set, which many
runtimes know, and no trace of the framework that trained it. Every operator has a size
that follows from its input's and from constants, so that shape inference finds the size
of the output. `onnx` is imported when a graph is built, because it is an optional
dependency.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from btsrn_jax.errors import InputError
from btsrn_jax.network import btsrn, geometry, ops, vdsr

OPSET = 13
IR_VERSION = 7  # of onnx 1.8, which brought this operator set

# The parts of a BTSRN that are written as nodes below.
FORMS = {
    "block": ("pconv", "pixelcnn", "gated", "gated_pp"),
    "norm": ("none", "batch", "weight"),
    "activation": ("relu", "leaky_relu"),
}
END = 2**31 - 1  # of a slice that goes on to the last pixel


class Graph:
    """The nodes and constants of a graph as they are added; values go by names.

    Attributes:
      half: True to store the kernels of convolutions as float16.
    """

    def __init__(self, half: bool = False) -> None:
        import onnx

        self.onnx, self.half = onnx, half
        self.nodes, self.constants, self.count = [], {}, 0

    def add(self, kind: str, *inputs: str, outputs: int = 1, **attributes):
        """Adds a node, and returns the name of its output, or a list of the names of
        several."""
        names = [f"{kind.lower()}_{self.count + i}" for i in range(outputs)]
        self.count += outputs
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, names, **attributes))
        return names[0] if outputs == 1 else names

    def floats(self, name: str, values) -> str:
        """Adds a float32 constant under a name of its own, and returns the name."""
        self.constants[name] = np.ascontiguousarray(values, np.float32)
        return name

    def kernel(self, name: str, values) -> str:
        """Adds the kernel (out, in, height, width) of a convolution, and returns the
        name of its float32 values."""
        if not self.half:
            return self.floats(name, values)
        with np.errstate(over="ignore"):  # inf, which no exported file may give
            self.constants[name] = np.ascontiguousarray(values, np.float16)
        return self.add("Cast", name, to=self.onnx.TensorProto.FLOAT)

    def integers(self, *values: int) -> str:
        """Adds an int64 vector unless it is there, and returns its name."""
        name = "_".join(["vector", *map(str, values)])
        self.constants[name] = np.array(values, np.int64)
        return name

    def cut(self, x: str, start: int, end: int, *axes: int) -> str:
        """Keeps the indices from `start` up to `end` along each of some axes."""
        ends = [self.integers(*[i] * len(axes)) for i in (start, end)]
        return self.add("Slice", x, *ends, self.integers(*axes))

    def crop(self, x: str, border: int) -> str:
        """Cuts `border` pixels off each side of (n, c, h, w)."""
        return self.cut(x, border, -border, 2, 3) if border else x


def build_onnx(
    model: Any,
    variables: Mapping,
    metadata: Mapping[str, str],
    tile: bool = False,
    half: bool = False,
    clip: bool = True,
) -> Any:
    """Returns a network as an `onnx.ModelProto`; bicubic skip and clipping are part of
    it, and padding unless it is for tiles.

    Its input is `lr`, (n, 3, height, width) float32 in [0, 1]; its output is `sr`,
    (n, 3, s height, s width) float32 in [0, 1]. With `tile` the input has `model.halo`
    more pixels on each side than the part that is enlarged.

    Args:
      model: as `network.build` returns it.
      variables: `params`, and `batch_stats` with batch normalisation.
      metadata: text for the file's properties.
      tile: True to leave the padding to the program that cuts the tiles.
      half: True to store the kernels of convolutions as float16. They are cast to
        float32 before they are used: all arithmetic stays float32.
      clip: False to let `sr` leave [0, 1], as a mean over several views needs it.

    Raises:
      InputError: if a part of the network has no ONNX form here.
    """
    missing = missing_onnx_form(model)
    if missing:
        raise InputError(missing)
    graph = Graph(half)
    padded = "lr" if tile else _pad_symmetric(graph, "lr", model.halo)
    _super_resolve(graph, model, variables, padded, clip)
    graph.nodes[-1].output[0] = "sr"
    helper, numpy_helper = graph.onnx.helper, graph.onnx.numpy_helper
    float32 = graph.onnx.TensorProto.FLOAT
    sides = ["out_height", "out_width"]
    proto = helper.make_model(
        helper.make_graph(
            graph.nodes,
            f"btsrn_x{model.scale}",
            [helper.make_tensor_value_info("lr", float32, ["n", 3, "height", "width"])],
            [helper.make_tensor_value_info("sr", float32, ["n", 3, *sides])],
            [numpy_helper.from_array(a, name) for name, a in graph.constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="btsrn_jax",
    )
    helper.set_model_props(proto, dict(metadata))
    graph.onnx.checker.check_model(proto, full_check=True)
    return proto


def _pad_symmetric(graph, x, border):
    """Adds SYMMETRIC padding, which ONNX's Pad does not know.

    It grows by one line of pixels at a time, so that the border may exceed the image.
    """
    for axis in (2, 3):
        for i in range(border):
            # Line i of the image now lies at 2 i. An image of fewer lines has its own
            # mirror image there, which is right, too.
            first = graph.cut(x, 2 * i, 2 * i + 1, axis)
            last = graph.cut(x, -2 * i - 1, -2 * i or END, axis)
            x = graph.add("Concat", first, x, last, axis=axis)
    return x


def missing_onnx_form(model: Any) -> str:
    """Returns "no ONNX form of block X" if a part of a network is not written as nodes
    here; "" if it can be."""
    if isinstance(model, vdsr.VDSR):
        return ""
    return btsrn.missing_form(model, "ONNX", FORMS)


def _super_resolve(graph, model, variables, padded, clip):
    """Adds `network.super_resolve`, cropped to the image inside the padding."""
    halo, margin, s = model.halo, geometry.SKIP_MARGIN, model.scale
    if isinstance(model, vdsr.VDSR):
        enlarged = _bicubic_skip(graph, padded, s)
        skip = graph.crop(enlarged, s * (halo - margin))
        residual = _vdsr_residual(graph, model, variables["params"], enlarged)
    else:
        skip = _bicubic_skip(graph, graph.crop(padded, halo - margin), s)
        residual = _residual(graph, model, variables, padded)
    residual = graph.crop(residual, s * halo - model.valid_border)
    sr = graph.add("Add", skip, residual)
    if clip:
        graph.add("Clip", sr, graph.floats("zero", 0), graph.floats("one", 1))


def _bicubic_skip(graph, x, scale):
    """Adds `ops.bicubic_skip`.

    A convolution gives the s x s pixels that lie on each pixel, as channels. A Resize
    would not do: some runtimes lack its cubic mode or have coefficients of their own.
    """
    weights = ops.bicubic_weights(scale)
    kernel = np.einsum("ak,bl->abkl", weights, weights)
    kernel = np.tile(kernel.reshape(scale**2, 1, *kernel.shape[2:]), (3, 1, 1, 1))
    y = graph.add("Conv", x, graph.floats("bicubic", kernel), group=3)
    # CRD: the pixels of a colour are neighbours among the channels.
    return graph.add("DepthToSpace", y, blocksize=scale, mode="CRD")


def _residual(graph, model, variables, x):
    """Adds the network itself; names and order are those of `btsrn.BTSRN`."""
    params, stats = variables["params"], variables.get("batch_stats", {})

    def layer(path):
        node = params
        for part in path.split("/"):
            node = node[part]
        return node

    def kernel_of(path):
        return btsrn.folded_kernel(layer(path)["kernel"], layer(path).get("length"))

    def conv(x, path):
        kernel, bias = kernel_of(path), np.asarray(layer(path)["bias"])
        weights = graph.kernel(f"{path}/kernel", kernel.transpose(3, 2, 0, 1))
        return graph.add("Conv", x, weights, graph.floats(f"{path}/bias", bias))

    def up(x, path, step):
        # ops.deconv of the activations plus ops.nearest of x: both as channels, in the
        # order (row, column, feature), then put in their places.
        kernel, bias = kernel_of(path), np.asarray(layer(path)["bias"])
        columns = kernel.transpose(0, 1, 3, 2).reshape(-1, kernel.shape[2], 1, 1)
        weights = graph.kernel(f"{path}/kernel", columns)
        bias = graph.floats(f"{path}/bias", np.tile(bias, step * step))
        y = graph.add("Conv", pre(x, f"pre_{path}"), weights, bias)
        y = graph.add("Add", graph.add("Concat", *[x] * step**2, axis=1), y)
        return graph.add("DepthToSpace", y, blocksize=step, mode="DCR")

    def pre(x, path):
        if model.norm == "batch":
            x = _normalise(graph, x, f"{path}_norm", params, stats)
        if model.activation == "leaky_relu":
            return graph.add("LeakyRelu", x, alpha=0.2)
        return graph.add("Relu", x)

    def stage(x, name, count):
        for i in range(count):
            x = _block(graph, model, x, f"{name}{i}", pre, conv)
        return x

    x = conv(graph.add("Add", x, graph.floats("minus_half", -0.5)), "in")
    x = stage(x, "low", model.low_blocks)
    for i, step in enumerate(geometry.upsamplings(model.scale)):
        if i:
            x = stage(x, "mid", model.mid_blocks)
        x = up(x, f"up{i}", step)
    x = stage(x, "high", model.high_blocks)
    return conv(pre(x, "pre_out"), "out")


def _vdsr_residual(graph, model, params, skip):
    """Adds `vdsr.VDSR`, from the bicubic-enlarged image on."""
    weights = np.array(vdsr.LUMINANCE).reshape(1, 3, 1, 1)
    x = graph.add("Conv", skip, graph.floats("luminance", weights))
    x = graph.add("Add", x, graph.floats("minus_half", -0.5))
    for i in range(model.layers):
        x = graph.add("Relu", x) if i else x
        kernel = np.asarray(params[f"kernel{i}"]).transpose(3, 2, 0, 1)
        kernel = graph.kernel(f"kernel{i}", kernel)
        x = graph.add("Conv", x, kernel, graph.floats(f"bias{i}", params[f"bias{i}"]))
    spread = np.full((3, 1, 1, 1), 1 / sum(vdsr.LUMINANCE))
    return graph.add("Conv", x, graph.floats("spread", spread))


def _block(graph, model, x, name, pre, conv):
    """Adds `btsrn.Block`."""
    y = conv(pre(x, f"{name}/pre_down"), f"{name}/down")
    y = conv(pre(y, f"{name}/pre_conv"), f"{name}/conv")
    if model.block == "pixelcnn":
        y = conv(pre(y, f"{name}/pre_up"), f"{name}/up")
    if model.block in ("gated", "gated_pp"):
        a, b = graph.add("Split", y, outputs=2, axis=1)
        a = graph.add("Tanh", a) if model.block == "gated" else a
        y = graph.add("Mul", a, graph.add("Sigmoid", b))
    return graph.add("Add", graph.crop(x, 1), y)


def _normalise(graph, x, path, params, stats):
    """Adds batch normalisation by the statistics that were learned, as a product and a
    sum: ONNX's own operator has changed its meaning several times."""
    *folders, name = path.split("/")
    for folder in folders:
        params, stats = params[folder], stats[folder]
    params, stats = params[name], stats[name]
    factor = np.asarray(params["scale"]) / np.sqrt(np.asarray(stats["var"]) + 1e-5)
    shift = np.asarray(params["bias"]) - factor * np.asarray(stats["mean"])
    x = graph.add("Mul", x, graph.floats(f"{path}/factor", factor.reshape(-1, 1, 1)))
    return graph.add("Add", x, graph.floats(f"{path}/shift", shift.reshape(-1, 1, 1)))
