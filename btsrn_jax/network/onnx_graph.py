"""The networks as ONNX graphs, node by node: NCHW, with any batch, height and width.

A graph is built by hand, so that it holds plain operators of an old set, which many
runtimes know, and no trace of the framework that trained it. `onnx` is imported when a
graph is built, because it is an optional dependency.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from btsrn_jax.errors import InputError
from btsrn_jax.network import btsrn, geometry, vdsr

OPSET = 17
IR_VERSION = 8  # of onnx 1.12: older than every runtime that knows this operator set

# The parts of a BTSRN that are written as nodes below.
FORMS = {
    "block": ("pconv", "pixelcnn", "gated", "gated_pp"),
    "norm": ("none", "batch", "weight"),
    "activation": ("relu", "leaky_relu"),
}


class Graph:
    """The nodes and constants of a graph as they are added; values go by names."""

    def __init__(self) -> None:
        import onnx

        self.onnx, self.nodes, self.constants, self.count = onnx, [], {}, 0

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

    def integers(self, *values: int) -> str:
        """Adds an int64 vector unless it is there, and returns its name."""
        return self._integers(np.array(values, np.int64))

    def integer(self, value: int) -> str:
        """Adds an int64 scalar unless it is there, and returns its name."""
        return self._integers(np.array(value, np.int64))

    def _integers(self, array):
        shape = "scalar" if array.ndim == 0 else "vector"
        name = "_".join([shape, *map(str, array.ravel())])
        self.constants[name] = array
        return name

    def crop(self, x: str, border: int) -> str:
        """Cuts `border` pixels off each side of (n, c, h, w)."""
        if not border:
            return x
        start, end = self.integers(border, border), self.integers(-border, -border)
        return self.add("Slice", x, start, end, self.integers(2, 3))


def build_onnx(model: Any, variables: Mapping, metadata: Mapping[str, str]) -> Any:
    """Returns a network as an `onnx.ModelProto`; padding, bicubic skip and clipping are
    part of it.

    Its input is `lr`, (n, 3, height, width) float32 in [0, 1]; its output is `sr`,
    (n, 3, s height, s width) float32 in [0, 1].

    Args:
      model: as `network.build` returns it.
      variables: `params`, and `batch_stats` with batch normalisation.
      metadata: text for the file's properties.

    Raises:
      InputError: if a part of the network has no ONNX form here.
    """
    missing = missing_onnx_form(model)
    if missing:
        raise InputError(missing)
    graph = Graph()
    _super_resolve(graph, model, variables)
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


def missing_onnx_form(model: Any) -> str:
    """Returns "no ONNX form of block X" if a part of a network is not written as nodes
    here; "" if it can be."""
    if isinstance(model, vdsr.VDSR):
        return ""
    if not isinstance(model, btsrn.BTSRN):
        return f"no ONNX form of {type(model).__name__}"
    for field, known in FORMS.items():
        if getattr(model, field) not in known:
            return f"no ONNX form of {field} {getattr(model, field)}"
    return ""


def _super_resolve(graph, model, variables):
    """Adds `network.super_resolve` of the padded image, cropped to s times `lr`."""
    halo, s = model.halo, model.scale
    padded = _pad_symmetric(graph, "lr", halo)
    # Resize repeats the edge, where the convolution would mirror it. Both happen in the
    # padding, outside of what is kept.
    scales = graph.floats("scales", [1, 1, s, s])
    skip = graph.add(
        "Resize",
        padded,
        "",
        scales,
        mode="cubic",
        cubic_coeff_a=-0.5,
        coordinate_transformation_mode="half_pixel",
    )
    if isinstance(model, vdsr.VDSR):
        valid = graph.crop(skip, s * geometry.SKIP_MARGIN)
        residual = _vdsr_residual(graph, model, variables["params"], valid)
    else:
        residual = _residual(graph, model, variables, padded)
    residual = graph.crop(residual, s * halo - model.valid_border)
    sr = graph.add("Add", graph.crop(skip, s * halo), residual)
    return graph.add("Clip", sr, graph.floats("zero", 0), graph.floats("one", 1))


def _pad_symmetric(graph, x, border):
    """Adds SYMMETRIC padding, by gathers: ONNX's Pad has no such mode, and the border
    may exceed the image."""
    shape = graph.add("Shape", x)
    for axis in (2, 3):
        size = graph.add("Gather", shape, graph.integer(axis))
        twice = graph.add("Add", size, size)
        end = graph.add("Add", size, graph.integer(border))
        index = graph.add("Range", graph.integer(-border), end, graph.integer(1))
        index = graph.add("Mod", index, twice)
        turned = graph.add("Sub", graph.add("Sub", twice, graph.integer(1)), index)
        # The smaller one is the index before the edge, the other its mirror image.
        x = graph.add("Gather", x, graph.add("Min", index, turned), axis=axis)
    return x


def _residual(graph, model, variables, x):
    """Adds the network itself; names and order are those of `btsrn.BTSRN`."""
    params, stats = variables["params"], variables.get("batch_stats", {})

    def layer(path):
        node = params
        for part in path.split("/"):
            node = node[part]
        return node

    def conv(x, path):
        kernel, bias = _kernel(layer(path)), np.asarray(layer(path)["bias"])
        weights = graph.floats(f"{path}/kernel", kernel.transpose(3, 2, 0, 1))
        return graph.add("Conv", x, weights, graph.floats(f"{path}/bias", bias))

    def up(x, path, step):
        # As in ops.deconv: a matrix product, then a depth-to-space.
        kernel, bias = _kernel(layer(path)), np.asarray(layer(path)["bias"])
        columns = kernel.transpose(0, 1, 3, 2).reshape(-1, kernel.shape[2], 1, 1)
        weights = graph.floats(f"{path}/kernel", columns)
        bias = graph.floats(f"{path}/bias", np.tile(bias, step * step))
        y = graph.add("Conv", x, weights, bias)
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

    x = conv(graph.add("Sub", x, graph.floats("half", 0.5)), "in")
    x = stage(x, "low", model.low_blocks)
    for i, step in enumerate(geometry.upsamplings(model.scale)):
        if i:
            x = stage(x, "mid", model.mid_blocks)
        y = up(pre(x, f"pre_up{i}"), f"up{i}", step)
        x = graph.add("Add", _nearest(graph, x, step), y)
    x = stage(x, "high", model.high_blocks)
    return conv(pre(x, "pre_out"), "out")


def _vdsr_residual(graph, model, params, skip):
    """Adds `vdsr.VDSR`, from the bicubic-enlarged image on."""
    weights = np.array(vdsr.LUMINANCE).reshape(1, 3, 1, 1)
    x = graph.add("Conv", skip, graph.floats("luminance", weights))
    x = graph.add("Sub", x, graph.floats("half", 0.5))
    for i in range(model.layers):
        x = graph.add("Relu", x) if i else x
        kernel = np.asarray(params[f"kernel{i}"]).transpose(3, 2, 0, 1)
        kernel = graph.floats(f"kernel{i}", kernel)
        x = graph.add("Conv", x, kernel, graph.floats(f"bias{i}", params[f"bias{i}"]))
    spread = np.full((3, 1, 1, 1), 1 / sum(vdsr.LUMINANCE))
    return graph.add("Conv", x, graph.floats("spread", spread))


def _nearest(graph, x, step):
    """Adds `ops.nearest`."""
    return graph.add(
        "Resize",
        x,
        "",
        graph.floats(f"times_{step}", [1, 1, step, step]),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


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


def _kernel(layer):
    """Returns a layer's kernel as it is applied, weight normalisation worked in."""
    kernel = np.asarray(layer["kernel"], np.float32)
    if "length" in layer:
        norm = np.sqrt(np.sum(kernel**2, axis=(0, 1, 2)))
        kernel = kernel * (np.asarray(layer["length"]) / norm)
    return kernel


def _normalise(graph, x, path, params, stats):
    """Adds batch normalisation by the statistics that were learned."""
    *folders, name = path.split("/")
    for folder in folders:
        params, stats = params[folder], stats[folder]
    values = [
        graph.floats(f"{path}/{key}", tree[name][key])
        for tree, keys in ((params, ("scale", "bias")), (stats, ("mean", "var")))
        for key in keys
    ]
    return graph.add("BatchNormalization", x, *values, epsilon=1e-5)
