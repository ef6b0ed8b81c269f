"""NCNN's two files: a text with a line for each layer, and the weights of the layers in
the same order. Written layer by layer, and run by PyPI's package `ncnn`."""

import importlib.util
import itertools
import pathlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from btsrn_jax.errors import InputError

MAGIC = 7767517  # of this version of the text
FLOAT32, FLOAT16 = 0, 0x01306B47  # tags before a convolution's kernel
REST = -233  # stands for a size that follows from the input's


class Graph:
    """The layers and weights of a net as they are added; blobs go by names.

    Attributes:
      half: True to store the kernels of convolutions as float16.
    """

    def __init__(self, half: bool) -> None:
        self.half, self._layers, self._weights = half, [], []

    def add(
        self,
        kind: str,
        name: str,
        inputs: Sequence[str] = (),
        parameters: Mapping[int, Any] | None = None,
    ) -> str:
        """Adds a layer, and returns the name of its blob, which is its own.

        Args:
          kind: NCNN's name of it.
          name: a name of its own; "/" becomes "_".
          inputs: the blobs that it reads.
          parameters: by NCNN's numbers: a number, or a list of whole numbers.
        """
        name = name.replace("/", "_")
        self._layers.append((kind, name, list(inputs), parameters or {}))
        return name

    def convolve(
        self, x: str, name: str, kernel: Any, bias: Any, exact: bool = False
    ) -> str:
        """Adds a convolution that keeps the size, by zeros around.

        Args:
          kernel: (out, in, side, side).
          bias: (out,).
          exact: True to keep the kernel in float32 in any case.

        Raises:
          InputError: a value of the kernel is too large for float16.
        """
        kernel = np.ascontiguousarray(kernel, "<f4")
        # An odd number of halves would need filling up, which chaiNNer does not know.
        half = self.half and not exact and kernel.size % 2 == 0
        tag = FLOAT16 if half else FLOAT32
        if half:
            with np.errstate(over="ignore"):
                kernel = kernel.astype("<f2")
            if not np.isfinite(kernel).all():
                raise InputError(f"{name}: a weight is too large for float16 (--half)")
        arrays = np.array(tag, "<u4"), kernel, np.asarray(bias, "<f4")
        self._weights += [array.tobytes() for array in arrays]
        outputs, _, side, _ = kernel.shape
        shape = {0: outputs, 1: side, 4: side // 2, 5: 1, 6: kernel.size}
        return self.add("Convolution", name, [x], shape)

    def crop(self, x: str, name: str, border: int) -> str:
        """Cuts `border` pixels off each side."""
        if not border:
            return x
        cut = dict.fromkeys((0, 1, 6, 7), border)
        return self.add("Crop", name, [x], cut | dict.fromkeys((3, 4, 5), REST))

    def cut(self, x: str, name: str, start: int, end: int, axis: int) -> str:
        """Keeps the indices from `start` up to `end` along one axis of (c, h, w)."""
        return self.add("Crop", name, [x], {9: [start], 10: [end], 11: [axis]})

    def files(self) -> tuple[str, bytes]:
        """Returns the contents of the .param and the .bin file.

        In the text each blob is read once: of one that several layers read, a Split
        makes copies.
        """
        every = itertools.chain.from_iterable(
            inputs for _, _, inputs, _ in self._layers
        )
        readers, copies, lines, blobs = Counter(every), {}, [], 0
        for kind, name, inputs, parameters in self._layers:
            inputs = [next(copies[x]) if x in copies else x for x in inputs]
            lines.append(_line(kind, name, inputs, [name], parameters))
            blobs += 1
            if readers[name] > 1:
                names = [f"{name}_copy{i}" for i in range(readers[name])]
                copies[name] = iter(names)
                lines.append(_line("Split", f"{name}_split", [name], names, {}))
                blobs += len(names)
        text = f"{MAGIC}\n{len(lines)} {blobs}\n" + "".join(lines)
        return text, b"".join(self._weights)


def _line(kind, name, inputs, outputs, parameters):
    words = [f"{kind:16} {name:16}", len(inputs), len(outputs), *inputs, *outputs]
    for number, value in parameters.items():
        if isinstance(value, list):
            number, value = -23300 - number, ",".join(map(str, [len(value), *value]))
        words.append(f"{number}={value}")
    return " ".join(map(str, words)) + "\n"


def run_ncnn(param: pathlib.Path) -> tuple[Callable | None, str]:
    """Returns a function that runs a .param file and the .bin file beside it on the
    CPU in float32, lr (B, h, w, 3) float32 -> sr (B, s h, s w, 3), and the name of what
    runs it; None for the function, and the reason, where the package ncnn is not
    installed, or not for this machine."""
    if importlib.util.find_spec("ncnn") is None:
        return None, "not run: ncnn is not installed (pip install ncnn)"
    try:
        import ncnn
    except (ImportError, OSError):  # the message holds paths of this machine
        return None, "not run: ncnn is installed, and cannot be imported"
    net = ncnn.Net()
    for option in ("packed", "storage", "arithmetic"):
        setattr(net.opt, f"use_fp16_{option}", False)
    if net.load_param(str(param)) or net.load_model(str(param.with_suffix(".bin"))):
        raise RuntimeError(f"ncnn cannot load {param.name}")

    def upscale(image):
        extractor = net.create_extractor()
        data = np.ascontiguousarray(image.transpose(2, 0, 1), np.float32)
        # A clone, because the channels of ncnn's own arrays alone begin where its
        # instructions want them.
        extractor.input("data", ncnn.Mat(data).clone())
        failed, output = extractor.extract("output")
        if failed:
            raise RuntimeError(f"ncnn cannot run {param.name}: {failed}")
        return np.array(output).transpose(1, 2, 0)

    return lambda lr: np.stack([upscale(image) for image in lr]), (
        f"ncnn {ncnn.__version__}"
    )
