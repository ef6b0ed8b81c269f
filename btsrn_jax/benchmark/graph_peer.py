"""onnxruntime's and OpenVINO's side of `btsrn bench infer --peer`.

    python -m btsrn_jax.benchmark.graph_peer onnxruntime|openvino whole|tiles SPEC

SPEC is a `protocol.Spec` as JSON; `protocol.answer` says what is printed. The graph is
made by another process, so that the memory of JAX does not count.
"""

import functools
import multiprocessing
import sys
import time
from collections.abc import Callable

import numpy as np

from btsrn_jax import inference, network
from btsrn_jax.benchmark import protocol


def make_graph(spec: protocol.Spec) -> tuple[dict, bytes]:
    """Returns the config of a network of noise, and the graph of its tiles."""
    from btsrn_jax.benchmark import worker

    config = worker.make_config(spec).to_dict()
    model = network.build(config["model"], config["scale"])
    variables = worker.noise(model)
    made = network.build_onnx(model, variables, {}, tile=True, clip=False)
    return config, made.SerializeToString()


def whole_image(
    runtime: inference.Runtime, halo: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns upscale(lr) of uint8 (h, w, 3), the whole image at once."""

    def upscale(image):
        padded = np.pad(image, ((halo, halo), (halo, halo), (0, 0)), mode="symmetric")
        lr = padded.transpose(2, 0, 1)[None].astype(np.float32) / 255
        sr = runtime.run(np.ascontiguousarray(lr))[0].transpose(1, 2, 0)
        return np.floor(sr.clip(0, 1) * 255 + np.float32(0.5)).astype(np.uint8)

    return upscale


def prepare(spec: protocol.Spec) -> tuple[dict, dict]:
    """Returns what `protocol.answer` asks for."""
    name, way = sys.argv[1:3]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        config, graph = pool.apply(make_graph, (spec,))
    start = time.perf_counter()
    open_streams = functools.partial(inference.open_runtime, name, graph)
    if way == "tiles":
        upscale = inference.GraphUpscaler(config, open_streams, ensemble=False)
        runtime, about = upscale.runtime, upscale.plan._asdict()
    else:
        runtime, about = open_streams(1), {}
        halo = network.geometry_of(config["model"], config["scale"]).halo
        upscale = whole_image(runtime, halo)
    shape = (spec.side, spec.side, 3)
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    def timed():
        start = time.perf_counter()
        upscale(image)
        return time.perf_counter() - start

    first = timed()
    taken = time.perf_counter() - start
    actions = {"image": timed, "peak": protocol.resident_peak}
    return actions, {
        "compile": max(taken - min(first, timed()), 0.0),
        "devices": runtime.device,
        "setting": f"{runtime.title}, {way}",
        **about,
    }


if __name__ == "__main__":
    protocol.answer(prepare)
