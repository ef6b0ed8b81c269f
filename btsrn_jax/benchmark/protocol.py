"""How `btsrn bench` talks with the processes that measure; loads no JAX.

A worker prints its facts when it is ready, then answers each line that it is sent with
the seconds that one repetition took.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import resource
import subprocess
import sys
from collections.abc import Callable

from btsrn_jax.errors import Failure, InputError

FRAMES = {"720p": (1280, 720), "1080p": (1920, 1080), "4K": (3840, 2160)}


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a worker is asked to measure."""

    mode: str
    """"train" or "infer"."""
    scale: int
    """2, 3 or 4."""
    batch: int = 32
    """Patches of a training step."""
    patch: int = 108
    """HR pixels of a side of a patch."""
    side: int = 0
    """LR pixels of a side of the image to enlarge."""
    features: int = 128
    """As config.model.features."""
    bottleneck: int = 64
    """As config.model.bottleneck."""
    low_blocks: int = 6
    """As config.model.low_blocks."""
    high_blocks: int = 4
    """As config.model.high_blocks."""
    dtype: str = "auto"
    """Of the convolutions: "auto", "float32" or "bfloat16"."""
    frames: tuple[str, ...] = tuple(FRAMES)
    """Names of whole frames to time as well, among FRAMES."""
    loop: bool = False
    """True to time the loop of a whole training run as well."""


def answer(prepare: Callable[[Spec], tuple[dict, dict]]) -> None:
    """Runs one benchmark worker: prints its machine, then answers one command per line.

    Args:
      prepare: takes the Spec, which is the last argument of the process, and returns
        (actions, facts). Each action returns the seconds of one repetition, "peak" the
        bytes of memory. The facts are printed first, as JSON.
    """
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)  # nothing else that is printed may come between the answers
        try:
            actions, facts = prepare(Spec(**json.loads(sys.argv[-1])))
        except (InputError, Failure) as error:
            blames_input = isinstance(error, InputError)
            actions, facts = {}, {"error": str(error), "input": blames_input}
        print(json.dumps(facts), file=out, flush=True)
        for line in sys.stdin:
            print(json.dumps(actions[line.strip()]()), file=out, flush=True)


def resident_peak() -> int:
    """Returns the most memory that this process has had, in bytes."""
    with contextlib.suppress(OSError, StopIteration):
        # Linux's getrusage counts the process that this one was started from, too.
        status = pathlib.Path("/proc/self/status").read_text().splitlines()
        peak = next(line for line in status if line.startswith("VmHWM:"))
        return int(peak.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


class Worker:
    """A process that measures; `about` holds the facts that it printed first."""

    def __init__(self, command: list[str], spec: Spec) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *command, json.dumps(dataclasses.asdict(spec))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # On a GPU both sides have to share the memory.
            env={"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ},
        )
        self.about = self._read()
        if "error" in self.about:
            self.end()
            kind = InputError if self.about["input"] else Failure
            raise kind(self.about["error"])

    def measure(self, action: str) -> float:
        """Returns what the worker answers: seconds of one repetition."""
        self.process.stdin.write(action + "\n")
        self.process.stdin.flush()
        return self._read()

    def end(self) -> None:
        """Ends the process: closes its input, and kills it after ten seconds."""
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
            raise Failure(f"a measuring process ended with exit code {code}")
        return json.loads(line)
