"""`btsrn bench`: speed, memory, utilisation, beside PyTorch where it is asked for.

What is measured runs in processes of its own (`workload.py`; the peer's in
`tests/peer/`): each says a line of facts when it is ready, then answers every line it
is sent with the seconds that one repetition took. So the two sides take turns under
the same conditions, and their peaks of memory are their own. This module, which both
import, needs no JAX.
"""

import contextlib
import importlib.util
import json
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from btsrn_jax.errors import InputError

PEER = pathlib.Path("tests/peer/worker.py")
LEAST = 3  # repetitions of whatever is measured
FRAMES = {"720p": (1280, 720), "1080p": (1920, 1080), "4K": (3840, 2160)}
ONCE = ("compile_ensemble", "loop")
SLOW = 40.0  # seconds; a frame that would take longer is not measured


class Spec(NamedTuple):
    """What a worker is asked to measure. batch, patch (HR pixels): of a training step.
    side: LR pixels of a square image. dtype: of the convolutions. frames: whole ones to
    time as well, of `FRAMES`. loop: time a whole run as well."""

    mode: str
    scale: int
    batch: int = 32
    patch: int = 108
    side: int = 0
    features: int = 128
    bottleneck: int = 64
    low_blocks: int = 6
    high_blocks: int = 4
    dtype: str = "auto"
    frames: tuple[str, ...] = tuple(FRAMES)
    loop: bool = False


def answer(prepare: Callable[[Spec], tuple[dict, dict]]) -> None:
    """A worker's life. `prepare` gives its actions, each returning the seconds of one
    repetition, or for "peak" bytes of memory; and its facts, said first."""
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)  # whatever else is printed must not come between the answers
        try:
            actions, facts = prepare(Spec(*json.loads(sys.argv[1])))
        except InputError as error:
            actions, facts = {}, {"error": str(error)}
        print(json.dumps(facts), file=out, flush=True)
        for line in sys.stdin:
            print(json.dumps(actions[line.strip()]()), file=out, flush=True)


def resident_peak() -> int:
    """The most memory that this process has had, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


class Worker:
    """A process that measures; `about` is what it said at its start."""

    def __init__(self, command: list[str], spec: Spec):
        self.process = subprocess.Popen(
            [sys.executable, *command, json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # On a GPU both sides share the memory.
            env={"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ},
        )
        self.about = self._read()
        if "error" in self.about:
            self.end()
            raise InputError(self.about["error"])

    def measure(self, action: str) -> float:
        """What the worker answers: seconds of one repetition."""
        self.process.stdin.write(action + "\n")
        self.process.stdin.flush()
        return self._read()

    def end(self):
        """Ends the process: by closing its stdin, or the hard way."""
        try:
            with contextlib.suppress(BrokenPipeError):
                self.process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()

    def _read(self):
        line = self.process.stdout.readline()
        if not line:
            self.end()
            code = self.process.returncode
            raise RuntimeError(f"a measuring process ended with exit code {code}")
        return json.loads(line)


def find_peer(name: str | None) -> list[str] | None:
    """The command of the peer's worker; InputError where it cannot run."""
    if name is None:
        return None
    if not PEER.is_file():
        raise InputError(
            f"--peer {name}: no {PEER} here; run it in a checkout of the source"
        )
    if importlib.util.find_spec("torch") is None:
        raise InputError(
            f"--peer {name}: PyTorch is not installed; pip install -e '.[peer]'"
        )
    return [str(PEER)]


def measure(
    spec: Spec,
    peer: list[str] | None,
    repeats: int,
    seconds: float,
    say: Callable[[str], None],
) -> dict:
    """Everything about one scale; times in seconds.

    Args:
      repeats: of the main measurement, unless `seconds` run out before (but `LEAST`).
      say: takes lines of progress.
    """
    workers = {}
    result = {"spec": spec._asdict()}
    with contextlib.ExitStack() as stack:
        for name, command in (
            ("ours", ["-m", "btsrn_jax.benchmark.worker"]),
            ("peer", peer),
        ):
            if command:
                say(f"x{spec.scale} {spec.mode}: {name} compiles and warms up")
                workers[name] = Worker(command, spec)
                stack.callback(workers[name].end)
                result[name] = dict(workers[name].about)
        action = "step" if spec.mode == "train" else "image"
        times = take_turns(workers, action, repeats, seconds, say)
        for name, values in times.items():
            result[name] |= spread(values)
            result[name]["peak_bytes"] = workers[name].measure("peak")
        if peer:
            result |= compared(times["ours"], times["peer"])
        for action in result["ours"].pop("more"):
            expected = result["ours"]["seconds"] * result["ours"]["times"][action]
            if expected < SLOW or action == "loop":  # which was asked for
                say(f"x{spec.scale} {spec.mode}: {action}")
                # Short ones often, so that their median means something.
                count = LEAST if expected > 0.3 else 10
                count = 1 if expected > 10 or action in ONCE else count
                taken = [workers["ours"].measure(action) for _ in range(count)]
                result["ours"][action] = spread(taken)
    del result["ours"]["times"]
    return result | derived(spec, result["ours"])


def take_turns(workers, action, repeats, seconds, say) -> dict[str, list[float]]:
    """Seconds by worker, one repetition each in turn."""
    times = {name: [] for name in workers}
    end = time.monotonic() + seconds
    for i in range(repeats):
        if i >= LEAST and time.monotonic() > end:
            say(f"stopped after {i} of {repeats} repetitions: {seconds:.0f} s are over")
            break
        for name, worker in workers.items():
            times[name].append(worker.measure(action))
        taken = ", ".join(f"{name} {1e3 * t[-1]:.1f} ms" for name, t in times.items())
        say(f"{action} {i + 1} of {repeats}: {taken}")
    return times


def spread(values: list[float]) -> dict:
    """The median and what lies around it."""
    return {
        "seconds": statistics.median(values),
        "fastest": min(values),
        "slowest": max(values),
        "repetitions": len(values),
    }


def compared(ours: list[float], theirs: list[float]) -> dict:
    """ratio: the peer's median time over ours; above 1, ours is faster. ratio_range:
    the quartiles of the same over neighbouring repetitions."""
    pairs = [b / a for a, b in zip(ours, theirs, strict=True)]
    low, _, high = statistics.quantiles(pairs, n=4)
    return {
        "ratio": statistics.median(theirs) / statistics.median(ours),
        "ratio_range": [low, high],
    }


def derived(spec: Spec, ours: dict) -> dict:
    """What follows from the times and facts of our side."""
    seconds = ours["seconds"]
    achieved = ours["flops"] / seconds
    found = {"flops_per_second": achieved, "utilisation": achieved / ours["matmul"]}
    if spec.mode == "train":
        found["patches_per_second"] = spec.batch / seconds
        found["megapixels_per_second"] = spec.batch * spec.patch**2 / 1e6 / seconds
        found["input_share"] = ours["input"]["seconds"] / seconds
        found["fits_8gb"] = ours["step_bytes"] < 8e9
        if "loop" in ours:
            found["loop_ratio"] = ours["loop"]["seconds"] / seconds
        return found
    found["megapixels_per_second"] = (spec.scale * spec.side) ** 2 / 1e6 / seconds
    if "ensemble" in ours:
        found["ensemble_ratio"] = ours["ensemble"]["seconds"] / seconds
    found["frames_per_second"] = {
        name: 1 / ours[name]["seconds"] for name in FRAMES if name in ours
    }
    return found


def machine() -> dict:
    """What the figures hold for."""
    model = platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        names = [line for line in file if line.startswith("model name")]
        model = names[0].split(":")[1].strip() if names else model
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
    }


def table(report: dict) -> str:
    """A report in Markdown."""
    rows = []
    for result in report["results"]:
        spec = result["spec"]
        row = {"scale": f"x{spec['scale']}"}
        if spec["mode"] == "train":
            row |= {"batch": f"{spec['batch']}", "patch": f"{spec['patch']}"}
        else:
            row["HR side"] = f"{spec['scale'] * spec['side']}"
        row |= _times("", result["ours"])
        if "peer" in result:
            low, high = result["ratio_range"]
            row |= _times("PyTorch ", result["peer"])
            row["ratio"] = f"{result['ratio']:.2f} ({low:.2f}-{high:.2f})"
        row["HR MP/s"] = f"{result['megapixels_per_second']:.3g}"
        if spec["mode"] == "train":
            row["patches/s"] = f"{result['patches_per_second']:.3g}"
            row["input"] = f"{result['input_share']:.2%}"
            if "loop_ratio" in result:
                row["loop / step"] = f"{result['loop_ratio']:.3f}"
            row["in 8 GB"] = "yes" if result["fits_8gb"] else "no"
        else:
            row |= _frames(result)
        row["utilisation"] = f"{result['utilisation']:.0%}"
        row["compile"] = f"{result['ours']['compile']:.1f} s"
        rows.append(row)
    return markdown(rows)


def _frames(result):
    """Frames a second, alone / with the ensemble; the latter by the ratio measured."""
    ratio = result.get("ensemble_ratio")
    row = {"ensemble": f"{ratio:.2f} x" if ratio else "-"}
    for name in FRAMES:
        rate = result["frames_per_second"].get(name)
        row[f"{name} frames/s"] = f"{rate:.3g}" if rate else "-"
        if rate and ratio:
            row[f"{name} frames/s"] += f" / {rate / ratio:.2g}"
    return row


def _times(prefix, side):
    low, high = 1e3 * side["fastest"], 1e3 * side["slowest"]
    return {
        f"{prefix}ms": f"{1e3 * side['seconds']:.4g} ({low:.4g}-{high:.4g})",
        f"{prefix}memory": f"{side['peak_bytes'] / 1e6:.0f} MB",
    }


def markdown(rows: list[dict]) -> str:
    """Rows of equal keys as a table."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *[list(r.values()) for r in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def run_benchmark(
    specs: list[Spec], peer: str | None, repeats: int, path, say: Callable
) -> None:
    """Measures each spec, prints a table, writes JSON to `path` if there is one."""
    command = find_peer(peer)
    if repeats < LEAST:
        raise InputError(f"--repeats {repeats}: at least {LEAST}")
    if any(spec.mode == "infer" and spec.side < 1 for spec in specs):
        raise InputError("--side: at least as many pixels as the scale")
    if path is not None and not path.resolve().parent.is_dir():
        raise InputError(f"--json {path}: there is no folder {path.resolve().parent}")
    report = {"mode": specs[0].mode, "machine": machine(), "results": []}
    for spec in specs:
        seconds = 240 / (1 + len(specs))  # with the peer's trials under 12 minutes
        report["results"].append(measure(spec, command, repeats, seconds, say))
    if len(specs) == 1 and peer:
        report["ratio"] = report["results"][0]["ratio"]
    if path is not None:
        path.write_text(json.dumps(report, indent=2) + "\n")
    print(table(report))
