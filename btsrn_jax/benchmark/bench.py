"""`btsrn bench`: speed, memory and utilisation, beside peers where they are asked for.

Each side runs in a process of its own, a worker (`worker.py`; the peers' are
`torch_peer.py` and `graph_peer.py`), so that all take turns under the same conditions,
and each has its own peak of memory. This module loads no JAX.
"""

import contextlib
import dataclasses
import os
import pathlib
import platform
import statistics
import time

from btsrn_jax import evaluation, storage
from btsrn_jax.benchmark.peers import find_peers
from btsrn_jax.benchmark.protocol import FRAMES, Spec, Worker
from btsrn_jax.errors import InputError
from btsrn_jax.machine import cores
from btsrn_jax.progress import logger

LEAST = 3  # repetitions of whatever is measured
ONCE = ("compile_ensemble", "loop")
SLOW = 40.0  # seconds; a frame that would take longer is not measured


def measure(
    spec: Spec, peers: dict[str, list[str]], repeats: int, seconds: float
) -> dict:
    """Measures everything about one spec; times are in seconds.

    Args:
      spec: what to measure.
      peers: the commands of the peers' workers by label.
      repeats: how often the main measurement is repeated.
      seconds: when they are over, fewer than `repeats` are made, but at least LEAST.
    """
    workers = {}
    sides = {"ours": {}} | {name: {} for name in peers}
    with contextlib.ExitStack() as stack:
        commands = {"ours": ["-m", "btsrn_jax.benchmark.worker"]} | peers
        for name, command in commands.items():
            logger.info(f"x{spec.scale} {spec.mode}: {name} compiles and warms up")
            workers[name] = Worker(command, spec)
            stack.callback(workers[name].end)
            sides[name] |= workers[name].about
        action = "step" if spec.mode == "train" else "image"
        times = take_turns(workers, action, repeats, seconds)
        for name, values in times.items():
            sides[name] |= spread(values)
            sides[name]["peak_bytes"] = workers[name].measure("peak")
            if name != "ours":
                sides[name] |= compared(times["ours"], values)
        ours = sides.pop("ours")
        for action in ours.pop("more"):
            expected = ours["seconds"] * ours["times"][action]
            if expected < SLOW or action == "loop":  # asked for by --loop
                logger.info(f"x{spec.scale} {spec.mode}: {action}")
                # Short ones often, so that their median means something.
                count = LEAST if expected > 0.3 else 10
                count = 1 if expected > 10 or action in ONCE else count
                taken = [workers["ours"].measure(action) for _ in range(count)]
                ours[action] = spread(taken)
    del ours["times"]
    result = {"spec": dataclasses.asdict(spec), "ours": ours}
    return result | ({"peers": sides} if peers else {}) | derived(spec, ours)


def take_turns(
    workers: dict[str, Worker], action: str, repeats: int, seconds: float
) -> dict[str, list[float]]:
    """Returns the seconds of each repetition by worker; the workers take turns."""
    times = {name: [] for name in workers}
    end = time.monotonic() + seconds
    for i in range(repeats):
        if i >= LEAST and time.monotonic() > end:
            logger.info(
                f"stopped after {i} of {repeats} repetitions: {seconds:.0f} s are over"
            )
            break
        for name, worker in workers.items():
            times[name].append(worker.measure(action))
        taken = ", ".join(f"{name} {1e3 * t[-1]:.1f} ms" for name, t in times.items())
        logger.info(f"{action} {i + 1} of {repeats}: {taken}")
    return times


def spread(values: list[float]) -> dict:
    """Returns the median of times and their range."""
    return {
        "seconds": statistics.median(values),
        "fastest": min(values),
        "slowest": max(values),
        "repetitions": len(values),
    }


def compared(ours: list[float], theirs: list[float]) -> dict:
    """Returns `ratio`, the peer's median time over ours (above 1, ours is faster), and
    `ratio_range`, the quartiles of that ratio over neighbouring repetitions."""
    pairs = [b / a for a, b in zip(ours, theirs, strict=True)]
    low, _, high = statistics.quantiles(pairs, n=4)
    return {
        "ratio": statistics.median(theirs) / statistics.median(ours),
        "ratio_range": [low, high],
    }


def derived(spec: Spec, ours: dict) -> dict:
    """Returns what follows from the times and facts of our side."""
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
    """Returns the machine that the figures hold for."""
    model = platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        names = [line for line in file if line.startswith("model name")]
        model = names[0].split(":")[1].strip() if names else model
    return {
        "processor": model,
        "cores": cores(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
    }


def table(report: dict) -> str:
    """Returns the results of a report as a Markdown table."""
    rows = []
    for result in report["results"]:
        spec = result["spec"]
        row = {"scale": f"x{spec['scale']}"}
        if spec["mode"] == "train":
            row |= {"batch": f"{spec['batch']}", "patch": f"{spec['patch']}"}
        else:
            row["HR side"] = f"{spec['scale'] * spec['side']}"
        row |= _times(result["ours"])
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
    return evaluation.markdown(list(rows[0]), [list(row.values()) for row in rows])


def peers_table(report: dict) -> str:
    """Returns the peers of a report beside us as a Markdown table; `ratio` is a peer's
    time over ours."""
    rows = []
    for result in report["results"]:
        spec = result["spec"]
        train = spec["mode"] == "train"
        size = spec["batch"] if train else spec["scale"] * spec["side"]
        for name, side in ({"ours": result["ours"]} | result["peers"]).items():
            row = {"scale": f"x{spec['scale']}"}
            row["batch" if train else "HR side"] = f"{size}"
            row |= {"program": name, **_times(side), "ratio": "1"}
            if "ratio" in side:
                low, high = side["ratio_range"]
                row["ratio"] = f"{side['ratio']:.2f} ({low:.2f}-{high:.2f})"
            rows.append(row)
    return evaluation.markdown(list(rows[0]), [list(row.values()) for row in rows])


def _frames(result):
    """Returns frames a second, alone / with the ensemble: by the measured ratio."""
    ratio = result.get("ensemble_ratio")
    row = {"ensemble": f"{ratio:.2f} x" if ratio else "-"}
    for name in FRAMES:
        rate = result["frames_per_second"].get(name)
        row[f"{name} frames/s"] = f"{rate:.3g}" if rate else "-"
        if rate and ratio:
            row[f"{name} frames/s"] += f" / {rate / ratio:.2g}"
    return row


def _times(side):
    low, high = 1e3 * side["fastest"], 1e3 * side["slowest"]
    return {
        "ms": f"{1e3 * side['seconds']:.4g} ({low:.4g}-{high:.4g})",
        "memory": f"{side['peak_bytes'] / 1e6:.0f} MB",
    }


def run_benchmark(
    specs: list[Spec], peers: list[str], repeats: int, path: pathlib.Path | None
) -> None:
    """Measures each spec, prints a table, and writes every figure as JSON.

    Args:
      specs: what to measure, all of one mode.
      peers: names of `peers.NAMES`, to be measured in turns with ours.
      repeats: of the main measurement, at least LEAST.
      path: the JSON file, None for none.

    Raises:
      InputError: for what cannot be measured, before anything is.
    """
    commands = find_peers(peers, specs[0].mode)
    if repeats < LEAST:
        raise InputError(f"--repeats {repeats}: at least {LEAST}")
    if any(spec.mode == "infer" and spec.side < 1 for spec in specs):
        raise InputError("--side: at least as many pixels as the scale")
    if path is not None and not path.resolve().parent.is_dir():
        raise InputError(f"--json {path}: there is no folder {path.resolve().parent}")
    report = {"mode": specs[0].mode, "machine": machine(), "results": []}
    for spec in specs:
        seconds = 240 / (1 + len(specs))  # with the peer's trials under 12 minutes
        report["results"].append(measure(spec, commands, repeats, seconds))
    if len(specs) == 1 and commands:
        first = next(iter(commands))
        report["ratio"] = report["results"][0]["peers"][first]["ratio"]
    if path is not None:
        storage.write(path, storage.to_json(report, 2) + "\n")
    print(table(report))
    if commands:
        print(f"\n{peers_table(report)}")
