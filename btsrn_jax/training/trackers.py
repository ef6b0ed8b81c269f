"""Trackers: where people watch a run's metrics and pictures, beside metrics.jsonl.

A new one is a class here with its name in TRACKERS, and that name in `fields.FIELDS`
(docs/extending.md). Nothing here loads JAX.
"""

import dataclasses
import importlib.util
import os
import pathlib
import queue
import secrets
import shlex
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from btsrn_jax import storage
from btsrn_jax.errors import InputError, first_line
from btsrn_jax.progress import logger

WANDB_ID = "wandb-id"  # in the run directory
INIT_SECONDS = 30  # for W&B's server to answer; then the run is kept offline
FINISH_SECONDS = 60  # at the end of a run, for a tracker to send what it still has
MOST_WAITING = 1000  # values and pictures that a slow tracker may be behind


@dataclasses.dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of the run."""

    name: str
    """That of the run directory."""

    home: Any
    """The run directory, also one in a bucket."""

    folder: pathlib.Path
    """A folder of this machine for the tracker's files: the run directory, or what is
    copied there."""

    config: Mapping
    """As config.json holds it."""

    start: int
    """The step from which the run continues; 0 for a new one."""


class Tracker:
    """Takes what a run measures. A subclass implements what it has use for.

    All of it is called in one thread of the first process, apart from training. What it
    raises is told in one line, and ends the tracking, not the run.
    """

    def __init__(self, run: TrackedRun) -> None:
        """Opens the tracker for a run that begins or continues."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Takes metrics of a step, all finite. A step may come in several parts, and
        the figures of a validation some steps late."""

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Takes a picture of a validation, (h, w, 3) uint8; `name` is that of the
        image, the same at every step."""

    def finish(self, summary: Mapping[str, float], failed: bool) -> None:
        """Ends. `summary` has the figures of the best step (`final_figures`); `failed`
        is False for a run that is done, or was stopped and can be continued."""


class TensorBoard(Tracker):
    """Writes TensorBoard's events into the run directory."""

    def __init__(self, run: TrackedRun) -> None:
        # Imported here: where PyTorch is installed, tensorboardX loads it, 0.5 GB.
        from tensorboardX import summary
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        self._summary, self._proto = summary, event_pb2
        # Not SummaryWriter: a full disk ends its thread with a traceback, and then it
        # waits for that thread.
        self._file = EventsWriter(os.fspath(run.folder / "events"))
        started = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        # What came after this step in an earlier part of the run is not shown.
        self._write(run.start + 1, session_log=started)
        self._file.flush()

    def _write(self, step, **content):
        now = time.time()
        event = self._proto.Event(step=int(step), wall_time=now, **content)
        self._file.write_event(event)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._write(step, summary=self._summary.scalar(name, value))
        self._file.flush()

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        made = self._summary.image(f"pictures/{name}", image, dataformats="HWC")
        self._write(step, summary=made)
        self._file.flush()

    def finish(self, summary: Mapping[str, float], failed: bool) -> None:
        self._file.close()


class WandB(Tracker):
    """Sends a run to Weights & Biases, or keeps it offline in the run directory.

    What W&B's own variables say (WANDB_MODE, WANDB_PROJECT, WANDB_NAME, WANDB_DIR and
    so on) is done. A run that is continued continues the same run there.
    """

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        self._wandb = wandb
        path = run.home / WANDB_ID
        if not storage.is_there(path):
            known = os.environ.get("WANDB_RUN_ID")
            storage.write(path, (known or secrets.token_hex(4)) + "\n")
        about = {
            "id": path.read_text().strip(),
            "resume": "allow",
            "project": os.environ.get("WANDB_PROJECT") or "btsrn-jax",
            "name": os.environ.get("WANDB_NAME") or run.name,
            "dir": os.environ.get("WANDB_DIR") or os.fspath(run.folder),
            "config": dict(run.config),
            "allow_val_change": True,  # such as more steps, on resume
            "settings": wandb.Settings(
                silent=True,
                console="off",
                symlink=False,
                init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT", INIT_SECONDS)),
                finish_timeout=0.75 * FINISH_SECONDS,
                finish_timeout_raises=True,
            ),
        }
        try:
            self._run = wandb.init(**about)
        except wandb.errors.CommError as error:
            reason = f"Weights & Biases cannot be reached ({first_line(error)})"
            logger.warning(f"{reason}: this part of the run is kept offline")
            wandb.teardown()  # or it would find the id in use
            self._run = wandb.init(**about, mode="offline")
        # Of our own, since W&B's steps may not go back, as those of a resumed run do.
        self._run.define_metric("*", step_metric="step")
        folder = pathlib.Path(self._run.dir).parent
        offline = f"offline; to send it: wandb sync {shlex.quote(str(folder))}"
        where = offline if self._run.offline else self._run.url
        logger.info(f"Weights & Biases: {where}")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({**values, "step": step})

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        made = self._wandb.Image(image, caption="bicubic, network, original")
        self._run.log({f"pictures/{name}": made, "step": step})

    def finish(self, summary: Mapping[str, float], failed: bool) -> None:
        self._run.summary.update(dict(summary))
        self._run.finish(exit_code=int(failed))


TRACKERS = {"tensorboard": TensorBoard, "wandb": WandB, "none": Tracker}


def check_tracker(name: str) -> None:
    """Raises InputError where a tracker cannot be used here, before anything is done.

    Args:
      name: `train.tracker` of a valid config.
    """
    if name not in TRACKERS:
        raise InputError(
            f"config.train.tracker is {name!r}: training/trackers.py lacks it"
        )
    if name != "wandb":
        return
    found = importlib.util.find_spec("wandb")
    if found is None or found.origin is None:  # a folder of its runs is no package
        raise InputError(
            "config.train.tracker=wandb needs pip install 'btsrn-jax[wandb]'"
        )
    import wandb

    try:
        wandb.setup(settings=wandb.Settings(silent=True))
        mode = wandb.setup().settings.mode
        known = mode not in ("online", "shared", "run") or wandb.login(prompt=False)
    except Exception as error:  # pydantic's for settings, its own for a key
        text = " ".join(str(error).split())[:300]
        if text.startswith("Failed to"):
            return  # its server is not reached, which shall stop no training
        raise InputError(f"config.train.tracker=wandb: {text}") from None
    if not known:
        raise InputError(
            "config.train.tracker=wandb: nobody is logged in to Weights & Biases:"
            " wandb login, or WANDB_API_KEY, or WANDB_MODE=offline"
        )


class Tracking:
    """Calls a tracker in a thread: neither its failure nor its slowness stops a run.

    Args:
      name: one of TRACKERS.
      run: what the tracker is told.
    """

    def __init__(self, name: str, run: TrackedRun) -> None:
        self._name = name
        self._lost = False
        self._calls = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._work, args=(run,), daemon=True)
        self._thread.start()

    def _work(self, run):
        try:
            tracker = TRACKERS[self._name](run)
            while (call := self._calls.get()) is not None:
                call(tracker)
        except Exception as error:  # of any type: it is somebody else's code
            self._give_up(first_line(error))

    def _give_up(self, reason):
        if not self._lost:
            self._lost = True
            logger.warning(
                f"the tracker {self._name} failed ({reason}); training goes on without"
            )

    def _add(self, call: Callable[[Tracker], None] | None):
        if self._lost:
            return
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._give_up(f"it is {MOST_WAITING} values behind")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Passes metrics on, and returns at once."""
        self._add(lambda tracker: tracker.log(step, values))

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Passes a picture on, and returns at once."""
        self._add(lambda tracker: tracker.picture(step, name, image))

    def flush(self, seconds: float = 5.0) -> None:
        """Returns when the tracker has taken all that was passed on, or after some
        seconds."""
        done = threading.Event()
        self._add(lambda _: done.set())
        while not self._lost and seconds > 0 and not done.wait(0.1):
            seconds -= 0.1

    def finish(self, summary: Mapping[str, float], failed: bool) -> None:
        """Ends the tracker; returns when it has ended, or after FINISH_SECONDS."""
        self._add(lambda tracker: tracker.finish(summary, failed))
        self._add(None)
        self._thread.join(FINISH_SECONDS)
        if self._thread.is_alive():
            self._give_up(f"it has not ended within {FINISH_SECONDS} s")
