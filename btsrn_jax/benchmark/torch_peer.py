"""The peer's side of `btsrn bench --peer torch`: PyTorch in its best setting.

    python -m btsrn_jax.benchmark.torch_peer SPEC

The network is the one that is exported, export/btsrn_torch.py. SPEC is a
`protocol.Spec` as JSON; `protocol.answer` says what is printed. Nothing imports this
module, since it imports PyTorch.

Settings are tried first, each on a few repetitions; the fastest one is measured.
"""

import multiprocessing
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from btsrn_jax import export
from btsrn_jax.benchmark import protocol

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
TRY_SECONDS = 60  # for trying settings; the last one is finished


def timed(function: Callable[[], object]) -> float:
    """Returns the seconds until the result is there."""
    start = time.perf_counter()
    function()
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def say(text: str) -> None:
    """Says something of PyTorch to people."""
    print(f"  PyTorch {text}", file=sys.stderr, flush=True)


class Setting:
    """One way to run the network. `parts`: patches or images at once; 0: all."""

    def __init__(
        self, spec: protocol.Spec, channels_last: bool, compiled: bool, parts: int
    ) -> None:
        self.spec, self.parts, self.compiled = spec, parts, compiled
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        dtype = spec.dtype
        if dtype == "auto":
            dtype = "bfloat16" if CUDA and spec.mode == "train" else "float32"
        self.low = dtype == "bfloat16"
        torch.manual_seed(0)
        sizes = spec.features, spec.bottleneck, spec.low_blocks, 0, spec.high_blocks
        network = export.torch_network().BTSRN(spec.scale, *sizes)
        self.net = network.to(DEVICE, memory_format=self.format)
        trains = spec.mode == "train"
        self.function = self.net.super_resolve if trains else self.net.forward
        if compiled:
            mode = "reduce-overhead" if CUDA else "default"  # with CUDA graphs
            self.function = torch.compile(self.function, mode=mode, dynamic=False)
        self.optimizer = torch.optim.Adam(self.net.parameters(), 1e-3)
        self.name = (
            ("channels_last" if channels_last else "contiguous")
            + (f", {parts or 'all'} at once" if spec.mode == "train" else "")
            + (", compiled" if compiled else "")
        )

    def run(self, lr: torch.Tensor) -> torch.Tensor:
        """Returns what the network makes of (B, 3, h, w) in [0, 1], float32."""
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.low):
            return self.function(lr).float()

    def step(self, lr: torch.Tensor, hr: torch.Tensor) -> None:
        """One update by the mean square error; gradients of parts are added up."""
        parts = self.parts or len(lr)
        self.optimizer.zero_grad()
        for i in range(0, len(lr), parts):
            sr = self.run(lr[i : i + parts])
            error = torch.mean((sr - hr[i : i + parts]) ** 2)
            (error * (len(sr) / len(lr))).backward()
        self.optimizer.step()

    @torch.inference_mode()
    def upscale(self, image: np.ndarray) -> np.ndarray:
        """Upscales uint8 (h, w, 3), from memory to memory."""
        lr = torch.from_numpy(image).to(DEVICE).permute(2, 0, 1)[None].float() / 255
        sr = self.run(lr.contiguous(memory_format=self.format))
        sr = (sr[0] * 255 + 0.5).floor().to(torch.uint8)
        return sr.permute(1, 2, 0).contiguous().cpu().numpy()


def repetition(
    spec: protocol.Spec, setting: Setting, batch: int
) -> Callable[[], object]:
    """Returns what is timed: a step on data that lies on the device, or one image."""
    if spec.mode == "infer":
        shape = (spec.side, spec.side, 3)
        image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        return lambda: setting.upscale(image)
    side = spec.patch // spec.scale
    target = spec.scale * side - 2 * max(setting.net.border, 2 * spec.scale)
    lr, hr = (
        torch.rand(batch, 3, n, n, device=DEVICE).to(memory_format=setting.format)
        for n in (side, target)
    )
    return lambda: setting.step(lr, hr)


def choices_of(spec: protocol.Spec) -> list[tuple[bool, bool, int]]:
    """Returns (channels_last, compiled, parts) to try, the likely ones first."""
    if CUDA or spec.mode == "infer":
        return [(True, False, 0), (False, False, 0)]
    return [
        *((True, False, n) for n in (2, 1, 4, 0)),
        *((False, False, n) for n in (2, 0)),
    ]


def try_settings(spec: protocol.Spec) -> dict[tuple[bool, bool, int], float]:
    """Returns the seconds of a patch or image by choices; few patches tell enough."""
    tried, start = {}, time.monotonic()

    def attempt(choices):
        setting = Setting(spec, *choices)
        batch = min(spec.batch, 8) if choices[2] else spec.batch
        function = repetition(spec, setting, batch)
        timed(function)  # compiles, warms up
        tried[choices] = min(timed(function) for _ in range(2)) / batch
        say(f"{setting.name}: {1e3 * tried[choices]:.1f} ms")

    for choices in choices_of(spec):
        if time.monotonic() - start < TRY_SECONDS:
            attempt(choices)
    fastest = min(tried, key=tried.get)
    if time.monotonic() - start < TRY_SECONDS:
        try:
            attempt((fastest[0], True, fastest[2]))
        except Exception as error:  # there is no compiler, for one
            say(f"compiled: {type(error).__name__}")
    return tried


def prepare(spec: protocol.Spec) -> tuple[dict, dict]:
    """Returns what `protocol.answer` asks for. Settings are tried in a process of their
    own, so that their memory does not count."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        tried = pool.apply(try_settings, (spec,))
    setting = Setting(spec, *min(tried, key=tried.get))
    function = repetition(spec, setting, spec.batch)
    seconds = timed(function)
    say(f"takes {setting.name}")
    actions = {
        "step" if spec.mode == "train" else "image": lambda: timed(function),
        "peak": torch.cuda.max_memory_allocated if CUDA else protocol.resident_peak,
    }
    return actions, {
        "setting": setting.name,
        "tried": {Setting(spec, *c).name: value for c, value in tried.items()},
        "compile": seconds,
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__},
    }


if __name__ == "__main__":
    protocol.answer(prepare)
