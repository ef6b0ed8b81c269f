"""What computes the tiles: JAX, or OpenVINO and onnxruntime from an ONNX graph.

On a CPU, OpenVINO runs the network faster than XLA does. Nothing here loads JAX, and a
runtime is loaded when it is opened.
"""

import concurrent.futures
import importlib
import importlib.util
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from btsrn_jax import images, machine, network
from btsrn_jax.errors import InputError, first_line
from btsrn_jax.inference import cutting

AUTO, JAX, ONNXRUNTIME, OPENVINO = "auto", "jax", "onnxruntime", "openvino"
NAMES = (AUTO, JAX, ONNXRUNTIME, OPENVINO)
TITLES = {JAX: "JAX", OPENVINO: "OpenVINO", ONNXRUNTIME: "onnxruntime"}
EXTRAS = {OPENVINO: "cpu", ONNXRUNTIME: "onnx"}  # that bring the packages
# Of onnxruntime: the first compiles for minutes for every shape, the second sends
# pictures to another machine.
NOT_TAKEN = ("TensorrtExecutionProvider", "AzureExecutionProvider")
MOST_STREAMS = 4  # tiles or views at once; each needs memory of its own
STEP = 8  # pixels; these runtimes take any shape without compiling anew


class Runtime(NamedTuple):
    """A graph that is ready to run."""

    device: str
    """In words, such as "the CPU"."""

    title: str
    """Its name and version."""

    run: Callable[[np.ndarray], np.ndarray]
    """run(lr): (n, 3, h, w) float32 -> (n, 3, H, W) float32, which stays valid until
    the thread's next call. So many threads may call it at once as there are streams."""


def choose_runtime(name: str) -> str:
    """Returns "jax", "onnxruntime" or "openvino". Loads none of them.

    "auto" is JAX where it has an accelerator, else OpenVINO, else onnxruntime if they
    are installed, else JAX.

    Raises InputError for another name, and where the one that is named is not
    installed.
    """
    if name not in NAMES:
        raise InputError(f"runtime {name!r}: one of {', '.join(NAMES)}")
    if name == AUTO:
        others = () if machine.has_accelerator() else (OPENVINO, ONNXRUNTIME)
        return next(filter(_installed, others), JAX)
    if name != JAX and not _installed(name):
        raise InputError(
            f"--runtime {name}: {TITLES[name]} is not installed:"
            f" pip install 'btsrn-jax[{EXTRAS[name]}]'"
        )
    return name


def _installed(name):
    return importlib.util.find_spec(name) is not None


def open_runtime(name: str, graph: bytes, streams: int = 1) -> Runtime:
    """Returns a runtime with an ONNX graph loaded.

    Args:
      name: "openvino" or "onnxruntime".
      graph: the ONNX file.
      streams: how many threads will run it at once; they share the machine's cores.

    Raises InputError where the runtime's package is damaged or refuses the graph.
    """
    try:
        return {OPENVINO: _openvino, ONNXRUNTIME: _onnxruntime}[name](graph, streams)
    except Exception as error:  # the runtimes raise errors of types of their own
        raise InputError(
            f"--runtime {name}: {first_line(error)}; --runtime jax does without"
        ) from error


def _openvino(graph, streams):
    package = _load_openvino()
    # Whatever asks its binding for a type of NumPy first sets that up, and two threads
    # that do so at once may wait for each other for ever.
    package.Type.f32.to_dtype()
    core = package.Core()
    # By default it computes in bfloat16 where the processor can.
    hints = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": str(streams)}
    compiled = core.compile_model(core.read_model(graph), "CPU", hints)
    own = threading.local()

    def run(lr):
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        return own.request.infer({0: lr}, share_inputs=True, share_outputs=True)[0]

    return Runtime("the CPU", _title(OPENVINO), run)


def _load_openvino() -> Any:
    """Returns the package openvino, imported without its telemetry.

    Importing it tells its makers so, from a process that it forks. It does without
    where the package for that is not installed.
    """
    telemetry = "openvino_telemetry"
    before = sys.modules.get(telemetry)
    sys.modules[telemetry] = before  # None, if it was not loaded: as not installed
    try:
        return importlib.import_module("openvino")
    finally:
        if before is None:
            del sys.modules[telemetry]


def _onnxruntime(graph, streams):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    if streams > 1:
        options.intra_op_num_threads = max(1, machine.cores() // streams)
    known = onnxruntime.get_available_providers()
    taken = [name for name in known if name not in NOT_TAKEN]
    session = onnxruntime.InferenceSession(graph, options, providers=taken)
    device = session.get_providers()[0].removesuffix("ExecutionProvider")

    def run(lr):
        return session.run(None, {"lr": lr})[0]

    return Runtime("the CPU" if device == "CPU" else device, _title(ONNXRUNTIME), run)


def _title(name):
    version = importlib.import_module(name).__version__
    return f"{TITLES[name]} {'.'.join(version.split('.')[:2])}"


class GraphUpscaler:
    """Upscales images of any size by a runtime other than JAX.

    Args:
      config: `scale`, `model` and, where there is one, `eval`: its `tile` and
        `memory_gb` (of 1e9 bytes; 0: half of what is free).
      open_streams: open_streams(n) returns a runtime for n threads at once, with the
        graph of tiles of that network, not clipped.
      ensemble: whether to average the eight flips and rotations.
    """

    square, step = False, STEP

    def __init__(
        self,
        config: Mapping,
        open_streams: Callable[[int], Runtime],
        ensemble: bool,
    ) -> None:
        model, settings = config["model"], config.get("eval", {})
        self.scale, self.ensemble = config["scale"], ensemble
        self.halo = network.geometry_of(model, self.scale).halo
        memory = settings.get("memory_gb", 0) * 1e9 or machine.free_memory() / 2
        widths = model["features"], model["bottleneck"]
        sizes = cutting.Network(self.scale, self.halo, *widths)
        tile, streams = settings.get("tile", 128), min(machine.cores(), MOST_STREAMS)
        self.plan = cutting.plan(sizes, 1, memory, tile, ensemble, streams)
        self.runtime = open_streams(self.plan.group)
        self._threads = concurrent.futures.ThreadPoolExecutor(self.plan.group)

    def __call__(
        self, lr: np.ndarray, progress: Callable[[int, int], None] | None = None
    ) -> np.ndarray:
        """Upscales one image; arguments and result as of `cutting.upscale_image`."""
        return cutting.upscale_image(self, lr, lambda tiles: tiles, progress)

    def finish(self, begun: np.ndarray) -> np.ndarray:
        """Computes tiles (n, h + 2 halo, w + 2 halo, 3). Returns (n, s h, s w, 3) of
        their dtype, averaged in float32 and rounded once; raises OutOfMemory."""
        levels = cutting.LEVELS[begun.dtype]
        views = range(cutting.VIEWS if self.ensemble else 1)
        units = [(tile, k) for tile in begun for k in views]
        sr = np.stack(list(self._threads.map(self._compute, *zip(*units, strict=True))))
        sr = sr.reshape(len(begun), len(views), *sr.shape[1:]).mean(axis=1)
        if levels == 1:
            return sr
        return np.floor(sr.clip(0, 1) * levels + np.float32(0.5)).astype(begun.dtype)

    def _compute(self, tile, view):
        """One view of a tile (h, w, 3), turned back: float32."""
        lr = images.turn(tile, view).astype(np.float32) / cutting.LEVELS[tile.dtype]
        try:
            sr = self.runtime.run(np.ascontiguousarray(lr.transpose(2, 0, 1)[None]))
        except Exception as error:  # of types of the runtimes' own
            if isinstance(error, MemoryError) or "alloc" in str(error).lower():
                raise cutting.OutOfMemory from error
            raise
        return images.turn_back(sr[0].transpose(1, 2, 0), view).copy()

    def make_smaller(self, side: int) -> None:
        """Computes half as much at once from now on, or raises MemoryError."""
        self.plan = cutting.smaller(self.plan, 1, self.ensemble, side)
        self._threads = concurrent.futures.ThreadPoolExecutor(self.plan.group)
