"""Runs in processes of their own: waiting for them, looking at what they leave."""

import contextlib
import json
import socket
import threading
import time

import pytest

from btsrn_jax import checkpoint, training

LATE = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@contextlib.contextmanager
def serving(server):
    """Yields the port of a server of `socketserver`, which answers in a thread."""
    with server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def until(process, seen, timeout=200):
    """Waits for `seen()`; fails where the process ends first."""
    end = time.monotonic() + timeout
    while not seen():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.001)


def lines(run):
    return [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]


def step_of(run):
    """The step of the last line of metrics."""
    try:
        return max((line["step"] for line in lines(run)), default=0)
    except (OSError, ValueError):
        return 0


def final(run):
    """{path: bytes} of the last state, and metrics by step without the clock."""
    folder = run / "checkpoints"
    steps = checkpoint.steps_in(folder)[::-1]
    step, arrays, _ = checkpoint.newest_whole(folder, steps)
    metrics = lines(run)
    steps = [line["step"] for line in metrics]
    assert steps == sorted(set(steps))  # each step once
    clock = ("time", "steps_per_second", "session_seconds", "patches_per_second")
    clock += ("utilisation", *(f"share_{part}" for part in training.PARTS))
    values = {
        line["step"]: {k: v for k, v in line.items() if k not in clock}
        for line in metrics
        if set(line) - {"step", *clock}  # where a run was stopped there is nothing else
    }
    return step, {name: array.tobytes() for name, array in arrays.items()}, values


def flip_a_bit(step):
    """In the middle of the file that every restore reads, the merged tree of arrays:
    others hold what was superseded, depending on when their writer woke."""
    (path,) = (step / "state" / "d").iterdir()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    with path.open("r+b") as file:  # in place: a server may hold it open
        file.write(data)
