"""The peer's side of `btsrn bench --peer torch`: PyTorch in its best setting.

Settings are tried first, each on a few repetitions; the fastest one is measured.
"""

import multiprocessing
import sys
import time

import numpy as np
import torch
from network import BTSRN

from btsrn_jax.benchmark import protocol

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
TRY_SECONDS = 60  # for trying settings; the last one is finished


def timed(function):
    """Returns the seconds until the result is there."""
    start = time.perf_counter()
    function()
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def say(text):
    print(f"  PyTorch {text}", file=sys.stderr, flush=True)


class Setting:
    """One way to run the network. `parts`: patches or images at once; 0: all."""

    def __init__(self, spec, channels_last, compiled, parts):
        self.spec, self.parts, self.compiled = spec, parts, compiled
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        dtype = spec.dtype
        if dtype == "auto":
            dtype = "bfloat16" if CUDA and spec.mode == "train" else "float32"
        self.low = dtype == "bfloat16"
        torch.manual_seed(0)
        sizes = spec.features, spec.bottleneck, spec.low_blocks, spec.high_blocks
        self.net = BTSRN(spec.scale, *sizes).to(DEVICE, memory_format=self.format)
        self.function = self.net.super_resolve
        if compiled:
            mode = "reduce-overhead" if CUDA else "default"  # with CUDA graphs
            self.function = torch.compile(self.function, mode=mode, dynamic=False)
        self.optimizer = torch.optim.Adam(self.net.parameters(), 1e-3)
        self.name = (
            ("channels_last" if channels_last else "contiguous")
            + (f", {parts or 'all'} at once" if spec.mode == "train" else "")
            + (", compiled" if compiled else "")
        )

    def super_resolve(self, lr):
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.low):
            return self.function(lr)

    def step(self, lr, hr):
        """One update by the mean square error; gradients of parts are added up."""
        parts = self.parts or len(lr)
        self.optimizer.zero_grad()
        for i in range(0, len(lr), parts):
            sr = self.super_resolve(lr[i : i + parts])
            error = torch.mean((sr - hr[i : i + parts]) ** 2)
            (error * (len(sr) / len(lr))).backward()
        self.optimizer.step()

    @torch.inference_mode()
    def enlarge(self, image, halo):
        """uint8 (h, w, 3) to uint8, from memory to memory, mirrored at its sides."""
        image = np.pad(image, ((halo, halo), (halo, halo), (0, 0)), "symmetric")
        lr = torch.from_numpy(image).to(DEVICE).permute(2, 0, 1)[None].float() / 255
        sr = self.super_resolve(lr.contiguous(memory_format=self.format))
        side = self.spec.scale * (image.shape[0] - 2 * halo)
        border = (sr.shape[2] - side) // 2
        sr = sr[0, :, border : border + side, border : border + side]
        sr = (sr.clamp(0, 1) * 255 + 0.5).floor().to(torch.uint8)
        return sr.permute(1, 2, 0).contiguous().cpu().numpy()


def halo(spec):
    """Returns the LR pixels that the network takes off on each side (docs/paper.md,
    section 1)."""
    per_side = 4 if spec.scale == 4 else spec.scale
    return max(2, spec.low_blocks + -(-spec.high_blocks // per_side))


def repetition(spec, setting, batch):
    """Returns what is timed: a step on data that lies on the device, or one image."""
    if spec.mode == "infer":
        shape = (spec.side, spec.side, 3)
        image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        return lambda: setting.enlarge(image, halo(spec))
    side = spec.patch // spec.scale
    target = spec.scale * (side - 2 * spec.low_blocks) - 2 * spec.high_blocks
    lr, hr = (
        torch.rand(batch, 3, n, n, device=DEVICE).to(memory_format=setting.format)
        for n in (side, target)
    )
    return lambda: setting.step(lr, hr)


def choices_of(spec):
    """Returns (channels_last, compiled, parts) to try, the likely ones first."""
    if CUDA or spec.mode == "infer":
        return [(True, False, 0), (False, False, 0)]
    return [
        *((True, False, n) for n in (2, 1, 4, 0)),
        *((False, False, n) for n in (2, 0)),
    ]


def try_settings(spec):
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


def prepare(spec):
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
